// Replaces CuPy's header: the compiler's own 16-bit floats, computed in float32.
#pragma once

class float16 {
    _Float16 value;

public:
    float16() = default;
    float16(float x) : value(x) {}
    template <class T> explicit float16(T x) : value((float)x) {}
    explicit float16(double x) : value(x) {}  // rounded once
    operator float() const { return value; }

    template <class T> float16& operator=(T x) { return *this = float16(x); }
    template <class T> float16& operator+=(T x) { return *this = float16((float)value + (float)x); }
    template <class T> float16& operator-=(T x) { return *this = float16((float)value - (float)x); }
    template <class T> float16& operator*=(T x) { return *this = float16((float)value * (float)x); }
};

inline int isnan(float16 x) { return std::isnan((float)x); }
inline int isinf(float16 x) { return std::isinf((float)x); }
inline int isfinite(float16 x) { return std::isfinite((float)x); }
inline float16 min(float16 x, float16 y) { return std::min((float)x, (float)y); }
inline float16 max(float16 x, float16 y) { return std::max((float)x, (float)y); }

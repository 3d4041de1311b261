// The storage of rows: float32, or one of the two-byte formats that tensor cores multiply. Arithmetic is float32 everywhere.
#pragma once
#include "ptx.cuh"

struct bf16 {
    unsigned short bits;
    static DEVICE u32 pair(float x, float y) { return bf16_pair(x, y); }
    static DEVICE float2 numbers(u32 pair) { return bf16_numbers(pair); }
};

struct fp16 {
    unsigned short bits;
    static DEVICE u32 pair(float x, float y) { return fp16_pair(x, y); }
    static DEVICE float2 numbers(u32 pair) { return fp16_numbers(pair); }
};

// Four neighbours of a row as stored. They are converted to float32 where they are used, so that many loads can be in flight before.
template <class Short>
struct ShortFour {
    u32 low, high;
    DEVICE operator float4() const {
        const float2 first = Short::numbers(low), last = Short::numbers(high);
        return make_float4(first.x, first.y, last.x, last.y);
    }
};

template <class T>
struct FourOf {
    using type = ShortFour<T>;
};
template <>
struct FourOf<float> {
    using type = float4;
};
template <class T>
using Four = typename FourOf<T>::type;

// As for float32 in warp.cuh, eight bytes at a time.
template <class Short>
DEVICE ShortFour<Short> load4(const Short* row, int at, int width, bool is_wide) {
    ShortFour<Short> found = {0, 0};
    if (is_wide) {
        if (at < width) {
            const uint2 pairs = *reinterpret_cast<const uint2*>(row + at);
            found = {pairs.x, pairs.y};
        }
        return found;
    }
    if (at < width) found.low = row[at].bits;
    if (at + 1 < width) found.low |= (u32)row[at + 1].bits << 16;
    if (at + 2 < width) found.high = row[at + 2].bits;
    if (at + 3 < width) found.high |= (u32)row[at + 3].bits << 16;
    return found;
}

template <class Short>
DEVICE void store4(Short* row, int at, int width, bool is_wide, float4 x) {
    const u32 low = Short::pair(x.x, x.y), high = Short::pair(x.z, x.w);
    if (is_wide) {
        if (at < width) *reinterpret_cast<uint2*>(row + at) = make_uint2(low, high);
        return;
    }
    if (at < width) row[at].bits = (unsigned short)low;
    if (at + 1 < width) row[at + 1].bits = (unsigned short)(low >> 16);
    if (at + 2 < width) row[at + 2].bits = (unsigned short)high;
    if (at + 3 < width) row[at + 3].bits = (unsigned short)(high >> 16);
}

// Outputs for a second copy of float32 rows, for products: at most one of the pointers is not null.
#define ROUNDED bf16* rounded_bf16, fp16* rounded_fp16
#define ROUNDED_ROWS Rounded{rounded_bf16, rounded_fp16}

struct Rounded {
    bf16* as_bf16;
    fp16* as_fp16;

    DEVICE bool is_wide(int width) const { return wide(as_bf16, width) && wide(as_fp16, width); }

    DEVICE void store(i64 start, int at, int width, bool is_wide, float4 x) const {
        if (as_bf16) store4(as_bf16 + start, at, width, is_wide, x);
        if (as_fp16) store4(as_fp16 + start, at, width, is_wide, x);
    }
};

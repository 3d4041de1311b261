// The functions of `ptx.cuh` in plain C++, for the emulator; with TURING those of GPUs before Ampere.
//
// Products are exact and are added in float32, one after another; a tensor core adds in an order of its own.
#pragma once

namespace emulator {

inline unsigned bits_of(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}

inline float float_of(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

// Rounded to nearest with `dropped` bits fewer; ties go to even, or away from zero with `away`.
inline unsigned shortened(float x, int dropped, bool away) {
    const unsigned bits = bits_of(x);
    if (x != x) return (bits | 0x400000u) >> dropped << dropped;
    return (bits + (1u << (dropped - 1)) - !away + (!away && (bits >> dropped & 1))) >> dropped << dropped;
}

inline float from_bf16(unsigned half) { return float_of(half << 16); }

inline float from_fp16(unsigned half) {
    const unsigned short bits = (unsigned short)half;
    _Float16 x;
    memcpy(&x, &bits, 2);
    return (float)x;
}

inline float from_tf32(unsigned bits) { return float_of(bits >> 13 << 13); }  // the hardware ignores the other bits

inline unsigned to_fp16(float x) {
    const _Float16 half = (_Float16)x;
    unsigned short bits;
    memcpy(&bits, &half, 2);
    return bits;
}

struct Fragments {
    unsigned a[4], b[2];
};

// sums += a · b, with element (row, k) of a and (k, column) of b in the lanes as ptx.cuh says; halves come two per register.
template <int K, class Read>
void multiply(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, Read read, int line) {
    const auto all = collect(~0u, Fragments{{a[0], a[1], a[2], a[3]}, {b0, b1}}, line);
    constexpr int packed = K / 8;  // numbers per register
    const auto place = [](int k) { return k % (4 * packed) / packed; };  // the lane within the quad
    const auto part = [&](unsigned bits, int k) { return read(packed == 2 ? bits >> (k % 2 * 16) & 0xFFFFu : bits); };
    for (int i = 0; i < 4; ++i) {
        const unsigned row = lane() / 4 + 8 * (i / 2), column = 2 * (lane() % 4) + i % 2;
        for (int k = 0; k < K; ++k) {
            const int second = k / (4 * packed);
            const float left = part(all[row % 8 * 4 + place(k)].a[2 * second + row / 8], k);
            sums[i] += left * part(all[column * 4 + place(k)].b[second], k);
        }
    }
}

// The row addresses of four matrices, by the lane that passes each.
inline std::array<const char*, WARP> rows_of_matrices(const void* row, int line) {
    if ((size_t)row % 16) fail("line %d: the row of a matrix does not begin at a multiple of 16 bytes", line);
    return collect(~0u, (const char*)row, line);
}

// Copies are made only when awaited, so that reading without waiting gives the old contents.
template <int BYTES>
void copy(void* to, const void* from, bool there, int line) {
    if ((size_t)to % BYTES || (there && (size_t)from % BYTES)) fail("line %d: a copy of %d bytes is not aligned", line, BYTES);
    races::touch(to, BYTES, true);
    if (there) races::touch(from, BYTES, false);
    const races::Pause pause;
    current->copies.push_back({to, there ? from : nullptr, BYTES});
}

}  // namespace emulator

inline float power_of_two(float x) {
    const float power = std::exp2(x);
    return power < 0x1p-126f ? 0.0f : power;
}

inline unsigned tf32(float x) { return emulator::shortened(x, 13, true); }

inline unsigned fp16_pair(float x, float y) { return emulator::to_fp16(x) | emulator::to_fp16(y) << 16; }

inline void multiply_tf32(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, int line = __builtin_LINE()) {
    emulator::multiply<8>(sums, a, b0, b1, emulator::from_tf32, line);
}

inline void multiply_bf16(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, int line = __builtin_LINE()) {
    emulator::multiply<16>(sums, a, b0, b1, emulator::from_bf16, line);
}

inline float2 bf16_numbers(unsigned pair) { return {emulator::from_bf16(pair & 0xFFFFu), emulator::from_bf16(pair >> 16)}; }

inline float2 fp16_numbers(unsigned pair) { return {emulator::from_fp16(pair), emulator::from_fp16(pair >> 16)}; }

inline void load_along(unsigned (&pairs)[4], const void* row, int line = __builtin_LINE()) {
    const auto rows = emulator::rows_of_matrices(row, line);
    const unsigned g = emulator::lane() / 4, c = emulator::lane() % 4;
    for (unsigned matrix = 0; matrix < 4; ++matrix) memcpy(&pairs[matrix], rows[8 * matrix + g] + 4 * c, 4);
}

inline void load_across(unsigned (&pairs)[4], const void* row, int line = __builtin_LINE()) {
    const auto rows = emulator::rows_of_matrices(row, line);
    const unsigned g = emulator::lane() / 4, c = emulator::lane() % 4;
    for (unsigned matrix = 0; matrix < 4; ++matrix) {
        unsigned short low, high;
        memcpy(&low, rows[8 * matrix + 2 * c] + 2 * g, 2);
        memcpy(&high, rows[8 * matrix + 2 * c + 1] + 2 * g, 2);
        pairs[matrix] = low | (unsigned)high << 16;
    }
}

#ifdef TURING
inline void multiply_fp16_of_8(float (&sums)[4], unsigned a0, unsigned a1, unsigned b0, int line = __builtin_LINE()) {
    emulator::multiply<16>(sums, {a0, a1, 0, 0}, b0, 0, emulator::from_fp16, line);  // the missing half is zero
}

#include "scalar.cuh"
#define DEVICE inline
#include "turing.cuh"
#undef DEVICE
#else
inline unsigned bf16_pair(float x, float y) { return emulator::shortened(x, 16, false) >> 16 | emulator::shortened(y, 16, false); }

inline void multiply_fp16(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, int line = __builtin_LINE()) {
    emulator::multiply<16>(sums, a, b0, b1, emulator::from_fp16, line);
}

inline void copy_16(void* to, const void* from, bool there, int line = __builtin_LINE()) { emulator::copy<16>(to, from, there, line); }

inline void copy_4(void* to, const void* from, bool there, int line = __builtin_LINE()) { emulator::copy<4>(to, from, there, line); }

inline void await_copies() {
    for (const auto& copy : emulator::current->copies) races::touch(copy.to, copy.bytes, true);
    const races::Pause pause;
    for (const auto& copy : emulator::current->copies) copy.from ? memcpy(copy.to, copy.from, copy.bytes) : memset(copy.to, 0, copy.bytes);
    emulator::current->copies.clear();
}
#endif

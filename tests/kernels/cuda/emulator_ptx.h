// The functions of `ptx.cuh` in plain C++, for the emulator.
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

// Nearest with `dropped` bits fewer; of two that are equally near the even one, or with `away` the larger one.
inline unsigned shortened(float x, int dropped, bool away) {
    const unsigned bits = bits_of(x);
    if (x != x) return bits | 0x400000u;
    return (bits + (1u << (dropped - 1)) - !away + (!away && (bits >> dropped & 1))) >> dropped << dropped;
}

inline float from_bf16(unsigned half) { return float_of(half << 16); }

inline float from_fp16(unsigned half) {
    const unsigned short bits = (unsigned short)half;
    _Float16 x;
    memcpy(&x, &bits, 2);
    return (float)x;
}

inline float from_tf32(unsigned bits) { return float_of(bits >> 13 << 13); }  // the hardware reads no further

inline unsigned to_fp16(float x) {
    const _Float16 half = (_Float16)x;
    unsigned short bits;
    memcpy(&bits, &half, 2);
    return bits;
}

struct Fragments {
    unsigned a[4], b[2];
};

// sums += a · b. Where element (row, k) of a and (k, column) of b lie: halves are two in a register.
template <int K, class Read>
void multiply(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, Read read, int line) {
    const auto all = collect(~0u, Fragments{{a[0], a[1], a[2], a[3]}, {b0, b1}}, line);
    constexpr int packed = K / 8;  // numbers in a register
    const auto place = [](int k) { return k % (4 * packed) / packed; };  // the lane of a quad
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

}  // namespace emulator

inline float power_of_two(float x) {
    const float power = std::exp2(x);
    return power < 0x1p-126f ? 0.0f : power;
}

inline unsigned tf32(float x) { return emulator::shortened(x, 13, true); }

inline unsigned bf16_pair(float x, float y) { return emulator::shortened(x, 16, false) >> 16 | emulator::shortened(y, 16, false); }

inline unsigned fp16_pair(float x, float y) { return emulator::to_fp16(x) | emulator::to_fp16(y) << 16; }

inline void multiply_tf32(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, int line = __builtin_LINE()) {
    emulator::multiply<8>(sums, a, b0, b1, emulator::from_tf32, line);
}

inline void multiply_bf16(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, int line = __builtin_LINE()) {
    emulator::multiply<16>(sums, a, b0, b1, emulator::from_bf16, line);
}

inline void multiply_fp16(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, int line = __builtin_LINE()) {
    emulator::multiply<16>(sums, a, b0, b1, emulator::from_fp16, line);
}

inline void load_across(unsigned (&pairs)[4], const void* row, int line = __builtin_LINE()) {
    if ((size_t)row % 16) emulator::fail("line %d: the row of a matrix does not begin at a multiple of 16 bytes", line);
    const auto rows = emulator::collect(~0u, row, line);
    const unsigned g = emulator::lane() / 4, c = emulator::lane() % 4;
    for (unsigned matrix = 0; matrix < 4; ++matrix) {
        unsigned short low, high;
        memcpy(&low, (const char*)rows[8 * matrix + 2 * c] + 2 * g, 2);
        memcpy(&high, (const char*)rows[8 * matrix + 2 * c + 1] + 2 * g, 2);
        pairs[matrix] = low | (unsigned)high << 16;
    }
}

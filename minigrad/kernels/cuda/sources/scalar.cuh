// Scalar functions of the kernels: random words, dropout, GELU and its slope, Adam's update of one element. Plain functions accepted by
// NVRTC, nvcc and a C++ compiler alike, so that they can be compared with NumPy without a GPU.
#pragma once

#ifdef __CUDACC__
#define HD __host__ __device__ __forceinline__
#else
#include <cmath>
#define HD inline
#endif

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

// ---------------------------------------------------------------- random words
// The upper half of the 128-bit product.
HD u64 high_product(u64 a, u64 b) {
#ifdef __CUDA_ARCH__
    return __umul64hi(a, b);
#else
    return (u64)(((unsigned __int128)a * b) >> 64);
#endif
}

struct Words {
    u64 word[4];
};

// Philox 4x64 with 10 rounds (Salmon et al., SC 2011): the words that NumPy's Philox gives for this key and this counter.
HD Words philox(u64 key0, u64 key1, u64 counter0, u64 counter1, u64 counter2, u64 counter3) {
    Words x = {{counter0, counter1, counter2, counter3}};
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u64 high0 = high_product(0xD2E7470EE14C6C93ull, x.word[0]), low0 = 0xD2E7470EE14C6C93ull * x.word[0];
        const u64 high2 = high_product(0xCA5A826395121157ull, x.word[2]), low2 = 0xCA5A826395121157ull * x.word[2];
        x.word[0] = high2 ^ x.word[1] ^ key0;
        x.word[1] = low2;
        x.word[2] = high0 ^ x.word[3] ^ key1;
        x.word[3] = low0;
        key0 += 0x9E3779B97F4A7C15ull;
        key1 += 0xBB67AE8584CAA73Bull;
    }
    return x;
}

// ---------------------------------------------------------------- dropout
constexpr u64 DROPOUT = 1;  // the purpose, second word of the key
constexpr int UNITS = 16;   // units per Philox block

// `minigrad.backend.random.Draw` without its rows: a unit survives if its 16 bits are at least `threshold`, and is multiplied by `scale`.
struct Draw {
    u64 seed, site, step;
    u32 threshold;
    float scale;
};

// The parameters that tell a kernel what to drop, and the draw they make. A captured graph is replayed in later steps: then `clock` points
// to the step in device memory, otherwise it is null.
#define RECIPE const u64* clock, u64 seed, u64 site, u64 step, u32 threshold, float scale
#define RECIPE_DRAW Draw{seed, site, clock ? *clock : step, threshold, scale}

// Bit j says whether unit j of a block survives: whether adding 65536 - threshold to its 16 bits carries. block: counted from 0 within the
// sequence.
HD u32 survivors(const Draw& draw, u64 sequence, u64 block) {
    const Words drawn = philox(draw.seed, DROPOUT, block + 1, sequence, draw.site, draw.step);  // NumPy's first block is number 1
    const u64 rest = (u64)(65536 - draw.threshold) << 16;
    u32 bits = 0;
#pragma unroll
    for (int j = UNITS - 1; j >= 0; --j) {
        const u64 word = drawn.word[j / 4];
        const u32 unit = (u32)(j % 4 ? word >> (16 * (j % 4 - 1)) : word << 16);  // in the upper half; the bits below cannot cause a carry
        bits += (u32)((((u64)bits << 32 | unit) + rest) >> 32);
    }
    return bits;
}

// ---------------------------------------------------------------- gelu
// Φ(x), by erfc so that the left tail keeps its digits.
HD float gelu_gate(float x) { return 0.5f * erfcf(x * -0.70710678118654752f); }

HD float gelu(float x) { return x * gelu_gate(x); }

// gelu'(x) = Φ(x) + x · φ(x)
HD float gelu_slope(float x) { return gelu_gate(x) + x * 0.39894228040143268f * expf(-0.5f * x * x); }

// ---------------------------------------------------------------- adam
// Products and sums that are rounded separately: a fused multiply-add would give other last bits than the optimizer on the CPU.
HD float times(float a, float b) {
#ifdef __CUDA_ARCH__
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

HD float plus(float a, float b) {
#ifdef __CUDA_ARCH__
    return __fadd_rn(a, b);
#else
    return a + b;
#endif
}

// The constants of `minigrad.optim.adam.adam`; rest1 = 1 - beta1 and rest2 = 1 - beta2, rounded once.
struct AdamRule {
    float beta1, rest1, beta2, rest2, size, eps, l2, decay;
};

// Updates one element. largest: AMSGrad's largest second moment, or null.
HD void adam_element(const AdamRule& rule, float g, float& p, float& m, float& v, float* largest) {
    if (rule.l2 != 0.0f) g = plus(times(p, rule.l2), g);
    m = plus(times(m, rule.beta1), times(g, rule.rest1));
    v = plus(times(v, rule.beta2), times(times(g, g), rule.rest2));
    float under = v;
    if (largest) under = *largest = (v > *largest || v != v) ? v : *largest;  // NaN wins, as in NumPy
    p = plus(times(p, rule.decay), -times(m / plus(sqrtf(under), rule.eps), rule.size));
}

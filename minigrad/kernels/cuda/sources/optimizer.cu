// Adam over a stretch of the arena, and the sum of squares that clipping needs. The numbers of an update are those of the optimizer on the
// CPU to the last bit.
#include "warp.cuh"

constexpr int LANES = 4;
constexpr int THREADS = 256;

// Four elements of this thread. largest: AMSGrad's, or null.
DEVICE void adam_step(const AdamRule& rule, float factor, float* p, const float* g, float* m, float* v, float* largest, i64 n) {
    const i64 start = (i64)blockIdx.x * THREADS * LANES;
    const int at = threadIdx.x * LANES, width = n - start < THREADS * LANES ? n - start : THREADS * LANES;
    if (at >= width) return;
    const bool w = wide(p, width) && wide(g, width) && wide(m, width) && wide(v, width) && wide(largest, width);
    float4 p4 = load4(p + start, at, width, w), m4 = load4(m + start, at, width, w), v4 = load4(v + start, at, width, w);
    float4 g4 = load4(g + start, at, width, w), l4 = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (largest) l4 = load4(largest + start, at, width, w);
    float *ps = &p4.x, *ms = &m4.x, *vs = &v4.x, *gs = &g4.x, *ls = &l4.x;
#pragma unroll
    for (int j = 0; j < LANES; ++j) adam_element(rule, times(gs[j], factor), ps[j], ms[j], vs[j], largest ? ls + j : nullptr);
    store4(p + start, at, width, w, p4);
    store4(m + start, at, width, w, m4);
    store4(v + start, at, width, w, v4);
    if (largest) store4(largest + start, at, width, w, l4);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    adam(float* p, const float* g, float* m, float* v, float* largest, i64 n, float beta1, float rest1, float beta2, float rest2, float size,
         float eps, float l2, float decay, float factor) {
    adam_step({beta1, rest1, beta2, rest2, size, eps, l2, decay}, factor, p, g, m, v, largest, n);
}

// For a captured graph, one thread: what changes from step to step, from what lies in device memory. A step whose gradients are not finite
// (`found`) is not counted. now: size, eps, decay and the factor of the gradients; step: how many there were; scale: the factor, or null.
extern "C" __global__ void adam_now(i64* step, const double* lr, const float* scale, const int* found, float* now, double beta1,
                                    double beta2, double eps, double weight_decay, int decoupled) {
    if (*found) return;
    const double t = (double)++*step, correction = sqrt(1.0 - pow(beta2, t));
    now[0] = (float)(*lr * correction / (1.0 - pow(beta1, t)));
    now[1] = (float)(eps * correction);
    now[2] = decoupled ? (float)(1.0 - *lr * weight_decay) : 1.0f;
    now[3] = scale ? *scale : 1.0f;
}

// The same update with what `adam_now` has written.
extern "C" __global__ void __launch_bounds__(THREADS)
    adam_captured(float* p, const float* g, float* m, float* v, float* largest, i64 n, float beta1, float rest1, float beta2, float rest2,
                  float l2, const float* now, const int* found) {
    if (*found) return;
    adam_step({beta1, rest1, beta2, rest2, now[0], now[1], l2, now[2]}, now[3], p, g, m, v, largest, n);
}

// ---------------------------------------------------------------- sums of squares
constexpr int SQUARES = 16384;  // numbers of a block

// partial = the sum of the squares of each block's numbers.
extern "C" __global__ void __launch_bounds__(THREADS) sum_of_squares(const float* x, double* partial, i64 n) {
    const i64 start = (i64)blockIdx.x * SQUARES;
    const int width = n - start < SQUARES ? n - start : SQUARES;
    const bool w = wide(x, width);
    double sum = 0.0;
#pragma unroll 4
    for (int at = threadIdx.x * LANES; at < width; at += THREADS * LANES) {
        const float4 v = load4(x + start, at, width, w);
        sum += (double)v.x * v.x + (double)v.y * v.y + ((double)v.z * v.z + (double)v.w * v.w);
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// total = the sum of n numbers, by one block.
extern "C" __global__ void __launch_bounds__(THREADS) sum_doubles(const double* partial, double* total, i64 n) {
    double sum = 0.0;
    for (i64 i = threadIdx.x; i < n; i += THREADS) sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *total = sum;
}

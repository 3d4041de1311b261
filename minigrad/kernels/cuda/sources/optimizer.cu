// Adam and the average of the weights over a stretch of the arena, and the sum of squares for clipping. Updates equal those of the
// optimizer on the CPU to the last bit.
#include "warp.cuh"

constexpr int THREADS = 256;

// Updates this thread's four elements. largest: AMSGrad's, or null.
DEVICE void adam_step(const AdamRule& rule, float factor, float* p, const float* g, float* m, float* v, float* largest, i64 n) {
    const i64 start = (i64)blockIdx.x * THREADS * LANES;
    const int at = threadIdx.x * LANES, width = n - start < THREADS * LANES ? n - start : THREADS * LANES;
    if (at >= width) return;
    const bool w = wide(p, width) && wide(g, width) && wide(m, width) && wide(v, width) && wide(largest, width);
    float4 p4 = load4(p + start, at, width, w), m4 = load4(m + start, at, width, w), v4 = load4(v + start, at, width, w);
    float4 g4 = load4(g + start, at, width, w), l4 = make_float4(0.0f);
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

// The sum of n numbers, in every thread of a block.
DEVICE double sum_of(const double* numbers, i64 n) {
    double sum = 0.0;
    for (i64 i = threadIdx.x; i < n; i += THREADS) sum += numbers[i];
    return block_sum(sum);
}

// For a captured graph, one block: what only the GPU knows when an update is due, computed in float64 as by `optim.clip.clip_coefficient`.
// loss: the step's; otherwise losses: the sum over its micro-batches; the other pointer is null. squares: n numbers whose sum is the squared
// norm of the gradient. numbers, for the host: the loss and that sum. scale: the factor for the gradients. stopped: set by the first step
// whose loss or norm is not finite, for all later ones, until the host clears it. The last two are null without an update.
extern "C" __global__ void __launch_bounds__(THREADS)
    begin_captured(const float* loss, const double* losses, const double* squares, i64 n, double max_norm, double* numbers, float* scale,
                   int* stopped) {
    const double square = sum_of(squares, n);
    if (threadIdx.x) return;
    const double whole = loss ? *loss : *losses;
    numbers[0] = whole;
    numbers[1] = square;
    if (!stopped) return;
    const double norm = sqrt(square), coefficient = max_norm / (norm + 1e-6);
    *scale = coefficient >= 1.0 ? 1.0f : (float)coefficient;
    if (!(whole - whole == 0.0 && norm - norm == 0.0)) *stopped = 1;
}

// The same update as `adam`. changing: size, eps and decay of this step. scale and stopped: as written by `begin_captured`.
extern "C" __global__ void __launch_bounds__(THREADS)
    adam_captured(float* p, const float* g, float* m, float* v, float* largest, i64 n, float beta1, float rest1, float beta2, float rest2,
                  float l2, const float* changing, const float* scale, const int* stopped) {
    if (*stopped) return;
    adam_step({beta1, rest1, beta2, rest2, changing[0], changing[1], l2, changing[2]}, *scale, p, g, m, v, largest, n);
}

// The moving average of the weights after the update.
extern "C" __global__ void __launch_bounds__(THREADS)
    average_captured(const float* weights, float* average, i64 n, float rate, const int* stopped) {
    if (*stopped) return;
    const i64 start = (i64)blockIdx.x * THREADS * LANES;
    const int at = threadIdx.x * LANES, width = n - start < THREADS * LANES ? n - start : THREADS * LANES;
    if (at >= width) return;
    const bool w = wide(weights, width) && wide(average, width);
    const float4 p4 = load4(weights + start, at, width, w);
    float4 a4 = load4(average + start, at, width, w);
    const float* ps = &p4.x;
    float* as = &a4.x;
#pragma unroll
    for (int j = 0; j < LANES; ++j) as[j] = plus(as[j], times(rate, plus(ps[j], -as[j])));
    store4(average + start, at, width, w, a4);
}

// ---------------------------------------------------------------- sums of squares
constexpr int SQUARES = 16384;  // numbers per block

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
    const double sum = sum_of(partial, n);
    if (threadIdx.x == 0) *total = sum;
}

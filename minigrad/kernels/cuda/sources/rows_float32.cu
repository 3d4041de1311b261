// The kernels of layer_norm.cuh and strips.cuh for rows stored as float32, dropout by itself, tanh, and the kernel that adds up the sums of
// all blocks.
#include "storage.cuh"

using Storage = float;
#define KERNEL(name, blocks) extern "C" __global__ void __launch_bounds__(256, blocks) name##_float32
#include "layer_norm.cuh"
#include "strips.cuh"

// out = dropout(x); out may be x.
extern "C" __global__ void __launch_bounds__(256) drop(const float* x, float* out, ROUNDED, i64 rows, int width, const int2* places,
                                                               RECIPE) {
    drop_rows(x, out, ROUNDED_ROWS, rows, width, places, RECIPE_DRAW);
}

// h = tanh(h + bias)
extern "C" __global__ void __launch_bounds__(256) bias_tanh(float* h, const float* bias, i64 rows, int width) {
    const Strip strip(rows, width);
    const bool w = wide(h, width);
    const float4 b = load4(bias, strip.at, width, wide(bias, width));
    float4 given[AHEAD];
    strip.load(given, h, w);
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
        const float4 x = given[i] + b;
        strip.store(i, h, w, make_float4(tanhf(x.x), tanhf(x.y), tanhf(x.z), tanhf(x.w)));
    }
}

// dh = g · (1 - y²), where y = tanh(h); dh may be g. partial: the sums of dh over the rows of each block.
extern "C" __global__ void __launch_bounds__(256)
    bias_tanh_pullback(const float* g, const float* y, float* dh, ROUNDED, float* partial, i64 rows, int width) {
    const Strip strip(rows, width);
    const Rounded rounded = ROUNDED_ROWS;
    const bool w = wide(g, width) && wide(y, width) && wide(dh, width) && rounded.is_wide(width);
    float4 above[AHEAD], given[AHEAD];
    strip.load(above, g, w);
    strip.load(given, y, w);
    float4 sum = make_float4(0.0f);
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
        const float4 found = above[i] * (make_float4(1.0f) + given[i] * given[i] * -1.0f);
        strip.store(i, dh, w, found);
        if (strip.has(i)) rounded.store(strip.start + i * strip.step, strip.at, width, w, found);
        sum = sum + found;
    }
    store_sum(partial, strip, width, over_rows(sum));
}

// out = the sum of all rows. Eight neighbouring threads have 32 columns; 32 such groups take turns with the rows.
extern "C" __global__ void __launch_bounds__(256) total_rows(const float* x, float* out, i64 rows, int width) {
    constexpr int GROUPS = 32, AT_ONCE = 8;
    const int at = (blockIdx.x * (WARP / LANES) + threadIdx.x) * LANES;
    const bool w = wide(x, width) && wide(out, width);
    float4 sum = make_float4(0.0f);
    for (i64 first = threadIdx.y; first < rows; first += GROUPS * AT_ONCE) {
        float4 given[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
            const i64 row = first + i * GROUPS;
            given[i] = load4(x + row * width, at, row < rows ? width : 0, w);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) sum = sum + given[i];
    }
    __shared__ float4 all[GROUPS][WARP / LANES];
    all[threadIdx.y][threadIdx.x] = sum;
    for (u32 half = GROUPS / 2; half; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) all[threadIdx.y][threadIdx.x] = all[threadIdx.y][threadIdx.x] + all[threadIdx.y + half][threadIdx.x];
    }
    if (threadIdx.y == 0) store4(out, at, width, w, all[0][threadIdx.x]);
}

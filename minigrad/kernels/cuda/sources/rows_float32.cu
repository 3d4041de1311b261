// The kernels of layer_norm.cuh and strips.cuh for rows that lie in memory as float32, dropout by itself, and what
// adds up the sums of all blocks.
#include "storage.cuh"

using Storage = float;
#define KERNEL(name, blocks) extern "C" __global__ void __launch_bounds__(256, blocks) name##_float32
#include "layer_norm.cuh"
#include "strips.cuh"

// out = dropout(x); out may be x.
extern "C" __global__ void __launch_bounds__(256) drop(const float* x, float* out, i64 rows, int width, const int2* places, RECIPE) {
    drop_rows<float>(x, out, nullptr, rows, width, places, RECIPE_DRAW);
}

// out = the sum of all rows. Eight threads side by side have 32 columns; 32 of such groups take turns with the rows.
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

#include "warp.cuh"

constexpr int STRIP = 128;  // columns of a block of 32 x 8 threads, four for each thread
constexpr int STEP = 8;     // rows that such a block works on at a time
constexpr int FEW = 32;     // rows of a block that only changes numbers

// y += bias
extern "C" __global__ void __launch_bounds__(256) add_bias(float* y, const float* bias, i64 rows, int width) {
    const int at = blockIdx.y * STRIP + threadIdx.x * 4;
    const bool w = wide(y, width), wb = wide(bias, width);
    const float4 b = load4(bias, at, width, wb);
    const i64 first = (i64)blockIdx.x * FEW + threadIdx.y;
#pragma unroll
    for (int i = 0; i < FEW; i += STEP)
        if (first + i < rows) {
            float* row = y + (first + i) * width;
            float4 v = load4(row, at, width, w);
            v.x += b.x, v.y += b.y, v.z += b.z, v.w += b.w;
            store4(row, at, width, w, v);
        }
}

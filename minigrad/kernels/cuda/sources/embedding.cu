// Rows of a table: gathered, and for the gradient summed by the row of the table that they came from, always in the same order.
#include "warp.cuh"

constexpr int LANES = 4;
constexpr int CHUNK = LANES * WARP;
constexpr int WARPS = 8;

// out = table[ids], with NaN for an id outside of the table. Shapes: table (height, width).
extern "C" __global__ void __launch_bounds__(256)
    gather_rows(const float* table, const i64* ids, float* out, i64 rows, i64 height, int width) {
    const i64 row = (i64)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (row >= rows) return;
    const bool w = wide(table, width) && wide(out, width);
    const i64 id = ids[row];
    const bool inside = 0 <= id && id < height;
    const float nan = not_a_number();
#pragma unroll 4
    for (int at = threadIdx.x % WARP * LANES; at < width; at += CHUNK) {
        const float4 x = inside ? load4(table + id * width, at, width, w) : make_float4(nan, nan, nan, nan);
        store4(out + row * width, at, width, w, x);
    }
}

// out[s] = the sum of values[order[i]] for i from starts[s] to starts[s + 1] - 1. Shapes: starts (segments + 1).
extern "C" __global__ void __launch_bounds__(256)
    sum_segments(const float* values, const i64* order, const i64* starts, float* out, i64 segments, int width) {
    __shared__ float4 all[WARPS][WARP];
    const i64 segment = blockIdx.x;
    if (segment >= segments) return;
    const int at = blockIdx.y * CHUNK + threadIdx.x * LANES;
    const bool w = wide(values, width);
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const i64 end = starts[segment + 1];
#pragma unroll 4
    for (i64 i = starts[segment] + threadIdx.y; i < end; i += WARPS) {
        const float4 x = load4(values + order[i] * width, at, width, w);
        sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
    }
    all[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y) return;
    for (int i = 1; i < WARPS; ++i) {
        const float4 x = all[i][threadIdx.x];
        sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
    }
    store4(out + segment * width, at, width, wide(out, width), sum);
}

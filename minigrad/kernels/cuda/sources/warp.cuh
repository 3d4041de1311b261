// Shared by kernels beyond scalars: sums over a warp or a block, and groups of four neighbours of a row, which are read at once.
#pragma once

#include "scalar.cuh"

#define DEVICE __device__ __forceinline__

constexpr u32 ALL = ~0u;
constexpr int WARP = 32;
constexpr int LANES = 4;             // neighbouring numbers that a lane reads at once
constexpr int CHUNK = LANES * WARP;  // numbers that a warp reads at once

#define INFINITE __int_as_float(0x7F800000)

// The result for a row number or a class that does not exist: nothing is read there, and the mistake shows.
DEVICE float not_a_number() { return __int_as_float(0x7FFFFFFF); }

// Every lane gets the sum, bit-identical because lanes add in pairs.
DEVICE float warp_sum(float x) {
#pragma unroll
    for (int far = WARP / 2; far; far /= 2) x += __shfl_xor_sync(ALL, x, far);
    return x;
}

DEVICE float warp_max(float x) {
#pragma unroll
    for (int far = WARP / 2; far; far /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, far));
    return x;
}

// Every thread of a block of up to 32 warps (threads along x) gets the sum.
template <class T>
DEVICE T block_sum(T x) {
    __shared__ T of_warp[WARP];
#pragma unroll
    for (int far = WARP / 2; far; far /= 2) x += __shfl_xor_sync(ALL, x, far);
    __syncthreads();  // the previous sum has been read
    if (threadIdx.x % WARP == 0) of_warp[threadIdx.x / WARP] = x;
    __syncthreads();
    T sum = 0;
    for (int i = 0; i < (int)blockDim.x / WARP; ++i) sum += of_warp[i];
    return sum;
}

// Only once per kernel: there is no barrier for an earlier result to have been read.
DEVICE float block_max(float x) {
    __shared__ float of_warp[WARP];
    x = warp_max(x);
    if (threadIdx.x % WARP == 0) of_warp[threadIdx.x / WARP] = x;
    __syncthreads();
    x = of_warp[0];
    for (int i = 1; i < (int)blockDim.x / WARP; ++i) x = fmaxf(x, of_warp[i]);
    return x;
}

// ---------------------------------------------------------------- four neighbours
DEVICE float4 make_float4(float x) { return make_float4(x, x, x, x); }

DEVICE float4 operator+(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
DEVICE float4 operator-(float4 a, float b) { return make_float4(a.x - b, a.y - b, a.z - b, a.w - b); }
DEVICE float4 operator*(float4 a, float4 b) { return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w); }
DEVICE float4 operator*(float4 a, float b) { return make_float4(a.x * b, a.y * b, a.z * b, a.w * b); }

// Whether rows of `width` numbers from `start` on can be read four numbers at a time. True for a null pointer.
template <class T>
DEVICE bool wide(const T* start, int width) { return ((u64)start & (4 * sizeof(T) - 1)) == 0 && width % 4 == 0; }

// row[at .. at + 3], with zeros from `width` on.
DEVICE float4 load4(const float* row, int at, int width, bool is_wide) {
    if (is_wide) return at < width ? *reinterpret_cast<const float4*>(row + at) : make_float4(0.0f);
    return make_float4(at < width ? row[at] : 0.0f, at + 1 < width ? row[at + 1] : 0.0f, at + 2 < width ? row[at + 2] : 0.0f,
                       at + 3 < width ? row[at + 3] : 0.0f);
}

DEVICE void store4(float* row, int at, int width, bool is_wide, float4 x) {
    if (is_wide) {
        if (at < width) *reinterpret_cast<float4*>(row + at) = x;
        return;
    }
    if (at < width) row[at] = x.x;
    if (at + 1 < width) row[at + 1] = x.y;
    if (at + 2 < width) row[at + 2] = x.z;
    if (at + 3 < width) row[at + 3] = x.w;
}

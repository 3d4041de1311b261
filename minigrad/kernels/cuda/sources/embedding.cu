// Rows of a table: gathered, and for the gradient summed by the row of the table that they came from, always in the same order.
#include "warp.cuh"

constexpr int LANES = 4;
constexpr int CHUNK = LANES * WARP;
constexpr int WARPS = 8;
constexpr int RANKED = 256;  // ids of a block

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

// Ids in ascending order, equal ones as they come, and where each has been. Everybody counts who comes before him: n² comparisons, and no
// memory or waiting that a captured graph could not have.
extern "C" __global__ void __launch_bounds__(RANKED) rank_ids(const i64* ids, i64* order, i64* ascending, i64 n) {
    __shared__ i64 others[RANKED];
    const i64 mine = (i64)blockIdx.x * RANKED + threadIdx.x;
    const i64 id = mine < n ? ids[mine] : 0;
    i64 rank = 0;
    for (i64 start = 0; start < n; start += RANKED) {
        __syncthreads();
        if (start + threadIdx.x < n) others[threadIdx.x] = ids[start + threadIdx.x];
        __syncthreads();
        const int count = n - start < RANKED ? n - start : RANKED;
        for (int j = 0; j < count; ++j) rank += others[j] < id || (others[j] == id && start + j < mine);
    }
    if (mine >= n) return;
    order[rank] = mine;
    ascending[rank] = id;
}

// Where the run of equal numbers ends that begins at `first` of n ascending ones: steps that double, then halves. One look if it has one.
DEVICE i64 end_of_run(const i64* ascending, i64 first, i64 n) {
    const i64 id = ascending[first];
    i64 inside = first, step = 1;
    while (inside + step < n && ascending[inside + step] == id) inside += step, step *= 2;
    for (i64 outside = inside + step < n ? inside + step : n; outside - inside > 1;) {
        const i64 middle = inside + (outside - inside) / 2;
        (ascending[middle] == id ? inside : outside) = middle;
    }
    return inside + 1;
}

// out[id] += the sum of values[order[i]] over all i with ids[i] = id; ids ascend. An id outside of the table has no row there, and no sum.
// Each place of ids has a block, so that nobody needs to know how many differ; the first of each run does the work. Shapes: out (height,
// width).
extern "C" __global__ void __launch_bounds__(256)
    sum_rows(const float* values, const i64* order, const i64* ids, float* out, i64 rows, i64 height, int width) {
    __shared__ float4 all[WARPS][WARP];
    const i64 first = blockIdx.x;
    if (first >= rows) return;
    const i64 id = ids[first];
    if (id < 0 || id >= height || (first > 0 && ids[first - 1] == id)) return;
    const int at = blockIdx.y * CHUNK + threadIdx.x * LANES;
    const bool w = wide(values, width);
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const i64 end = end_of_run(ids, first, rows);
#pragma unroll 4
    for (i64 i = first + threadIdx.y; i < end; i += WARPS) {
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
    const bool v = wide(out, width);
    const float4 x = load4(out + id * width, at, width, v);
    sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
    store4(out + id * width, at, width, v, sum);
}

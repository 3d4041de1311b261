// Operations on whole sequences: the mean and the maximum of their rows, and position numbers for their tokens.
//
// The rows at which sequences begin are read from device memory, so that a captured graph serves sequences of other lengths. Every sum is
// added in one order. A sequence has at least one row. Shapes: first_rows (sequences,), x (rows, width).
#include "rows.cuh"

struct Span {
    i64 first, end;

    DEVICE Span(const i64* first_rows, i64 sequence, i64 sequences, i64 rows)
        : first(first_rows[sequence]), end(sequence + 1 < sequences ? first_rows[sequence + 1] : rows) {}
};

DEVICE float larger(float a, float b) { return b > a || b != b ? b : a; }  // NaN wins, as in NumPy

struct Sum {
    static DEVICE float4 nothing() { return make_float4(0.0f); }
    static DEVICE float4 of(float4 a, float4 b) { return a + b; }
};

struct Largest {
    static DEVICE float4 nothing() { return make_float4(-INFINITE); }
    static DEVICE float4 of(float4 a, float4 b) { return make_float4(larger(a.x, b.x), larger(a.y, b.y), larger(a.z, b.z), larger(a.w, b.w)); }
};

// Combines the values of the eight threads of a block with the same columns; each of them gets the result.
template <class Together>
DEVICE float4 over_warps(float4 mine) {
    __shared__ float4 all[WARPS][WARP];
    all[threadIdx.y][threadIdx.x] = mine;
    __syncthreads();
    float4 found = all[0][threadIdx.x];
#pragma unroll
    for (int i = 1; i < WARPS; ++i) found = Together::of(found, all[i][threadIdx.x]);
    return found;
}

// Combines the rows of a span, for this thread's columns.
template <class Together>
DEVICE float4 over_rows(const float* x, const Span& span, int at, int width, bool w) {
    float4 found = Together::nothing();
#pragma unroll 8
    for (i64 row = span.first + threadIdx.y; row < span.end; row += WARPS) found = Together::of(found, load4(x + row * width, at, width, w));
    return over_warps<Together>(found);
}

// out = the mean of the rows of each sequence. One block per sequence and strip of columns; each of its warps reads every eighth row.
extern "C" __global__ void __launch_bounds__(256, 4)
    segment_mean(const float* x, const i64* first_rows, float* out, i64 rows, i64 sequences, int width) {
    const Span span(first_rows, blockIdx.x, sequences, rows);
    const int at = blockIdx.y * CHUNK + threadIdx.x * LANES;
    const bool w = wide(x, width) && wide(out, width);
    const float4 sum = over_rows<Sum>(x, span, at, width, w);
    const float share = 1.0f / (float)(span.end - span.first);
    if (threadIdx.y == 0) store4(out + (i64)blockIdx.x * width, at, width, w, sum * share);
}

extern "C" __global__ void __launch_bounds__(256)
    segment_mean_pullback(const float* g, const i64* first_rows, float* dx, i64 rows, i64 sequences, int width) {
    const Span span(first_rows, blockIdx.x, sequences, rows);
    const int at = blockIdx.y * CHUNK + threadIdx.x * LANES;
    const bool w = wide(g, width) && wide(dx, width);
    const float share = 1.0f / (float)(span.end - span.first);
    const float4 each = load4(g + (i64)blockIdx.x * width, at, width, w) * share;
#pragma unroll 4
    for (i64 row = span.first + threadIdx.y; row < span.end; row += WARPS) store4(dx + row * width, at, width, w, each);
}

// out = the maximum of each column over the rows of each sequence.
extern "C" __global__ void __launch_bounds__(256)
    segment_max(const float* x, const i64* first_rows, float* out, i64 rows, i64 sequences, int width) {
    const Span span(first_rows, blockIdx.x, sequences, rows);
    const int at = blockIdx.y * CHUNK + threadIdx.x * LANES;
    const bool w = wide(x, width) && wide(out, width);
    const float4 largest = over_rows<Largest>(x, span, at, width, w);
    if (threadIdx.y == 0) store4(out + (i64)blockIdx.x * width, at, width, w, largest);
}

DEVICE float4 hits(float4 x, float4 largest) {
    return make_float4(x.x == largest.x, x.y == largest.y, x.z == largest.z, x.w == largest.w);
}

// Equal maxima share the gradient evenly. If the maximum is NaN no number equals it, and 0/0 makes the gradient NaN.
extern "C" __global__ void __launch_bounds__(256) segment_max_pullback(const float* g, const float* x, const float* out, const i64* first_rows,
                                                                       float* dx, i64 rows, i64 sequences, int width) {
    const Span span(first_rows, blockIdx.x, sequences, rows);
    const int at = blockIdx.y * CHUNK + threadIdx.x * LANES;
    const bool w = wide(g, width) && wide(x, width) && wide(out, width) && wide(dx, width);
    const float4 above = load4(g + (i64)blockIdx.x * width, at, width, w), largest = load4(out + (i64)blockIdx.x * width, at, width, w);
    float4 count = Sum::nothing();
#pragma unroll 4
    for (i64 row = span.first + threadIdx.y; row < span.end; row += WARPS)
        count = Sum::of(count, hits(load4(x + row * width, at, width, w), largest));
    count = over_warps<Sum>(count);
#pragma unroll 4
    for (i64 row = span.first + threadIdx.y; row < span.end; row += WARPS) {
        const float4 hit = hits(load4(x + row * width, at, width, w), largest);
        store4(dx + row * width, at, width, w,
               make_float4(above.x * (hit.x / count.x), above.y * (hit.y / count.y), above.z * (hit.z / count.z), above.w * (hit.w / count.w)));
    }
}

// out = start + the number of ids of the sequence, up to and including each, that are not `skipped`; start for a skipped one. One warp per
// sequence, 32 ids at a time.
extern "C" __global__ void __launch_bounds__(256)
    count_ids(const i64* ids, const i64* first_rows, i64* out, i64 rows, i64 sequences, i64 skipped, i64 start) {
    const i64 sequence = row_of_warp();  // one warp per sequence as if it were a row
    if (sequence >= sequences) return;
    const Span span(first_rows, sequence, sequences, rows);
    const int lane = threadIdx.x % WARP;
    i64 before = start;
    for (i64 row = span.first + lane; row - lane < span.end; row += WARP) {
        const bool counts = row < span.end && ids[row] != skipped;
        const u32 all = __ballot_sync(ALL, counts);
        if (row < span.end) out[row] = counts ? before + __popc(all & ((2u << lane) - 1)) : start;
        before += __popc(all);
    }
}

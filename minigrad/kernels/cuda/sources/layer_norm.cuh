// Dropout, residual and layer normalisation, forward and backward: one warp per row of up to 1024 numbers.
//
// Rows are contiguous. What passes between two products of a block of BERT has type `Storage`, everything else is float32. A source defines
// `Storage` and `KERNEL(name, blocks)`, the name with the storage as suffix and how many blocks should fit on a multiprocessor, and
// includes this file and strips.cuh. All of a thread's loads are issued before any value is used or random words are drawn. A float32 row
// is copied to shared memory meanwhile, which leaves registers for more warps. No result depends on the order in which blocks run, or on
// how many run at once.
#pragma once
#include "rows.cuh"

constexpr int CHUNKS = 8;  // chunks of the widest row

constexpr bool SHORT = sizeof(Storage) == 2;

DEVICE float total(float4 a) { return (a.x + a.y) + (a.z + a.w); }

// How many of a row's N chunks (N is 0 for any number) a lane holds in registers: all, or none if they are too many.
template <int N>
constexpr int HELD = N <= 6 ? N : 0;

template <int N>
constexpr int UNROLLED = N == 0 ? 1 : N <= 6 ? N : 4;

// Whether a loop over N chunks pauses half-way at `__syncwarp`: the compiler would issue more loads at once than registers can hold.
template <int N>
constexpr bool HALVED = SHORT && N > 4;

// A lane's numbers of a row, four per chunk: N in registers, or for N = 0 in shared memory.
template <int N>
struct Row {
    float4 part[N];
    DEVICE Row(float4*) {}
    DEVICE float4& operator[](int i) { return part[i]; }
};
template <>
struct Row<0> {
    float4* lane;
    DEVICE Row(float4* lane) : lane(lane) {}
    DEVICE float4& operator[](int i) { return lane[i * WARP]; }
};

// The same as stored in memory, from x on: N loads are issued here; for N = 0 numbers are loaded where they are used.
template <class T, int N>
struct Given {
    Four<T> part[N];
    DEVICE Given(const T* x) {
#pragma unroll
        for (int i = 0; i < N; ++i) part[i] = load4(x, i * CHUNK, i * CHUNK + LANES, true);
    }
    DEVICE float4 at(int i, int, bool) const { return part[i]; }
};
template <class T>
struct Given<T, 0> {
    const T* x;
    DEVICE Given(const T* x) : x(x) {}
    DEVICE float4 at(int i, int end, bool is_wide) const { return load4(x, i * CHUNK, end, is_wide); }
};

// Shared memory for a lane's part of one row.
DEVICE float4* lane_room() {
    __shared__ float4 rows[WARPS][CHUNKS * WARP];
    return rows[threadIdx.x / WARP] + threadIdx.x % WARP;
}

// A lane's position in a row of N chunks, or for N = 0 of any width.
template <int N>
struct Lane {
    const int width, at, left;  // numbers in the row, the lane's first, and how many remain from there
    const i64 start;            // offset of that number in an array of rows
    float4* const room;

    DEVICE Lane(i64 row, int all)
        : width(N ? N * CHUNK : all), at(threadIdx.x % WARP * LANES), left(width - at), start(row * width + at), room(lane_room()) {}

    // The number of chunks in which it has numbers.
    DEVICE int chunks() const { return N ? N : (left + CHUNK - 1) / CHUNK; }

    // The bound for testing whether numbers from chunk i on belong to the row.
    DEVICE int end(int i) const { return N ? i * CHUNK + LANES : left; }

    // Starts copying its numbers of the row of x into its room, or zeros if x is null; they are there once copies have been awaited.
    DEVICE void fetch(const float* x, bool is_wide) const {
#pragma unroll(UNROLLED<N>)
        for (int i = 0; i < chunks(); ++i) {
            if (is_wide)
                copy_16(room + i * WARP, x + start + i * CHUNK, x);
            else
                room[i * WARP] = load4(x + start, i * CHUNK, x ? left : 0, false);
        }
    }
};

// Runs `work` on a row, compiled for the row's number of chunks. Rows that do not fill their chunks, or cannot be read four numbers at a
// time, are rare: one generic version serves them all.
template <class Work>
DEVICE void by_width(const Work& work, int width, bool is_wide) {
    switch (is_wide ? width : 0) {
        case CHUNK: return work.template run<1>(true);
        case 2 * CHUNK: return work.template run<2>(true);
        case 3 * CHUNK: return work.template run<3>(true);
        case 4 * CHUNK: return work.template run<4>(true);
        case 6 * CHUNK: return work.template run<6>(true);
        case 8 * CHUNK: return work.template run<8>(true);
        default: return work.template run<0>(is_wide);
    }
}

struct AddNorm {
    const Storage* y;
    const float *bias, *residual, *gamma, *beta;
    float* out;
    Storage *rounded, *xhat;
    float* rstd;
    i64 row;
    int width;
    float eps;
    const RowDraw& drawing;

    template <int N>
    DEVICE void run(bool w) const {
        const Lane<N> lane(row, width);
        const float share = __frcp_rn((float)lane.width);  // exactly 1 for a row of one number, so that nothing is left of it
        lane.fetch(residual, w);
        const Given<Storage, HELD<N>> given(y + lane.start);
        __syncwarp();  // or the compiler would move the loads to where they are used
        const u32 kept = draw_chunks<N ? N : CHUNKS>(drawing, 0);
        await_copies();
        Row<HELD<N>> v(lane.room);
#pragma unroll(UNROLLED<N>)
        for (int i = 0; i < lane.chunks(); ++i) {
            if (HALVED<N> && i == N / 2) __syncwarp();
            float4 found = given.at(i, lane.end(i), w);
            if (bias) found = found + load4(bias + lane.at, i * CHUNK, lane.end(i), w);
            v[i] = lane.room[i * WARP] + found * factors(drawing, kept, i);
        }
        // First one of the numbers is subtracted, then the mean of the rest: rows with a large mean keep their digits.
        float less = __shfl_sync(ALL, lane.left > 0 ? v[0].x : 0.0f, 0);
#pragma unroll
        for (int pass = 0; pass < 2; ++pass) {
            float sum = 0.0f;
#pragma unroll(UNROLLED<N>)
            for (int i = 0; i < lane.chunks(); ++i) {
                float4 found = v[i] - less;
                float* numbers = &found.x;
#pragma unroll
                for (int j = 0; j < LANES; ++j)
                    if (!N && i * CHUNK + j >= lane.left) numbers[j] = 0.0f;  // past the row's end
                v[i] = found;
                sum += total(pass ? found * found : found);
            }
            less = warp_sum(sum) * share;
        }
        const float inverse = rsqrtf(less + eps);  // of the variance
        if (rstd && lane.at == 0) rstd[row] = inverse;
#pragma unroll(UNROLLED<N>)
        for (int i = 0; i < lane.chunks(); ++i) {
            if (HALVED<N> && i == N / 2) __syncwarp();
            v[i] = v[i] * inverse;
            if (xhat) store4(xhat + lane.start, i * CHUNK, lane.end(i), w, v[i]);
        }
#pragma unroll(UNROLLED<N>)
        for (int i = 0; i < lane.chunks(); ++i) {
            if (HALVED<N> && i == N / 2) __syncwarp();
            const int at = i * CHUNK, end = lane.end(i);
            const float4 found = v[i] * load4(gamma + lane.at, at, end, w) + load4(beta + lane.at, at, end, w);
            store4(out + lane.start, at, end, w, found);
            if (rounded) store4(rounded + lane.start, at, end, w, found);
        }
    }
};

// out = x̂ · gamma + beta, where x̂ are the normalised rows of dropout(y + bias) + residual. Saved for the backward pass: x̂, which may be
// y, and rstd = 1/σ of each row. rounded: out again, as `Storage`. With float32 storage out may be y. Null pointers: bias and residual if
// there is none; rounded if not wanted; xhat and rstd if nothing is saved; places if nothing is dropped.
KERNEL(add_norm, SHORT ? 4 : 3)
(const Storage* y, const float* __restrict__ bias, const float* residual, const float* __restrict__ gamma, const float* __restrict__ beta,
 float* out, Storage* rounded, Storage* xhat, float* rstd, i64 rows, int width, float eps, const int2* places, RECIPE) {
    const i64 row = row_of_warp();
    if (row >= rows) return;
    const RowDraw drawing(places, RECIPE_DRAW, row, width);
    const bool w = wide(y, width) & wide(residual, width) & wide(out, width) & wide(rounded, width) & wide(xhat, width) &
                   wide(bias, width) & wide(gamma, width) & wide(beta, width);  // & avoids branches
    by_width(AddNorm{y, bias, residual, gamma, beta, out, rounded, xhat, rstd, row, width, eps, drawing}, width, w);
}

struct AddNormPullback {
    const float *g, *gamma;
    const Storage* xhat;
    const float* rstd;
    float* gx;
    Storage* dy;
    i64 row;
    int width;
    const RowDraw& drawing;

    template <int N>
    DEVICE void run(bool w) const {
        const Lane<N> lane(row, width);
        const float share = __frcp_rn((float)lane.width);  // exactly 1 for a row of one number, so that nothing is left of it
        lane.fetch(g, w);
        const Given<Storage, HELD<N>> along(xhat + lane.start);
        __syncwarp();  // or the compiler would move the loads to where they are used
        const u32 kept = draw_chunks<N ? N : CHUNKS>(drawing, 0);
        await_copies();
        const float inverse = rstd[row];
        Row<HELD<N>> scaled(lane.room);  // g · gamma
        float mean = 0.0f, mean_along = 0.0f;
#pragma unroll(UNROLLED<N>)
        for (int i = 0; i < lane.chunks(); ++i) {
            if (HALVED<N> && i == N / 2) __syncwarp();
            const float4 found = lane.room[i * WARP] * load4(gamma + lane.at, i * CHUNK, lane.end(i), w);
            scaled[i] = found;
            mean += total(found);
            mean_along += total(found * along.at(i, lane.end(i), w));
        }
        mean = warp_sum(mean) * share;
        mean_along = warp_sum(mean_along) * share;
#pragma unroll(UNROLLED<N>)
        for (int i = 0; i < lane.chunks(); ++i) {
            if (HALVED<N> && i == N / 2) __syncwarp();
            const int at = i * CHUNK, end = lane.end(i);
            const float4 found = (scaled[i] + along.at(i, lane.end(i), w) * -mean_along - mean) * inverse;
            store4(gx + lane.start, at, end, w, found);
            if (dy) store4(dy + lane.start, at, end, w, found * factors(drawing, kept, i));
        }
    }
};

// gx = the gradient of the rows before normalisation; dy = dropout(gx), the gradient of y, unless dy is null.
KERNEL(add_norm_pullback, SHORT ? 4 : 3)
(const float* g, const float* __restrict__ gamma, const Storage* xhat, const float* rstd, float* gx, Storage* dy, i64 rows, int width,
 const int2* places, RECIPE) {
    const i64 row = row_of_warp();
    if (row >= rows) return;
    const RowDraw drawing(places, RECIPE_DRAW, row, width);
    const bool w = wide(g, width) & wide(xhat, width) & wide(gx, width) & wide(dy, width) & wide(gamma, width);
    by_width(AddNormPullback{g, gamma, xhat, rstd, gx, dy, row, width, drawing}, width, w);
}

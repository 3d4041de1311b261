// Kernels with a warp for each row, of up to 1024 numbers that it holds in registers: dropout, residual and layer normalisation, there and
// back.
//
// Rows are contiguous. What lies between two products of a block of BERT is of type `Storage`, everything else float32; a source defines
// `Storage` and `KERNEL(name, blocks)`, the name with the storage behind it and how many blocks are to fit a multiprocessor, and includes
// this file and strips.cuh. What a thread reads is all on its way before any of it is used, or random words are drawn. No result depends on
// the order in which blocks run, or on how many a GPU has room for.
#pragma once
#include "storage.cuh"

constexpr int LANES = 4;             // neighbouring numbers of a lane
constexpr int CHUNK = LANES * WARP;  // numbers that a warp has in hand at a time
constexpr int CHUNKS = 8;            // chunks of the widest row
constexpr int WARPS = 8;             // warps of a block

constexpr bool SHORT = sizeof(Storage) == 2;

// ---------------------------------------------------------------- dropout of a row
// Where a row lies in its sequence, as dropout counts: row r of a sequence owns blocks r * ceil(width / 16) and on.
struct RowDraw {
    Draw draw;
    u64 sequence, first_block;
    bool drops;

    // places: sequence number and place in the sequence of each row; null where there is no dropout.
    DEVICE RowDraw(const int2* places, const Draw& draw, i64 row, int width) : draw(draw), sequence(0), first_block(0), drops(places) {
        if (drops) {
            sequence = places[row].x;
            first_block = (u64)places[row].y * ((width + UNITS - 1) / UNITS);
        }
    }
};

// Which of this lane's numbers survive in the N chunks of a row from `chunk` on, four bits for each: all, where nothing is dropped.
template <int N>
DEVICE u32 draw_chunks(const RowDraw& row, int chunk) {
    if (!row.drops) return ~0u;
    const int lane = threadIdx.x % WARP;
    u32 kept = 0;
#pragma unroll
    for (int first = 0; first < N; first += 4) {
        // Each lane draws one of the 32 blocks of four chunks; groups of four lanes share a block of every chunk.
        const u32 drawn = survivors(row.draw, row.sequence, row.first_block + (chunk + first + lane % 4) * (CHUNK / UNITS) + lane / 4);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const u32 of_block = __shfl_sync(ALL, drawn, (lane & ~3) | i);
            kept |= (of_block >> (LANES * (lane % 4)) & 0xF) << (LANES * (first + i));
        }
    }
    return kept;
}

// The factors of this lane's four numbers in the i-th of these chunks.
DEVICE float4 factors(const RowDraw& row, u32 kept, int i) {
    const u32 bits = kept >> (LANES * i);
    const float scale = row.draw.scale;
    return make_float4(bits & 1 ? scale : 0.0f, bits & 2 ? scale : 0.0f, bits & 4 ? scale : 0.0f, bits & 8 ? scale : 0.0f);
}

DEVICE float4 operator+(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
DEVICE float4 operator-(float4 a, float b) { return make_float4(a.x - b, a.y - b, a.z - b, a.w - b); }
DEVICE float4 operator*(float4 a, float4 b) { return make_float4(a.x * b.x, a.y * b.y, a.z * b.z, a.w * b.w); }
DEVICE float4 operator*(float4 a, float b) { return make_float4(a.x * b, a.y * b, a.z * b, a.w * b); }
DEVICE float total(float4 a) { return (a.x + a.y) + (a.z + a.w); }

DEVICE i64 row_of_warp() { return (i64)blockIdx.x * WARPS + threadIdx.x / WARP; }

// ---------------------------------------------------------------- layer normalisation
// Where the test ends whether numbers from `at` on belong to a row: there is none in the first SURE chunks, which the row fills.
template <int SURE>
DEVICE int end(int chunk, int at, int width) { return chunk < SURE ? at + LANES : width; }

// One lane's part of a row of up to N chunks, as it lies in memory.
template <class T, int N, int SURE>
struct Row {
    Four<T> part[N];

    // The row that begins `start` numbers behind x. Zeros from `width` on, and where x is null.
    DEVICE void load(const T* x, i64 start, int width, bool is_wide) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int at = i * CHUNK + threadIdx.x % WARP * LANES;
            if (is_wide || i * CHUNK < width)
                part[i] = load4(x + start, at, x ? end<SURE>(i, at, width) : 0, is_wide);
            else
                part[i] = {};
        }
    }
};

// What `work` does with a row, in code for about as many chunks as there are. Rows that cannot be read four numbers at a time are rare:
// for them one code does, which tests every chunk, and so needs no more registers than the others.
template <class Work>
DEVICE void by_width(const Work& work, int width, bool is_wide) {
    if (!is_wide)
        work.template run<CHUNKS, 0>(false);
    else if (width <= CHUNK)
        work.template run<1, 0>(true);
    else if (width <= 2 * CHUNK)
        work.template run<2, 1>(true);
    else if (width <= 4 * CHUNK)
        work.template run<4, 2>(true);
    else if (width <= 6 * CHUNK)
        work.template run<6, 4>(true);
    else
        work.template run<CHUNKS, 6>(true);
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

    template <int N, int SURE>
    DEVICE void run(bool w) const {
        const int lane_at = threadIdx.x % WARP * LANES;
        const i64 start = row * width;
        const float share = __fdividef(1.0f, (float)width);
        Row<Storage, N, SURE> given;
        Row<float, N, SURE> v;
        given.load(y, start, width, w);
        v.load(residual, start, width, w);
        const u32 kept = draw_chunks<N>(drawing, 0);
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (w || i * CHUNK < width) {
                const int at = i * CHUNK + lane_at;
                const float4 b = load4(bias, at, bias ? end<SURE>(i, at, width) : 0, w);
                v.part[i] = v.part[i] + (given.part[i] + b) * factors(drawing, kept, i);
            }
        // First one of the numbers is subtracted, then the mean of what is left: rows with a large mean keep their digits.
        float less = __shfl_sync(ALL, v.part[0].x, 0);
#pragma unroll
        for (int pass = 0; pass < 2; ++pass) {
            float sum = 0.0f;
#pragma unroll
            for (int i = 0; i < N; ++i)
                if (w || i * CHUNK < width) {
                    v.part[i] = v.part[i] - less;
                    float* numbers = &v.part[i].x;
#pragma unroll
                    for (int j = 0; j < LANES; ++j) {
                        const int at = i * CHUNK + lane_at + (w ? 0 : j);
                        if (at >= end<SURE>(i, at, width)) numbers[j] = 0.0f;  // beyond the row's end
                    }
                    sum += total(pass ? v.part[i] * v.part[i] : v.part[i]);
                }
            less = warp_sum(sum) * share;
        }
        const float inverse = rsqrtf(less + eps);  // of the variance
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (w || i * CHUNK < width) {
                const int at = i * CHUNK + lane_at, past = end<SURE>(i, at, width);
                const float4 normal = v.part[i] * inverse;
                if (xhat) store4(xhat + start, at, past, w, normal);
                const float4 found = normal * load4(gamma, at, past, w) + load4(beta, at, past, w);
                store4(out + start, at, past, w, found);
                if (rounded) store4(rounded + start, at, past, w, found);
            }
        if (rstd && threadIdx.x % WARP == 0) rstd[row] = inverse;
    }
};

// out = x̂ · gamma + beta, where x̂ are the normalised rows of dropout(y + bias) + residual. Kept for the way back: x̂, which may be y, and
// rstd = 1/σ of each row. rounded: out once more, as `Storage`. Of float32, out may be y. Null pointers: bias and residual, where there is
// none; rounded, where nobody wants it; xhat and rstd, where nothing is kept; places, where nothing is dropped.
KERNEL(add_norm, SHORT ? 3 : 2)
(const Storage* y, const float* __restrict__ bias, const float* residual, const float* __restrict__ gamma, const float* __restrict__ beta,
 float* out, Storage* rounded, Storage* xhat, float* rstd, i64 rows, int width, float eps, const int2* places, const u64* clock, u64 seed,
 u64 site, u64 step, u32 threshold, float scale) {
    const i64 row = row_of_warp();
    if (row >= rows) return;
    const RowDraw drawing(places, draw_at(seed, site, step, clock, threshold, scale), row, width);
    const bool w = wide(y, width) && wide(residual, width) && wide(out, width) && wide(rounded, width) && wide(xhat, width) &&
                   wide(bias, width) && wide(gamma, width) && wide(beta, width);
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

    template <int N, int SURE>
    DEVICE void run(bool w) const {
        const int lane_at = threadIdx.x % WARP * LANES;
        const i64 start = row * width;
        const float share = __fdividef(1.0f, (float)width), inverse = rstd[row];
        Row<float, N, SURE> scaled;  // g · gamma
        Row<Storage, N, SURE> along;
        scaled.load(g, start, width, w);
        along.load(xhat, start, width, w);
        const u32 kept = draw_chunks<N>(drawing, 0);
        float mean = 0.0f, mean_along = 0.0f;
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (w || i * CHUNK < width) {
                const int at = i * CHUNK + lane_at;
                scaled.part[i] = scaled.part[i] * load4(gamma, at, end<SURE>(i, at, width), w);
                mean += total(scaled.part[i]);
                mean_along += total(scaled.part[i] * along.part[i]);
            }
        mean = warp_sum(mean) * share;
        mean_along = warp_sum(mean_along) * share;
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (w || i * CHUNK < width) {
                const int at = i * CHUNK + lane_at, past = end<SURE>(i, at, width);
                const float4 found = (scaled.part[i] + along.part[i] * -mean_along - mean) * inverse;
                store4(gx + start, at, past, w, found);
                if (dy) store4(dy + start, at, past, w, found * factors(drawing, kept, i));
            }
    }
};

// gx = the gradient of the rows before normalisation; dy = dropout(gx), the gradient of y, where dy is not null.
KERNEL(add_norm_pullback, SHORT ? 3 : 2)
(const float* g, const float* __restrict__ gamma, const Storage* xhat, const float* rstd, float* gx, Storage* dy, i64 rows, int width,
 const int2* places, const u64* clock, u64 seed, u64 site, u64 step, u32 threshold, float scale) {
    const i64 row = row_of_warp();
    if (row >= rows) return;
    const RowDraw drawing(places, draw_at(seed, site, step, clock, threshold, scale), row, width);
    const bool w = wide(g, width) && wide(xhat, width) && wide(gx, width) && wide(dy, width) && wide(gamma, width);
    by_width(AddNormPullback{g, gamma, xhat, rstd, gx, dy, row, width, drawing}, width, w);
}

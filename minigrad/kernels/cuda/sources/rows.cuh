// Kernels with a warp for each row, of up to 1024 numbers that it holds in registers: dropout, residual and layer normalisation, there and
// back.
//
// Rows are contiguous. What lies between two products of a block of BERT is of type `Storage`, everything else float32; a source defines
// `Storage` and `KERNEL(name)`, the name with the storage behind it, and includes this file and strips.cuh. What a thread reads is all on
// its way before any of it is used. No result depends on the order in which blocks run, or on how many a GPU has room for.
#pragma once
#include "storage.cuh"

constexpr int LANES = 4;             // neighbouring numbers of a lane
constexpr int CHUNK = LANES * WARP;  // numbers that a warp has in hand at a time
constexpr int CHUNKS = 8;            // chunks of the widest row
constexpr int WARPS = 8;             // warps of a block

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

// Which units survive of four chunks: each lane draws one of their 32 blocks. Groups of four lanes share a block of every chunk.
DEVICE u32 draw_chunks(const RowDraw& row, int first_chunk) {
    const int lane = threadIdx.x % WARP;
    return survivors(row.draw, row.sequence, row.first_block + (first_chunk + lane % 4) * (CHUNK / UNITS) + lane / 4);
}

// The factors of this lane's four numbers in chunk first_chunk + i, from what the warp has drawn.
DEVICE float4 factors(const RowDraw& row, u32 drawn, int i) {
    const int lane = threadIdx.x % WARP;
    const u32 bits = __shfl_sync(ALL, drawn, (lane & ~3) | i) >> (LANES * (lane % 4));
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
// One lane's part of a row, as it lies in memory.
template <class T>
struct Row {
    Four<T> part[CHUNKS];

    // Zeros from `width` on.
    DEVICE void load(const T* row, int width, bool is_wide) {
        if (is_wide)
            load_parts(row, width, true);
        else
            load_parts(row, width, false);
    }

    DEVICE void load_parts(const T* row, int width, bool is_wide) {
#pragma unroll
        for (int i = 0; i < CHUNKS; ++i) part[i] = load4(row, i * CHUNK + threadIdx.x % WARP * LANES, width, is_wide);
    }
};

DEVICE float sum(const Row<float>& row) {
    float s = 0.0f;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) s += total(row.part[i]);
    return warp_sum(s);
}

// out = x̂ · gamma + beta, where x̂ are the normalised rows of dropout(y + bias) + residual. Kept for the way back: x̂, which may be y, and
// rstd = 1/σ of each row. rounded: out once more, as `Storage`. Of float32, out may be y. Null pointers: bias and residual, where there is
// none; rounded, where nobody wants it; xhat and rstd, where nothing is kept; places, where nothing is dropped.
KERNEL(add_norm)
(const Storage* y, const float* bias, const float* residual, const float* gamma, const float* beta, float* out, Storage* rounded, Storage* xhat,
 float* rstd, i64 rows, int width, float eps, const int2* places, const u64* clock, u64 seed, u64 site, u64 step, u32 threshold, float scale) {
    const i64 row = row_of_warp();
    if (row >= rows) return;
    const RowDraw drawing(places, draw_at(seed, site, step, clock, threshold, scale), row, width);
    const int lane_at = threadIdx.x % WARP * LANES;
    const i64 start = row * width;
    const bool w = wide(y, width) && wide(residual, width) && wide(out, width) && wide(rounded, width) && wide(xhat, width);
    const bool wp = wide(bias, width) && wide(gamma, width) && wide(beta, width);
    Row<Storage> given;
    Row<float> beside, v;
    given.load(y + start, width, w);
    beside.load(residual + start, residual ? width : 0, w);
    u32 drawn = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
        float4 part = given.part[i];
        if (i * CHUNK < width) {
            if (bias) part = part + load4(bias, i * CHUNK + lane_at, width, wp);
            if (drawing.drops) {
                if (i % 4 == 0) drawn = draw_chunks(drawing, i);
                part = part * factors(drawing, drawn, i % 4);
            }
            if (residual) part = part + beside.part[i];
        }
        v.part[i] = part;
    }
    float variance = 0.0f;
#pragma unroll
    for (int pass = 0; pass < 2; ++pass) {  // the mean of the remainder: rows with a large mean keep their digits
        const float mean = sum(v) / width;
#pragma unroll
        for (int i = 0; i < CHUNKS; ++i) {
            const int at = i * CHUNK + lane_at;
            v.part[i] = v.part[i] - mean;
            float* numbers = &v.part[i].x;
#pragma unroll
            for (int j = 0; j < LANES; ++j)
                if (at + j >= width) numbers[j] = 0.0f;  // beyond the row's end
        }
    }
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) variance += total(v.part[i] * v.part[i]);
    const float inverse = 1.0f / sqrtf(warp_sum(variance) / width + eps);
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
        if (i * CHUNK < width) {
            const int at = i * CHUNK + lane_at;
            const float4 normal = v.part[i] * inverse;
            if (xhat) store4(xhat + start, at, width, w, normal);
            const float4 found = normal * load4(gamma, at, width, wp) + load4(beta, at, width, wp);
            store4(out + start, at, width, w, found);
            if (rounded) store4(rounded + start, at, width, w, found);
        }
    if (rstd && threadIdx.x % WARP == 0) rstd[row] = inverse;
}

// gx = the gradient of the rows before normalisation; dy = dropout(gx), the gradient of y, where dy is not null.
KERNEL(add_norm_pullback)
(const float* g, const float* gamma, const Storage* xhat, const float* rstd, float* gx, Storage* dy, i64 rows, int width,
 const int2* places, const u64* clock, u64 seed, u64 site, u64 step, u32 threshold, float scale) {
    const i64 row = row_of_warp();
    if (row >= rows) return;
    const RowDraw drawing(places, draw_at(seed, site, step, clock, threshold, scale), row, width);
    const int lane_at = threadIdx.x % WARP * LANES;
    const i64 start = row * width;
    const bool w = wide(g, width) && wide(xhat, width) && wide(gx, width) && wide(dy, width), wp = wide(gamma, width);
    Row<float> scaled;  // g · gamma
    Row<Storage> along;
    scaled.load(g + start, width, w);
    along.load(xhat + start, width, w);
    const float inverse = rstd[row];
    float mean = 0.0f, mean_along = 0.0f;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
        if (i * CHUNK < width) {
            scaled.part[i] = scaled.part[i] * load4(gamma, i * CHUNK + lane_at, width, wp);
            mean += total(scaled.part[i]);
            mean_along += total(scaled.part[i] * along.part[i]);
        }
    mean = warp_sum(mean) / width;
    mean_along = warp_sum(mean_along) / width;
    u32 drawn = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
        if (i * CHUNK < width) {
            const int at = i * CHUNK + lane_at;
            const float4 found = (scaled.part[i] + (along.part[i] * mean_along) * -1.0f - mean) * inverse;
            store4(gx + start, at, width, w, found);
            if (dy && drawing.drops) {
                if (i % 4 == 0) drawn = draw_chunks(drawing, i);
                store4(dy + start, at, width, w, found * factors(drawing, drawn, i % 4));
            } else if (dy) {
                store4(dy + start, at, width, w, found);
            }
        }
}

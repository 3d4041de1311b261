// What BERT's blocks do to rows of numbers between the matrix products: bias, GELU, dropout, residual, layer normalisation, and the sums over
// rows that their gradients need.
//
// Numbers are float32; rows are contiguous. Two shapes of blocks: a warp per row where a row's sums are needed (rows of up to 1024 numbers,
// held in registers), and strips of 128 columns where they are not. No sum depends on the order in which blocks run, or on how many a GPU has
// room for.
#include "warp.cuh"

constexpr int LANES = 4;             // neighbouring numbers of a lane
constexpr int CHUNK = LANES * WARP;  // numbers that a warp has in hand at a time
constexpr int CHUNKS = 8;            // chunks of the widest row
constexpr int WARPS = 8;             // warps of a block

constexpr int FEW = 32;    // rows of a block that only changes numbers
constexpr int MANY = 128;  // rows of a block that sums over them

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

// out = dropout(x); out may be x.
extern "C" __global__ void __launch_bounds__(256)
    drop(const float* x, float* out, i64 rows, int width, const int2* places, const u64* clock, u64 seed, u64 site, u64 step, u32 threshold,
         float scale) {
    const i64 row = row_of_warp();
    if (row >= rows) return;
    const RowDraw drawing(places, draw_at(seed, site, step, clock, threshold, scale), row, width);
    const bool w = wide(x, width) && wide(out, width);
    for (int chunk = 0; chunk * CHUNK < width; chunk += 4) {
        const u32 drawn = draw_chunks(drawing, chunk);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int at = (chunk + i) * CHUNK + threadIdx.x % WARP * LANES;
            const float4 kept = factors(drawing, drawn, i);
            store4(out + row * width, at, width, w, load4(x + row * width, at, width, w) * kept);
        }
    }
}

// ---------------------------------------------------------------- layer normalisation
// One lane's part of a row.
struct Row {
    float4 part[CHUNKS];

    DEVICE float sum() const {
        float s = 0.0f;
#pragma unroll
        for (int i = 0; i < CHUNKS; ++i) s += total(part[i]);
        return warp_sum(s);
    }
};

// out = x̂ · gamma + beta, where x̂ are the normalised rows of dropout(y + bias) + residual. Kept for the way back: x̂, which may be y, and
// rstd = 1/σ of each row. out may be y. Null pointers: bias and residual, where there is none; xhat and rstd, where nothing is kept; places,
// where nothing is dropped.
extern "C" __global__ void __launch_bounds__(256)
    add_norm(const float* y, const float* bias, const float* residual, const float* gamma, const float* beta, float* out, float* xhat,
             float* rstd, i64 rows, int width, float eps, const int2* places, const u64* clock, u64 seed, u64 site, u64 step, u32 threshold,
             float scale) {
    const i64 row = row_of_warp();
    if (row >= rows) return;
    const RowDraw drawing(places, draw_at(seed, site, step, clock, threshold, scale), row, width);
    const int lane_at = threadIdx.x % WARP * LANES;
    const i64 start = row * width;
    const bool w = wide(y, width) && wide(residual, width) && wide(out, width) && wide(xhat, width);
    const bool wp = wide(bias, width) && wide(gamma, width) && wide(beta, width);
    Row v;
    u32 drawn = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
        v.part[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (i * CHUNK < width) {
            const int at = i * CHUNK + lane_at;
            float4 part = load4(y + start, at, width, w);
            if (bias) part = part + load4(bias, at, width, wp);
            if (drawing.drops) {
                if (i % 4 == 0) drawn = draw_chunks(drawing, i);
                part = part * factors(drawing, drawn, i % 4);
            }
            if (residual) part = part + load4(residual + start, at, width, w);
            v.part[i] = part;
        }
    }
    float variance = 0.0f;
#pragma unroll
    for (int pass = 0; pass < 2; ++pass) {  // the mean of the remainder: rows with a large mean keep their digits
        const float mean = v.sum() / width;
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
            store4(out + start, at, width, w, normal * load4(gamma, at, width, wp) + load4(beta, at, width, wp));
        }
    if (rstd && threadIdx.x % WARP == 0) rstd[row] = inverse;
}

// gx = the gradient of the rows before normalisation; dy = dropout(gx), the gradient of y, where dy is not null.
extern "C" __global__ void __launch_bounds__(256)
    add_norm_pullback(const float* g, const float* gamma, const float* xhat, const float* rstd, float* gx, float* dy, i64 rows, int width,
                      const int2* places, const u64* clock, u64 seed, u64 site, u64 step, u32 threshold, float scale) {
    const i64 row = row_of_warp();
    if (row >= rows) return;
    const RowDraw drawing(places, draw_at(seed, site, step, clock, threshold, scale), row, width);
    const int lane_at = threadIdx.x % WARP * LANES;
    const i64 start = row * width;
    const bool w = wide(g, width) && wide(xhat, width) && wide(gx, width) && wide(dy, width), wp = wide(gamma, width);
    Row scaled, along;  // g · gamma and x̂
    float mean = 0.0f, mean_along = 0.0f;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i) {
        scaled.part[i] = along.part[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (i * CHUNK < width) {
            const int at = i * CHUNK + lane_at;
            scaled.part[i] = load4(g + start, at, width, w) * load4(gamma, at, width, wp);
            along.part[i] = load4(xhat + start, at, width, w);
            mean += total(scaled.part[i]);
            mean_along += total(scaled.part[i] * along.part[i]);
        }
    }
    mean = warp_sum(mean) / width;
    mean_along = warp_sum(mean_along) / width;
    const float inverse = rstd[row];
    u32 drawn = 0;
#pragma unroll
    for (int i = 0; i < CHUNKS; ++i)
        if (i * CHUNK < width) {
            const int at = i * CHUNK + lane_at;
            const float4 found = (scaled.part[i] + (along.part[i] * mean_along) * -1.0f - mean) * inverse;
            store4(gx + start, at, width, w, found);
            if (dy) {
                if (i % 4 == 0) drawn = draw_chunks(drawing, i);
                store4(dy + start, at, width, w, found * factors(drawing, drawn, i % 4));
            }
        }
}

// ---------------------------------------------------------------- strips of columns
// The strip of a thread: four columns, and every eighth row of the block's.
struct Strip {
    int at;
    i64 first, end;

    DEVICE Strip(i64 rows, int rows_of_block) {
        at = blockIdx.y * CHUNK + threadIdx.x * LANES;
        first = (i64)blockIdx.x * rows_of_block + threadIdx.y;
        const i64 past = ((i64)blockIdx.x + 1) * rows_of_block;
        end = past < rows ? past : rows;
    }
};

// The sum over the eight threads of a block that have the same columns, in those of the first row of threads.
DEVICE float4 over_rows(float4 mine) {
    __shared__ float4 all[WARPS][WARP];
    __syncthreads();  // what was summed before has been read
    all[threadIdx.y][threadIdx.x] = mine;
    __syncthreads();
    float4 sum = all[0][threadIdx.x];
#pragma unroll
    for (int i = 1; i < WARPS; ++i) sum = sum + all[i][threadIdx.x];
    return sum;
}

// y += bias
extern "C" __global__ void __launch_bounds__(256) add_bias(float* y, const float* bias, i64 rows, int width) {
    const Strip strip(rows, FEW);
    const bool w = wide(y, width);
    const float4 b = load4(bias, strip.at, width, wide(bias, width));
#pragma unroll 4
    for (i64 row = strip.first; row < strip.end; row += WARPS)
        store4(y + row * width, strip.at, width, w, load4(y + row * width, strip.at, width, w) + b);
}

// out = gelu(h + bias); out may be h.
extern "C" __global__ void __launch_bounds__(256) bias_gelu(const float* h, const float* bias, float* out, i64 rows, int width) {
    const Strip strip(rows, FEW);
    const bool w = wide(h, width) && wide(out, width);
    const float4 b = load4(bias, strip.at, width, wide(bias, width));
    for (i64 row = strip.first; row < strip.end; row += WARPS) {
        const float4 x = load4(h + row * width, strip.at, width, w) + b;
        store4(out + row * width, strip.at, width, w, make_float4(gelu(x.x), gelu(x.y), gelu(x.z), gelu(x.w)));
    }
}

// dh = g · gelu'(h + bias); dh may be h. partial: the sums of dh over the rows of each block. Shapes: partial (blocks, width).
extern "C" __global__ void __launch_bounds__(256)
    bias_gelu_pullback(const float* g, const float* h, const float* bias, float* dh, float* partial, i64 rows, int width) {
    const Strip strip(rows, MANY);
    const bool w = wide(g, width) && wide(h, width) && wide(dh, width);
    const float4 b = load4(bias, strip.at, width, wide(bias, width));
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (i64 row = strip.first; row < strip.end; row += WARPS) {
        const float4 x = load4(h + row * width, strip.at, width, w) + b;
        const float4 slope = make_float4(gelu_slope(x.x), gelu_slope(x.y), gelu_slope(x.z), gelu_slope(x.w));
        const float4 found = load4(g + row * width, strip.at, width, w) * slope;
        store4(dh + row * width, strip.at, width, w, found);
        sum = sum + found;
    }
    sum = over_rows(sum);
    if (threadIdx.y == 0) store4(partial + (i64)blockIdx.x * width, strip.at, width, wide(partial, width), sum);
}

// partial = the sums of x over the rows of each block. Shapes: partial (blocks, width).
extern "C" __global__ void __launch_bounds__(256) column_sums(const float* x, float* partial, i64 rows, int width) {
    const Strip strip(rows, MANY);
    const bool w = wide(x, width);
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 4
    for (i64 row = strip.first; row < strip.end; row += WARPS) sum = sum + load4(x + row * width, strip.at, width, w);
    sum = over_rows(sum);
    if (threadIdx.y == 0) store4(partial + (i64)blockIdx.x * width, strip.at, width, wide(partial, width), sum);
}

// partial = the sums over the rows of each block of g · x̂, of g, and of dy unless that is null. Shapes: partial (blocks, 3 or 2, width).
extern "C" __global__ void __launch_bounds__(256)
    norm_sums(const float* g, const float* xhat, const float* dy, float* partial, i64 rows, int width) {
    const Strip strip(rows, MANY);
    const bool w = wide(g, width) && wide(xhat, width) && wide(dy, width), wp = wide(partial, width);
    float4 dgamma = make_float4(0.0f, 0.0f, 0.0f, 0.0f), dbeta = dgamma, dbias = dgamma;
#pragma unroll 4
    for (i64 row = strip.first; row < strip.end; row += WARPS) {
        const float4 part = load4(g + row * width, strip.at, width, w);
        dgamma = dgamma + part * load4(xhat + row * width, strip.at, width, w);
        dbeta = dbeta + part;
        if (dy) dbias = dbias + load4(dy + row * width, strip.at, width, w);
    }
    float* sums = partial + (i64)blockIdx.x * (dy ? 3 : 2) * width;
    dgamma = over_rows(dgamma);
    dbeta = over_rows(dbeta);
    dbias = over_rows(dbias);
    if (threadIdx.y == 0) {
        store4(sums, strip.at, width, wp, dgamma);
        store4(sums + width, strip.at, width, wp, dbeta);
        if (dy) store4(sums + 2 * width, strip.at, width, wp, dbias);
    }
}

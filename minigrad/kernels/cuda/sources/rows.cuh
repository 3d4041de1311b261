// What BERT's blocks do to rows of numbers between the matrix products: bias, GELU, dropout, residual, layer normalisation, and the sums over
// rows that their gradients need.
//
// Rows are contiguous. What lies between two products of a block is of type `Storage`, everything else float32; a source defines `Storage`
// and `KERNEL(name)`, the name with the storage behind it, and includes this file. Two shapes of blocks: a warp per row where a row's sums
// are needed (rows of up to 1024 numbers, held in registers), and strips of 128 columns where they are not. What a thread reads is on its
// way all together before any of it is used. No sum depends on the order in which blocks run, or on how many a GPU has room for.
#include "storage.cuh"

constexpr int LANES = 4;             // neighbouring numbers of a lane
constexpr int CHUNK = LANES * WARP;  // numbers that a warp has in hand at a time
constexpr int CHUNKS = 8;            // chunks of the widest row
constexpr int WARPS = 8;             // warps of a block
constexpr int AHEAD = 4;             // rows of a strip that a thread reads at once
constexpr int FAR_AHEAD = 16;        // the same where rows are only added
constexpr int ROWS = WARPS * AHEAD;  // rows of a block of strips

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
// rstd = 1/σ of each row. out may be y. Null pointers: bias and residual, where there is none; xhat and rstd, where nothing is kept; places,
// where nothing is dropped.
KERNEL(add_norm)
(const Storage* y, const float* bias, const float* residual, const float* gamma, const float* beta, float* out, Storage* xhat, float* rstd,
 i64 rows, int width, float eps, const int2* places, const u64* clock, u64 seed, u64 site, u64 step, u32 threshold, float scale) {
    const i64 row = row_of_warp();
    if (row >= rows) return;
    const RowDraw drawing(places, draw_at(seed, site, step, clock, threshold, scale), row, width);
    const int lane_at = threadIdx.x % WARP * LANES;
    const i64 start = row * width;
    const bool w = wide(y, width) && wide(residual, width) && wide(out, width) && wide(xhat, width);
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
            store4(out + start, at, width, w, normal * load4(gamma, at, width, wp) + load4(beta, at, width, wp));
        }
    if (rstd && threadIdx.x % WARP == 0) rstd[row] = inverse;
}

// gx = the gradient of the rows before normalisation; dy = dropout(gx), the gradient of y, where dy is not null.
KERNEL(add_norm_pullback)
(const float* g, const float* gamma, const Storage* xhat, const float* rstd, float* gx, Storage* dy, i64 rows, int width, const int2* places,
 const u64* clock, u64 seed, u64 site, u64 step, u32 threshold, float scale) {
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

// ---------------------------------------------------------------- strips of columns
// The strip of a thread: four columns, and every eighth row of the block's.
struct Strip {
    int at;
    i64 first, rows;

    DEVICE Strip(i64 rows) : at(blockIdx.y * CHUNK + threadIdx.x * LANES), first((i64)blockIdx.x * ROWS + threadIdx.y), rows(rows) {}

    DEVICE i64 row(int i) const { return first + i * WARPS; }
    DEVICE bool has(int i) const { return row(i) < rows; }

    // Zeros in rows that do not exist.
    template <int N, class T>
    DEVICE void load(Four<T> (&found)[N], const T* x, int width, bool is_wide) const {
        if (is_wide)
            load_rows<N>(found, x, width, true);
        else
            load_rows<N>(found, x, width, false);
    }

    template <int N, class T>
    DEVICE void load_rows(Four<T> (&found)[N], const T* x, int width, bool is_wide) const {
#pragma unroll
        for (int i = 0; i < N; ++i) found[i] = load4(x + row(i) * width, has(i) ? at : width, width, is_wide);
    }

    template <class T>
    DEVICE void store(int i, T* x, int width, bool is_wide, float4 numbers) const {
        if (has(i)) store4(x + row(i) * width, at, width, is_wide, numbers);
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

// Writes what the first row of threads has got of a block's sums.
DEVICE void store_sum(float* partial, const Strip& strip, int width, int stride, float4 sum) {
    const bool w = wide(partial, width) && wide(partial, stride);
    if (threadIdx.y == 0) store4(partial + (i64)blockIdx.x * stride, strip.at, width, w, sum);
}

// Φ(x) and e^(-x²/2) for rows that are rounded to two bytes, by a third of the instructions that float32's last digits take: Φ(-|x|) is
// e^(-x²/2) times a polynomial of 1 / (1 + 0.31 |x|), fitted to relative errors below 5e-6, a hundredth of what rounding to fp16 loses.
struct Bell {
    float gate, height;

    DEVICE Bell(float x) : height(power_of_two(-0.72134752044448170f * x * x)) {
        const float t = __fdividef(1.0f, 1.0f + 0.31f * fabsf(x));
        float tail = -0.07393603f;
        tail = tail * t + 0.18046913f;
        tail = tail * t + 0.01572597f;
        tail = tail * t + 0.13343801f;
        tail = tail * t + 0.1204398f;
        tail = tail * t + 0.12386077f;
        tail = tail * t * height;
        gate = x < 0.0f ? tail : 1.0f - tail;
    }
};

template <class T>
DEVICE float gelu_in(float x) {
    return x * Bell(x).gate;
}
template <>
DEVICE float gelu_in<float>(float x) {
    return gelu(x);
}

template <class T>
DEVICE float gelu_slope_in(float x) {
    const Bell bell(x);
    return bell.gate + x * 0.39894228040143268f * bell.height;
}
template <>
DEVICE float gelu_slope_in<float>(float x) {
    return gelu_slope(x);
}

template <class T>
DEVICE float4 gelu_in(float4 x) {
    return make_float4(gelu_in<T>(x.x), gelu_in<T>(x.y), gelu_in<T>(x.z), gelu_in<T>(x.w));
}
template <class T>
DEVICE float4 gelu_slope_in(float4 x) {
    return make_float4(gelu_slope_in<T>(x.x), gelu_slope_in<T>(x.y), gelu_slope_in<T>(x.z), gelu_slope_in<T>(x.w));
}

// y += bias
KERNEL(add_bias)(Storage* y, const float* bias, i64 rows, int width) {
    const Strip strip(rows);
    const bool w = wide(y, width);
    const float4 b = load4(bias, strip.at, width, wide(bias, width));
    Four<Storage> given[AHEAD];
    strip.load<AHEAD>(given, y, width, w);
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) strip.store(i, y, width, w, given[i] + b);
}

// out = gelu(h + bias); out may be h.
KERNEL(bias_gelu)(const Storage* h, const float* bias, Storage* out, i64 rows, int width) {
    const Strip strip(rows);
    const bool w = wide(h, width) && wide(out, width);
    const float4 b = load4(bias, strip.at, width, wide(bias, width));
    Four<Storage> given[AHEAD];
    strip.load<AHEAD>(given, h, width, w);
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) strip.store(i, out, width, w, gelu_in<Storage>(given[i] + b));
}

// dh = g · gelu'(h + bias); dh may be g or h. partial: the sums of dh over the rows of each block, `stride` numbers from block to block.
KERNEL(bias_gelu_pullback)
(const Storage* g, const Storage* h, const float* bias, Storage* dh, float* partial, i64 rows, int width, int stride) {
    const Strip strip(rows);
    const bool w = wide(g, width) && wide(h, width) && wide(dh, width);
    const float4 b = load4(bias, strip.at, width, wide(bias, width));
    Four<Storage> above[AHEAD], given[AHEAD];
    strip.load<AHEAD>(above, g, width, w);
    strip.load<AHEAD>(given, h, width, w);
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
        const float4 found = above[i] * gelu_slope_in<Storage>(given[i] + b);
        strip.store(i, dh, width, w, found);
        sum = sum + found;
    }
    store_sum(partial, strip, width, stride, over_rows(sum));
}

// partial = the sums of x over the rows of each block, `each` of them, `stride` numbers from block to block.
KERNEL(column_sums)(const Storage* x, float* partial, i64 rows, int width, int each, int stride) {
    const i64 past = ((i64)blockIdx.x + 1) * each;
    Strip strip(past < rows ? past : rows);
    const bool w = wide(x, width);
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (strip.first = (i64)blockIdx.x * each + threadIdx.y; strip.has(0); strip.first += WARPS * FAR_AHEAD) {
        Four<Storage> given[FAR_AHEAD];
        strip.load<FAR_AHEAD>(given, x, width, w);
#pragma unroll
        for (int i = 0; i < FAR_AHEAD; ++i) sum = sum + given[i];
    }
    store_sum(partial, strip, width, stride, over_rows(sum));
}

// partial = the sums over the rows of each block of g · x̂, of g, and of dy unless that is null, side by side and `stride` numbers from block
// to block.
KERNEL(norm_sums)(const float* g, const Storage* xhat, const Storage* dy, float* partial, i64 rows, int width, int stride) {
    const Strip strip(rows);
    const bool w = wide(g, width) && wide(xhat, width) && wide(dy, width);
    float4 above[AHEAD];
    Four<Storage> along[AHEAD], below[AHEAD];
    strip.load<AHEAD>(above, g, width, w);
    strip.load<AHEAD>(along, xhat, width, w);
    strip.load<AHEAD>(below, dy, dy ? width : 0, w);
    float4 dgamma = make_float4(0.0f, 0.0f, 0.0f, 0.0f), dbeta = dgamma, dbias = dgamma;
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
        dgamma = dgamma + above[i] * along[i];
        dbeta = dbeta + above[i];
        dbias = dbias + below[i];
    }
    store_sum(partial, strip, width, stride, over_rows(dgamma));
    store_sum(partial + width, strip, width, stride, over_rows(dbeta));
    if (dy) store_sum(partial + 2 * width, strip, width, stride, over_rows(dbias));
}

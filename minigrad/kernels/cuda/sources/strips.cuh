// Kernels for strips of 128 columns: bias and GELU, and the sums over rows that gradients need. See rows.cuh.
#pragma once
#include "rows.cuh"

constexpr int AHEAD = 4;             // rows that a thread reads at once
constexpr int FAR_AHEAD = 16;        // the same where rows are only added
constexpr int ROWS = WARPS * AHEAD;  // rows of a block

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

// ---------------------------------------------------------------- bias and GELU
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

// ---------------------------------------------------------------- sums over rows
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

// partial = the sums over the rows of each block of dy unless that is null, of g · x̂ and of g, side by side; from block to block it is
// `stride` numbers.
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
    if (dy) {
        store_sum(partial, strip, width, stride, over_rows(dbias));
        partial += width;
    }
    store_sum(partial, strip, width, stride, over_rows(dgamma));
    store_sum(partial + width, strip, width, stride, over_rows(dbeta));
}

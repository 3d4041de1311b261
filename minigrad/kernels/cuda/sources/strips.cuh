// Kernels for strips of 128 columns: bias and GELU, and the sums over rows that gradients need. See layer_norm.cuh.
#pragma once
#include "layer_norm.cuh"

constexpr int AHEAD = 4;             // rows that a thread reads at once
constexpr int ROWS = WARPS * AHEAD;  // rows per block

// A thread's strip: four columns, and every eighth of the block's rows.
struct Strip {
    int at, width, rows;  // rows: how many remain from the thread's first one to the end of the block's
    i64 start, step;      // offset of that row, and distance to the thread's next one

    DEVICE Strip(i64 all, int width) : at(blockIdx.y * CHUNK + threadIdx.x * LANES), width(width), step((i64)WARPS * width) {
        const i64 first = (i64)blockIdx.x * ROWS + threadIdx.y;
        rows = all - first < ROWS ? (int)(all - first) : ROWS;
        start = first * width;
    }

    DEVICE bool has(int i) const { return i * WARPS < rows; }

    // Loads zeros for missing rows, and if x is null. There is one branch for all rows, so that their loads are in flight together.
    template <class T>
    DEVICE void load(Four<T> (&found)[AHEAD], const T* x, bool is_wide) const {
        if (is_wide)
            load_rows(found, x, true);
        else
            load_rows(found, x, false);
    }

    template <class T>
    DEVICE void load_rows(Four<T> (&found)[AHEAD], const T* x, bool is_wide) const {
#pragma unroll
        for (int i = 0; i < AHEAD; ++i) found[i] = load4(x + start + i * step, at, x && has(i) ? width : 0, is_wide);
    }

    template <class T>
    DEVICE void store(int i, T* x, bool is_wide, float4 numbers) const {
        if (has(i)) store4(x + start + i * step, at, width, is_wide, numbers);
    }
};

// The sum over the eight threads of a block with the same columns, valid in the first row of threads.
DEVICE float4 over_rows(float4 mine) {
    __shared__ float4 all[WARPS][WARP];
    __syncthreads();  // the previous sum has been read
    all[threadIdx.y][threadIdx.x] = mine;
    __syncthreads();
    float4 sum = all[0][threadIdx.x];
#pragma unroll
    for (int i = 1; i < WARPS; ++i) sum = sum + all[i][threadIdx.x];
    return sum;
}

// Writes a block's sums, held by the first row of threads.
DEVICE void store_sum(float* partial, const Strip& strip, int stride, float4 sum) {
    const bool w = wide(partial, strip.width) && wide(partial, stride);
    if (threadIdx.y == 0) store4(partial + (i64)blockIdx.x * stride, strip.at, strip.width, w, sum);
}

// ---------------------------------------------------------------- bias and GELU
// Φ(x) and e^(-x²/2) for rows rounded to two bytes, in a third of the instructions that float32 accuracy takes: Φ(-|x|) is e^(-x²/2) times
// a polynomial of 1 / (1 + 0.31 |x|), fitted to relative errors below 5e-6, a hundredth of the rounding error of fp16.
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
KERNEL(add_bias, 6)(Storage* y, const float* bias, i64 rows, int width) {
    const Strip strip(rows, width);
    const bool w = wide(y, width);
    const float4 b = load4(bias, strip.at, width, wide(bias, width));
    Four<Storage> given[AHEAD];
    strip.load(given, y, w);
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) strip.store(i, y, w, given[i] + b);
}

// out = gelu(h + bias); out may be h.
KERNEL(bias_gelu, 5)(const Storage* h, const float* bias, Storage* out, i64 rows, int width) {
    const Strip strip(rows, width);
    const bool w = wide(h, width) && wide(out, width);
    const float4 b = load4(bias, strip.at, width, wide(bias, width));
    Four<Storage> given[AHEAD];
    strip.load(given, h, w);
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) strip.store(i, out, w, gelu_in<Storage>(given[i] + b));
}

// dh = g · gelu'(h + bias); dh may be g or h. partial: the sums of dh over the rows of each block, `stride` numbers from block to block.
KERNEL(bias_gelu_pullback, SHORT ? 5 : 3)
(const Storage* g, const Storage* h, const float* bias, Storage* dh, float* partial, i64 rows, int width, int stride) {
    const Strip strip(rows, width);
    const bool w = wide(g, width) && wide(h, width) && wide(dh, width);
    const float4 b = load4(bias, strip.at, width, wide(bias, width));
    Four<Storage> above[AHEAD], given[AHEAD];
    strip.load(above, g, w);
    strip.load(given, h, w);
    float4 sum = make_float4(0.0f);
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
        const float4 found = above[i] * gelu_slope_in<Storage>(given[i] + b);
        strip.store(i, dh, w, found);
        sum = sum + found;
    }
    store_sum(partial, strip, stride, over_rows(sum));
}

// ---------------------------------------------------------------- sums over rows
// partial = the sums of x over the rows of each block, `stride` numbers from block to block.
KERNEL(column_sums, 6)(const Storage* x, float* partial, i64 rows, int width, int stride) {
    const Strip strip(rows, width);
    Four<Storage> given[AHEAD];
    strip.load(given, x, wide(x, width));
    float4 sum = make_float4(0.0f);
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) sum = sum + given[i];
    store_sum(partial, strip, stride, over_rows(sum));
}

// partial = the sums over the rows of each block of dy (unless null), of g · x̂ and of g, side by side; `stride` as above.
KERNEL(norm_sums, 4)(const float* g, const Storage* xhat, const Storage* dy, float* partial, i64 rows, int width, int stride) {
    const Strip strip(rows, width);
    const bool w = wide(g, width) && wide(xhat, width) && wide(dy, width);
    float4 above[AHEAD];
    Four<Storage> along[AHEAD], below[AHEAD];
    strip.load(above, g, w);
    strip.load(along, xhat, w);
    strip.load(below, dy, w);
    float4 dgamma = make_float4(0.0f), dbeta = dgamma, dbias = dgamma;
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
        dgamma = dgamma + above[i] * along[i];
        dbeta = dbeta + above[i];
        dbias = dbias + below[i];
    }
    if (dy) {
        store_sum(partial, strip, stride, over_rows(dbias));
        partial += width;
    }
    store_sum(partial, strip, stride, over_rows(dgamma));
    store_sum(partial + width, strip, stride, over_rows(dbeta));
}

// The cross-entropy of each row of logits with the class that its label names, and its gradient. A block works on a row, however wide.
#include "warp.cuh"

constexpr int LANES = 4;

// losses: of each row. counts, if it is not null: 1 where the row's label counts, else 0. saved: the largest logit of each row and the sum of
// e^(logit - largest). smoothing: the share of the target that is spread over all classes. Shapes: saved (rows, 2).
extern "C" __global__ void __launch_bounds__(256)
    cross_entropy(const float* logits, const i64* labels, float* losses, float* counts, float* saved, i64 rows, int classes, i64 ignored,
                  float smoothing) {
    const i64 row = blockIdx.x;
    if (row >= rows) return;
    const float* mine = logits + row * classes;
    const i64 label = labels[row];
    const bool w = wide(logits, classes);
    if (label == ignored) {  // whatever the row holds, it does not count
        if (threadIdx.x == 0) {
            losses[row] = 0.0f;
            if (counts) counts[row] = 0.0f;
            saved[2 * row] = 0.0f;
            saved[2 * row + 1] = 1.0f;
        }
        return;
    }
    float largest = mine[0];
    for (int at = threadIdx.x * LANES; at < classes; at += blockDim.x * LANES) {
        const float4 x = load4(mine, at, classes, w);
        const float* numbers = &x.x;
#pragma unroll
        for (int j = 0; j < LANES; ++j)
            if (at + j < classes) largest = fmaxf(largest, numbers[j]);
    }
    largest = block_max(largest);
    float total = 0.0f, shifted = 0.0f;
    for (int at = threadIdx.x * LANES; at < classes; at += blockDim.x * LANES) {
        const float4 x = load4(mine, at, classes, w);
        const float* numbers = &x.x;
#pragma unroll
        for (int j = 0; j < LANES; ++j)
            if (at + j < classes) {
                total += expf(numbers[j] - largest);
                shifted += numbers[j] - largest;
            }
    }
    total = block_sum(total);
    shifted = block_sum(shifted);
    if (threadIdx.x == 0) {
        float wanted = 0.0f;  // a class at -inf costs nothing where nobody asks for it
        if (label < 0 || label >= classes) wanted = not_a_number();
        else if (smoothing < 1.0f) wanted = (1.0f - smoothing) * (mine[label] - largest);
        if (smoothing > 0.0f) wanted += smoothing / classes * shifted;
        losses[row] = logf(total) - wanted;
        if (counts) counts[row] = 1.0f;
        saved[2 * row] = largest;
        saved[2 * row + 1] = total;
    }
}

// total = [loss, how many rows count]; the loss is the sum of those of the rows, times `factor` or, for the mean, over how many count. One
// block adds up all rows, each thread in strides and then the threads in pairs: a second launch would take longer than their few numbers do.
extern "C" __global__ void __launch_bounds__(1024)
    total_loss(const float* losses, const float* counts, float* total, i64 rows, float factor, int mean) {
    float sum = 0.0f, count = 0.0f;
#pragma unroll 8
    for (i64 row = threadIdx.x; row < rows; row += blockDim.x) sum += losses[row], count += counts[row];
    sum = block_sum(sum);
    count = block_sum(count);
    if (threadIdx.x) return;
    total[0] = mean ? sum / count : sum * factor;  // without any row 0/0: NaN
    total[1] = count;
}

// dlogits = (softmax(logits) - target) · share, with 0 in rows that do not count. The share is g, of the row or where `each` is 0 of all,
// times `factor`, or where `count` is given, over what stands there.
extern "C" __global__ void __launch_bounds__(256)
    cross_entropy_pullback(const float* g, const float* logits, const i64* labels, const float* saved, const float* count, float* dlogits,
                           i64 rows, int classes, int each, i64 ignored, float smoothing, float factor) {
    const i64 row = blockIdx.x;
    if (row >= rows) return;
    const float* mine = logits + row * classes;
    const i64 label = labels[row];
    const bool w = wide(logits, classes) && wide(dlogits, classes), counts = label != ignored;
    if (count) factor = *count != 0.0f ? 1.0f / *count : 0.0f;
    const float share = g[each ? row : 0] * factor, largest = saved[2 * row], inverse = 1.0f / saved[2 * row + 1];
    const float spread = smoothing / classes;
    for (int at = threadIdx.x * LANES; at < classes; at += blockDim.x * LANES) {
        float4 x = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (counts) {
            x = load4(mine, at, classes, w);
            float* numbers = &x.x;
#pragma unroll
            for (int j = 0; j < LANES; ++j) {
                const float target = (at + j == label ? 1.0f - smoothing : 0.0f) + spread;
                numbers[j] = (expf(numbers[j] - largest) * inverse - target) * share;
            }
        }
        store4(dlogits + row * classes, at, classes, w, x);
    }
}

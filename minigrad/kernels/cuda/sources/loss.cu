// The cross-entropy of each row of logits with the class named by its label, and its gradient. One block per row, however wide.
#include "storage.cuh"

// The weights of four classes from class `at` on; all 1 for null.
DEVICE float4 weights_of(const float* weights, int at, int classes, bool is_wide) {
    return weights ? load4(weights, at, classes, is_wide) : make_float4(1.0f);
}

// losses: of each row, 0 for an ignored label. counts, unless null: each row's contribution to the divisor of a mean, the weight of its
// class. weights: of the classes, null for all 1. saved: each row's largest logit, and the sum of its target over the sum of e^(logit -
// largest). smoothing: the share of the target that is spread over all classes. Shapes: weights (classes,), saved (rows, 2).
extern "C" __global__ void __launch_bounds__(256)
    cross_entropy(const float* logits, const i64* labels, const float* weights, float* losses, float* counts, float* saved, i64 rows,
                  int classes, i64 ignored, float smoothing) {
    const i64 row = blockIdx.x;
    if (row >= rows) return;
    const float* mine = logits + row * classes;
    const i64 label = labels[row];
    const bool w = wide(logits, classes) && wide(weights, classes);
    if (label == ignored) {  // it does not count, whatever the row contains
        if (threadIdx.x == 0) {
            losses[row] = 0.0f;
            if (counts) counts[row] = 0.0f;
            saved[2 * row] = saved[2 * row + 1] = 0.0f;
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
    float total = 0.0f, shifted = 0.0f, heavy = 0.0f;
    for (int at = threadIdx.x * LANES; at < classes; at += blockDim.x * LANES) {
        const float4 x = load4(mine, at, classes, w), y = weights_of(weights, at, classes, w);
        const float *numbers = &x.x, *own = &y.x;
#pragma unroll
        for (int j = 0; j < LANES; ++j)
            if (at + j < classes) {
                total += expf(numbers[j] - largest);
                if (own[j] != 0.0f) shifted += own[j] * (numbers[j] - largest);  // a class at -inf costs nothing without a weight
                heavy += own[j];
            }
    }
    total = block_sum(total);
    shifted = block_sum(shifted);
    if (weights) heavy = block_sum(heavy);
    if (threadIdx.x == 0) {
        const bool known = label >= 0 && label < classes;
        const float own = !known ? not_a_number() : weights ? weights[label] : 1.0f, spread = smoothing / classes;
        const float mass = weights ? (1.0f - smoothing) * own + spread * heavy : 1.0f;  // the sum of the target
        float wanted = known ? 0.0f : own;  // a class at -inf costs nothing if the target has none of it
        if (known && smoothing < 1.0f && own != 0.0f) wanted = (1.0f - smoothing) * own * (mine[label] - largest);
        if (smoothing > 0.0f) wanted += spread * shifted;
        losses[row] = mass * logf(total) - wanted;
        if (counts) counts[row] = own;
        saved[2 * row] = largest;
        saved[2 * row + 1] = mass / total;
    }
}

// total = [loss, the factor of the rows' gradients]. The loss is the sum over rows divided by the sum of counts for a mean, otherwise by
// what `denominator` points to or, if that is null, by `divisor`. Divided by 0 it is NaN and its gradient 0. One block adds all rows, each
// thread in strides and then the threads in pairs: a second launch would take longer than these few numbers.
extern "C" __global__ void __launch_bounds__(1024)
    total_loss(const float* losses, const float* counts, const float* denominator, float* total, i64 rows, float divisor, int mean) {
    float sum = 0.0f, count = 0.0f;
#pragma unroll 8
    for (i64 row = threadIdx.x; row < rows; row += blockDim.x) sum += losses[row], count += counts[row];
    sum = block_sum(sum);
    count = block_sum(count);
    if (threadIdx.x) return;
    if (mean) divisor = count;
    else if (denominator) divisor = *denominator;
    total[0] = divisor != 0.0f ? sum * (1.0f / divisor) : not_a_number();
    total[1] = divisor != 0.0f ? 1.0f / divisor : 0.0f;
}

// dlogits = (softmax(logits) · sum of the target - target) · share, 0 in rows that do not count. The share is g (of the row, or of all if
// `each` is 0) times what `factor` points to, 1 if that is null.
extern "C" __global__ void __launch_bounds__(256)
    cross_entropy_pullback(const float* g, const float* logits, const i64* labels, const float* weights, const float* saved,
                           const float* factor, float* dlogits, ROUNDED, i64 rows, int classes, int each, i64 ignored, float smoothing) {
    const i64 row = blockIdx.x;
    const Rounded rounded = ROUNDED_ROWS;
    if (row >= rows) return;
    const float* mine = logits + row * classes;
    const i64 label = labels[row];
    const bool w = wide(logits, classes) && wide(dlogits, classes) && wide(weights, classes) && rounded.is_wide(classes);
    const bool counts = label != ignored;
    const float share = g[each ? row : 0] * (factor ? *factor : 1.0f), largest = saved[2 * row], inverse = saved[2 * row + 1];
    const float spread = smoothing / classes;
    for (int at = threadIdx.x * LANES; at < classes; at += blockDim.x * LANES) {
        float4 x = make_float4(0.0f);
        if (counts) {
            x = load4(mine, at, classes, w);
            const float4 y = weights_of(weights, at, classes, w);
            float* numbers = &x.x;
            const float* own = &y.x;
#pragma unroll
            for (int j = 0; j < LANES; ++j) {
                const float target = ((at + j == label ? 1.0f - smoothing : 0.0f) + spread) * own[j];
                numbers[j] = (expf(numbers[j] - largest) * inverse - target) * share;
            }
        }
        store4(dlogits + row * classes, at, classes, w, x);
        rounded.store(row * classes, at, classes, w, x);
    }
}

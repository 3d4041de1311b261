// Embedding tables: gathering rows, and summing their gradients by the row of the table, always in the same order.
//
// Ids are sorted as keys: the id in the upper half, its position in the lower. No two keys are equal, so every sorting method gives the
// same order, in which equal ids keep their original order. Several tables read together have equally many ids each, which are sorted
// together. Nothing here waits for the GPU or asks how many ids are distinct: a captured graph could not.
#include "rows.cuh"

constexpr int RUN = 2048;   // keys sorted among themselves, by RUN / WARP blocks
constexpr int MERGED = 8;   // sorted runs merged into one
constexpr int BUNDLE = 16;  // neighbours of one id that are summed before their sums are
constexpr int LONG = 64;    // up to this many keys of one id are summed by one warp, more by a whole block
constexpr int AT_ONCE = 8;  // rows that a thread loads at a time
constexpr int TABLES = 3;   // tables summed at once, at most

static_assert(RUN % WARP == 0, "the keys of a warp are of one run");

DEVICE i64 key_of(i64 id, i64 place) { return (0 <= id && id <= 0x7FFFFFFF ? id : -1) * (1ll << 32) + place; }
DEVICE i64 id_of(i64 key) { return key >> 32; }
DEVICE i64 place_of(i64 key) { return (u32)key; }

// out = table[ids], NaN for an id outside the table. trained, unless null: the ids, -1 in place of `untrained`. Shapes: table (height,
// width).
extern "C" __global__ void __launch_bounds__(256)
    gather_rows(const float* table, const i64* ids, float* out, ROUNDED, i64* trained, i64 rows, i64 height, int width,
                i64 untrained) {
    const i64 row = row_of_warp();
    if (row >= rows) return;
    const Rounded rounded = ROUNDED_ROWS;
    const bool w = wide(table, width) && wide(out, width) && rounded.is_wide(width);
    const i64 id = ids[row];
    const bool inside = 0 <= id && id < height;
    if (trained && threadIdx.x % WARP == 0) trained[row] = id == untrained ? -1 : id;
#pragma unroll 4
    for (int at = threadIdx.x % WARP * LANES; at < width; at += CHUNK) {
        const float4 x = inside ? load4(table + id * width, at, width, w) : make_float4(not_a_number());
        store4(out + row * width, at, width, w, x);
        rounded.store(row * width, at, width, w, x);
    }
}

// out[ids] += x; the ids are distinct. Shapes: x (rows, width), out (height, width).
extern "C" __global__ void __launch_bounds__(256) scatter_rows(const float* x, const i64* ids, float* out, i64 rows, int width) {
    const i64 row = row_of_warp();
    if (row >= rows) return;
    const bool w = wide(x, width) && wide(out, width);
    float* mine = out + ids[row] * width;
#pragma unroll 4
    for (int at = threadIdx.x % WARP * LANES; at < width; at += CHUNK)
        store4(mine, at, width, w, load4(mine, at, width, w) + load4(x + row * width, at, width, w));
}

// ---------------------------------------------------------------- order
// The keys of ids, each run of RUN sorted: a key's place is the number of smaller keys in its run. All warps of a block count for the same
// WARP keys, each in an eighth of the run. An id outside every table becomes -1. Shapes: ids, keys (tables, n).
extern "C" __global__ void __launch_bounds__(256) sort_ids(const i64* ids, i64* keys, i64 n) {
    __shared__ i64 run[RUN];
    __shared__ int below[WARPS][WARP];
    const i64 mine = (i64)blockIdx.x * WARP + threadIdx.x, first = mine - mine % RUN;
    const int count = n - first < RUN ? n - first : RUN;
    ids += blockIdx.y * n, keys += blockIdx.y * n;
    for (int i = threadIdx.y * WARP + threadIdx.x; i < count; i += WARPS * WARP) run[i] = key_of(ids[first + i], first + i);
    __syncthreads();
    const i64 key = mine < n ? run[mine - first] : 0;
    int place = 0;
#pragma unroll 8
    for (int i = threadIdx.y; i < count; i += WARPS) place += run[i] < key;
    below[threadIdx.y][threadIdx.x] = place;
    __syncthreads();
    if (threadIdx.y || mine >= n) return;
    for (int i = 1; i < WARPS; ++i) place += below[i][threadIdx.x];
    keys[first + place] = key;
}

// Merges each MERGED neighbouring runs of `run` ascending keys: a key's place is the number of smaller keys in all of them. The binary
// searches in these runs are interleaved, because each waits for memory at every step. run: a power of two. Shapes: keys, merged (tables,
// n).
extern "C" __global__ void __launch_bounds__(256) merge_runs(const i64* keys, i64* merged, i64 run, i64 n) {
    const i64 mine = (i64)blockIdx.x * 256 + threadIdx.x;
    if (mine >= n) return;
    keys += blockIdx.y * n, merged += blockIdx.y * n;
    const i64 key = keys[mine], first = mine - mine % (MERGED * run);
    i64 below[MERGED] = {};
    for (i64 step = run; step; step /= 2)
#pragma unroll
        for (int i = 0; i < MERGED; ++i) {
            const i64 start = first + i * run, more = below[i] + step;
            if (more <= run && start + more <= n && keys[start + more - 1] < key) below[i] = more;
        }
    i64 place = first;
#pragma unroll
    for (int i = 0; i < MERGED; ++i) place += below[i];
    merged[place] = key;
}

// How many of n ascending keys are below `key`, searched by the lanes of a warp together: each step leaves one part of WARP.
DEVICE i64 count_below(const i64* keys, i64 n, i64 key) {
    i64 first = 0, left = n;  // the answer lies in first .. first + left
    while (left > 0) {
        const i64 step = (left + WARP - 1) / WARP, last = (threadIdx.x + 1) * step;
        const i64 passed = __popc(__ballot_sync(ALL, last <= left && keys[first + last - 1] < key)) * step;
        first += passed;
        left = left - passed < step ? left - passed : step - 1;
    }
    return first;
}

// The keys of one id: from `first` up to but excluding `end`.
struct Run {
    i64 first, end;

    DEVICE i64 count() const { return end - first; }

    // Bundles wholly inside it.
    DEVICE i64 first_bundle() const { return (first + BUNDLE - 1) / BUNDLE; }
    DEVICE i64 end_bundle() const { return end / BUNDLE; }
};

DEVICE Run run_of(const i64* keys, i64 n, i64 id) {
    const i64 first = count_below(keys, n, key_of(id, 0)), mine = first + threadIdx.x;
    const int count = __popc(__ballot_sync(ALL, mine < n && id_of(keys[mine]) == id));
    return {first, count < WARP ? first + count : count_below(keys, n, key_of(id, 0xFFFFFFFF))};
}

// ---------------------------------------------------------------- sums
// Adds four columns of rows of `values`: at the positions in keys first .. end - 1, every `step`-th; without keys, rows of these numbers.
DEVICE void add_rows(float4& sum, const float* values, const i64* keys, i64 first, i64 end, int step, int at, int width, bool w) {
    for (i64 next = first; next < end; next += AT_ONCE * step) {
        float4 given[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
            const i64 mine = next + i * step;
            const i64 row = mine >= end ? 0 : keys ? place_of(keys[mine]) : mine;
            given[i] = load4(values + row * width, at, mine < end ? width : 0, w);
        }
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) sum = sum + given[i];
    }
}

// The sum of each bundle with a single id. A bundle is BUNDLE neighbouring keys; a warp handles one strip of its columns. Shapes: values
// (n, width), keys (tables, n), bundles (tables, n / BUNDLE, width).
extern "C" __global__ void __launch_bounds__(256)
    sum_bundles(const float* values, const i64* keys, float* bundles, i64 n, int width) {
    const i64 bundle = (i64)blockIdx.x * WARPS + threadIdx.y, count = n / BUNDLE;
    if (bundle >= count) return;
    keys += blockIdx.z * n, bundles += blockIdx.z * count * width;
    const i64 first = bundle * BUNDLE, end = first + BUNDLE;
    if (id_of(keys[first]) != id_of(keys[end - 1])) return;
    const int at = blockIdx.y * CHUNK + threadIdx.x * LANES;
    const bool w = wide(values, width) && wide(bundles, width);
    float4 sum = make_float4(0.0f);
    add_rows(sum, values, keys, first, end, 1, at, width, w);
    store4(bundles + bundle * width, at, width, w, sum);
}

// Share `mine` of `shares` of a run's sum: the keys before its bundles, the bundles' sums, and the keys after them.
DEVICE float4 share_of(const Run& run, const float* values, const i64* keys, const float* bundles, int mine, int shares, int at, int width,
                       bool w) {
    const i64 next = run.first_bundle(), last = run.end_bundle();
    const bool has_bundles = next < last;
    float4 sum = make_float4(0.0f);
    add_rows(sum, values, keys, run.first + mine, has_bundles ? next * BUNDLE : run.end, shares, at, width, w);
    if (has_bundles) {
        add_rows(sum, bundles, nullptr, next + mine, last, shares, at, width, w);
        add_rows(sum, values, keys, last * BUNDLE + mine, run.end, shares, at, width, w);
    }
    return sum;
}

// out = or += the sum of the values of each row's id; a row without values becomes 0 or stays. Ids outside their table are ignored. A warp
// handles one strip of a row's columns; the warps of a block share long runs. There are up to three tables; the heights of missing ones are
// 0. Their rows lie one table below another in out, and a block has rows of one table. Shapes: values (n, width), keys (tables, n), bundles
// (tables, n / BUNDLE, width), out (all heights, width).
extern "C" __global__ void __launch_bounds__(256, 4)
    sum_rows(const float* values, const i64* keys, const float* bundles, float* out, i64 n, i64 height1, i64 height2, i64 height3, int width,
             int accumulate) {
    __shared__ Run runs[WARPS];
    __shared__ float4 shares[WARPS][WARP];
    i64 top = (i64)blockIdx.x * WARPS, height = height1;
    for (int i = 1; i < TABLES && top >= height; ++i) {
        top -= (height + WARPS - 1) / WARPS * WARPS;
        keys += n, bundles += n / BUNDLE * width, out += height * width;
        height = i == 1 ? height2 : height3;
    }
    const i64 row = top + threadIdx.y;
    const int at = blockIdx.y * CHUNK + threadIdx.x * LANES;
    const bool w = wide(values, width) && wide(out, width) && wide(bundles, width);
    Run run = {0, 0};
    if (row < height) {
        run = run_of(keys, n, row);
        if (run.count() <= LONG && (run.count() || !accumulate)) {
            float4 sum = share_of(run, values, keys, bundles, 0, 1, at, width, w);
            if (accumulate) sum = sum + load4(out + row * width, at, width, w);
            store4(out + row * width, at, width, w, sum);
        }
    }
    if (threadIdx.x == 0) runs[threadIdx.y] = run;
    __syncthreads();
    for (int i = 0; i < WARPS; ++i) {
        run = runs[i];
        if (run.count() <= LONG) continue;
        shares[threadIdx.y][threadIdx.x] = share_of(run, values, keys, bundles, threadIdx.y, WARPS, at, width, w);
        __syncthreads();
        if (threadIdx.y == 0) {
            float4 sum = shares[0][threadIdx.x];
            for (int j = 1; j < WARPS; ++j) sum = sum + shares[j][threadIdx.x];
            if (accumulate) sum = sum + load4(out + (top + i) * width, at, width, w);
            store4(out + (top + i) * width, at, width, w, sum);
        }
        __syncthreads();  // before the next run's shares overwrite these
    }
}

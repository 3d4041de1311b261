// Rows of a table: gathered, and for the gradient summed by the row of the table that they came from, always in the same order.
//
// Ids are sorted as keys: the id in the upper half, its place in the lower. No two keys are equal, so that every way of sorting gives one
// order, in which equal ids come as they came. Nothing here waits for the GPU or asks how many ids differ: a captured graph could not.
#include "warp.cuh"

constexpr int LANES = 4;
constexpr int CHUNK = LANES * WARP;
constexpr int WARPS = 8;
constexpr int RUN = 1024;  // keys that a block sorts
constexpr int MERGED = 8;  // sorted runs that become one
constexpr int BUNDLE = 8;   // neighbours of one id that are summed before their sums are

static_assert(BUNDLE <= WARPS, "a warp for each row beside a run's whole bundles");

constexpr i64 LAST = 0x7FFFFFFFFFFFFFFFll;  // behind every key

DEVICE i64 key_of(i64 id, i64 place) { return (0 <= id && id <= 0x7FFFFFFF ? id : -1) * (1ll << 32) + place; }
DEVICE i64 id_of(i64 key) { return key >> 32; }
DEVICE i64 place_of(i64 key) { return (u32)key; }

DEVICE void add(float4& sum, float4 x) { sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w; }

// out = table[ids], with NaN for an id outside of the table. trained, if it is not null: the ids, but -1 in place of `untrained`. Shapes:
// table (height, width).
extern "C" __global__ void __launch_bounds__(256)
    gather_rows(const float* table, const i64* ids, float* out, i64* trained, i64 rows, i64 height, int width, i64 untrained) {
    const i64 row = (i64)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (row >= rows) return;
    const bool w = wide(table, width) && wide(out, width);
    const i64 id = ids[row];
    const bool inside = 0 <= id && id < height;
    const float nan = not_a_number();
    if (trained && threadIdx.x % WARP == 0) trained[row] = id == untrained ? -1 : id;
#pragma unroll 4
    for (int at = threadIdx.x % WARP * LANES; at < width; at += CHUNK) {
        const float4 x = inside ? load4(table + id * width, at, width, w) : make_float4(nan, nan, nan, nan);
        store4(out + row * width, at, width, w, x);
    }
}

// ---------------------------------------------------------------- order
// The keys of ids, each RUN of them in ascending order, by Batcher's bitonic sort (AFIPS 1968). An id that no table has becomes -1.
extern "C" __global__ void __launch_bounds__(RUN / 2) sort_ids(const i64* ids, i64* keys, i64 n) {
    __shared__ i64 run[RUN];
    const i64 first = (i64)blockIdx.x * RUN;
    const int count = n - first < RUN ? n - first : RUN;
    for (int i = threadIdx.x; i < RUN; i += RUN / 2) run[i] = i < count ? key_of(ids[first + i], first + i) : LAST;
    __syncthreads();
    for (int size = 2; size < 2 * count; size *= 2)
        for (int stride = size / 2; stride; stride /= 2) {
            if (stride < WARP) __syncwarp();  // pairs so near lie within the keys of one warp
            else __syncthreads();
            const int low = 2 * threadIdx.x - (threadIdx.x & (stride - 1)), high = low + stride;
            const i64 a = run[low], b = run[high];
            if ((a > b) == ((low & size) == 0)) run[low] = b, run[high] = a;
        }
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += RUN / 2) keys[first + i] = run[i];
}

// Each MERGED neighbouring runs of `run` ascending keys become one: a key's place is how many are below it in all of them. The searches in
// these runs go on side by side, because each waits for memory at each step. run: a power of two.
extern "C" __global__ void __launch_bounds__(256) merge_runs(const i64* keys, i64* merged, i64 run, i64 n) {
    const i64 mine = (i64)blockIdx.x * 256 + threadIdx.x;
    if (mine >= n) return;
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

// ---------------------------------------------------------------- sums
// Where the run of an id ends that is at `first` of n ascending keys: steps that double, then halve. One look if it has one key.
DEVICE i64 end_of_run(const i64* keys, i64 first, i64 n) {
    const i64 id = id_of(keys[first]);
    i64 inside = first, step = 1;
    while (inside + step < n && id_of(keys[inside + step]) == id) inside += step, step *= 2;
    for (i64 outside = inside + step < n ? inside + step : n; outside - inside > 1;) {
        const i64 middle = inside + (outside - inside) / 2;
        (id_of(keys[middle]) == id ? inside : outside) = middle;
    }
    return inside + 1;
}

// out[id] = or += the sum of the values of each id, if no bundle is wholly of it; and the sum of each bundle that is of one id. Bundles are
// each BUNDLE neighbouring keys. An id outside of the table has no row there, and no sum. Each key has a warp, for a strip of columns: the one
// at the start of a run or a bundle does the work. Shapes: out (height, width), bundles (n / BUNDLE, width).
extern "C" __global__ void __launch_bounds__(256)
    sum_rows(const float* values, const i64* keys, float* out, float* bundles, i64 n, i64 height, int width, int accumulate) {
    const i64 first = (i64)blockIdx.x * WARPS + threadIdx.y;
    if (first >= n) return;
    const i64 id = id_of(keys[first]), next = (first + BUNDLE - 1) / BUNDLE;
    if (id < 0 || id >= height) return;
    const bool begins = first == 0 || id_of(keys[first - 1]) != id;
    const bool holds_next = (next + 1) * BUNDLE <= n && id_of(keys[(next + 1) * BUNDLE - 1]) == id;
    const bool is_bundle = holds_next && first == next * BUNDLE;
    if (!is_bundle && (holds_next || !begins)) return;
    const i64 end = is_bundle ? first + BUNDLE : end_of_run(keys, first, n);
    const int at = blockIdx.y * CHUNK + threadIdx.x * LANES;
    const bool w = wide(values, width) && wide(out, width) && wide(bundles, width);
    float* target = is_bundle ? bundles + next * width : out + id * width;
    float4 sum = accumulate && !is_bundle ? load4(target, at, width, w) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 4
    for (i64 i = first; i < end; ++i) add(sum, load4(values + place_of(keys[i]) * width, at, width, w));
    store4(target, at, width, w, sum);
}

// The rest of `sum_rows`: runs that hold whole bundles. A block for each bundle, for a strip of columns: that of a run's first bundle adds up
// what lies before it, the sums of all bundles, and what lies behind them.
extern "C" __global__ void __launch_bounds__(256)
    sum_bundles(const float* values, const i64* keys, const float* bundles, float* out, i64 n, i64 height, int width, int accumulate) {
    __shared__ float4 all[WARPS][WARP];
    const i64 bundle = blockIdx.x, id = id_of(keys[bundle * BUNDLE]);
    if (id < 0 || id >= height || id_of(keys[(bundle + 1) * BUNDLE - 1]) != id) return;
    if (bundle > 0 && id_of(keys[(bundle - 1) * BUNDLE]) == id) return;
    i64 first = bundle * BUNDLE;
    while (first > 0 && id_of(keys[first - 1]) == id) --first;
    const i64 end = end_of_run(keys, bundle * BUNDLE, n), behind = end / BUNDLE;
    const int at = blockIdx.y * CHUNK + threadIdx.x * LANES;
    const bool w = wide(values, width) && wide(out, width) && wide(bundles, width);
    const i64 before = first + threadIdx.y, after = behind * BUNDLE + threadIdx.y;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (before < bundle * BUNDLE) add(sum, load4(values + place_of(keys[before]) * width, at, width, w));
#pragma unroll 8
    for (i64 i = bundle + threadIdx.y; i < behind; i += WARPS) add(sum, load4(bundles + i * width, at, width, w));
    if (after < end) add(sum, load4(values + place_of(keys[after]) * width, at, width, w));
    all[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y) return;
    for (int i = 1; i < WARPS; ++i) add(sum, all[i][threadIdx.x]);
    if (accumulate) add(sum, load4(out + id * width, at, width, w));
    store4(out + id * width, at, width, w, sum);
}

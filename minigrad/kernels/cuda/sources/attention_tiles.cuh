// Shared by the kernels of packed attention: the division of the work, tiles in shared memory, and the positions of dropped weights.
//
// A block of four warps handles one head of one piece of a sequence: 64 rows (queries, or keys in the dK/dV kernel), 16 per warp. It walks
// over the other side in tiles of 32 rows. Sequences of some forty tokens are the common case, hence these sizes: with a warp per 16 rows,
// pieces of 64 rows leave few rows idle; tiles of 32 waste little on the last one; and a head of size 128 stays below 48 KiB of shared
// memory, so that several blocks share a multiprocessor. With 32 columns for 16 rows, each lane draws one Philox block per tile in every
// kernel: none is drawn twice, and no lane is idle.
//
// A warp's scores and weights are distributed over its lanes as the tensor cores lay them out: 16 rows by 8 columns are a `float[4]` per
// lane, whose element i is row lane / 4 + 8 (i / 2), column 2 (lane % 4) + i % 2. The four lanes that share a row are a quad.
#pragma once
#include "ptx.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = WARP * WARPS;
constexpr int PIECE = 16 * WARPS;  // rows per block
constexpr int TILE = 32;           // rows of the other side in shared memory at a time
constexpr int EIGHTS = TILE / 8;   // groups of eight columns in a row of scores
constexpr int PAD = 4;             // padding words after each row of most tiles: rows that are read together begin in different banks

// One piece of work, prepared by the host: rows start … start + 63 of a sequence, whose place the first four numbers give.
struct alignas(16) Item {
    int key_first, keys, query_first, queries, number, start, spare[2];
};

// Unrolling of loops: more hides more of a load's latency, but the dK/dV kernel holds D sums in each lane, of at most 255 registers.
template <int D>
constexpr int UNROLLED = D > 32 ? 2 : 4;

// 1 / √D
template <int D>
constexpr float SCALE = D == 32 ? 0.17677669529663688110f : D == 64 ? 0.125f : 0.08838834764831844055f;

// Converts scores to exponents of two: 1 / √D / ln 2.
template <int D>
constexpr float POWER = SCALE<D> * 1.44269504088896340736f;

// Offsets in q, k, v, their gradients and the outputs: `parts` is 3 for Q | K | V side by side, 2 for K | V with a separate Q.
template <int D>
struct Layout {
    int parts, heads;

    __device__ int kv_width() const { return parts * heads * D; }
    __device__ int q_width() const { return parts == 3 ? kv_width() : width(); }
    __device__ int width() const { return heads * D; }
    __device__ i64 q_at(int row, int head) const { return (i64)row * q_width() + head * D; }
    __device__ i64 k_at(int row, int head) const { return (i64)row * kv_width() + (parts - 2) * width() + head * D; }
    __device__ i64 v_at(int row, int head) const { return k_at(row, head) + width(); }
    __device__ i64 at(int row, int head) const { return (i64)row * width() + head * D; }
};

// A thread's warp and lane, its first row within the warp (the second is 8 later), and its position in the quad.
struct Place {
    int warp, lane, row, quad;

    __device__ Place() : warp(threadIdx.x / WARP), lane(threadIdx.x % WARP), row(threadIdx.x % WARP / 4), quad(threadIdx.x % 4) {}
};

// The two rows of an array that a lane reads.
template <class T>
struct Rows {
    const T* row[2];
};

// With two stages, starts loading the first tiles, which continues while the kernel reads its operands into registers.
template <int STAGES, class Load>
DEVICE void begin_tiles(int at, int end, Load load) {
    if (STAGES == 2 && at < end) load(at / TILE % 2, at);
}

// For each pair of tiles, from row `at` to `end`; the first has been started. `load(stage, at)` starts loading it to shared memory,
// `Products::round` processes what this thread has loaded, `use(stage, at)` uses all of it. Of two stages, one is loaded while the other is
// used.
template <class Products, class Tile, int STAGES, class Load, class Use>
DEVICE void through_tiles(Tile (&tiles)[STAGES][2], int at, int end, Load load, Use use) {
    for (; at < end; at += TILE) {
        const int stage = at / TILE % STAGES;
        if (STAGES == 1) {
            __syncthreads();  // all threads are done with the previous tile
            load(stage, at);
        }
        await_copies();
        Products::round(tiles[stage]);
        __syncthreads();  // this tile is complete, all threads are done with the previous one
        if (STAGES == 2 && at + TILE < end) load(1 - stage, at + TILE);
        use(stage, at);
    }
    __syncthreads();  // all threads are done with the last tile
}

// Common to the kinds of products that read and write float32.
struct FloatStorage {
    typedef float Storage;

    // `use(i, four)` for each group of four neighbours of a tile that this thread loads, i rows after its first.
    template <template <int> class Tile, int D, class Use>
    static DEVICE void each_four(Tile<D>& tile, Use use) {
        float* const own = tile.at(threadIdx.x / (D / 4), threadIdx.x % (D / 4) * 4);
#pragma unroll
        for (int i = 0; i < TILE; i += THREADS * 4 / D) use(i, *(float4*)(own + i * Tile<D>::WIDTH));
    }

    template <template <int> class Tile, int D>
    static DEVICE void bring(Tile<D>& tile, const float* from, int stride, int count) {
        const int row = threadIdx.x / (D / 4), column = threadIdx.x % (D / 4) * 4;
        from += (i64)row * stride + column;
        each_four(tile, [&](int i, float4& four) { copy_16(&four, from + (i64)i * stride, row + i < count); });
    }

    // A lane's quarter of the dot product of two rows, the first rounded as products take it: where a gradient should vanish because one
    // weight is nearly 1, the number subtracted from it must be rounded like it.
    template <int D, class Taken>
    static DEVICE float dot_of(const float* a, const float* b, Taken taken) {
        float sum = 0.0f;
#pragma unroll
        for (int column = 4 * Place().quad; column < D; column += 16) {
            const float4 x = taken(*(const float4*)(a + column)), y = *(const float4*)(b + column);
            sum = fmaf(x.x, y.x, fmaf(x.y, y.y, fmaf(x.z, y.z, fmaf(x.w, y.w, sum))));
        }
        return sum;
    }
};

// Common to the kinds of products in which a lane's sums belong to its own two rows, and tiles are used as loaded.
struct SumsByRow {
    static constexpr bool SPARING = false;

    template <class Tile>
    static DEVICE void round(Tile (&)[2]) {}

    // sums ← sums · factor of each row
    template <int N>
    static DEVICE void scale(float (&sums)[N][4], const float (&factor)[2]) {
#pragma unroll
        for (int j = 0; j < N; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[j][i] *= factor[i / 2];
    }
};

template <int N>
DEVICE void scale_all(float (&sums)[N][4], float factor) {
#pragma unroll
    for (int j = 0; j < N; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[j][i] *= factor;
}

DEVICE float quad_sum(float x) {
    x += __shfl_xor_sync(ALL, x, 1);
    return x + __shfl_xor_sync(ALL, x, 2);
}

DEVICE float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL, x, 2));
}

// The Philox block for (query, head, key), in the order in which `Draw.pairs` draws. For queries and keys past the end it is some other
// block: their weights are zero whatever is drawn.
DEVICE u64 pair_block(const Item& item, int heads, int head, int query, int key) {
    const u32 blocks = (item.keys + UNITS - 1u) / UNITS;
    return ((u64)query * heads + head) * blocks + (u32)key / UNITS;
}

// Which of 32 keys from `key` on survive for this lane's two queries: bit b is for key `key + 2 quad + b`, so that a lane addresses its own
// columns by constants. Lane l draws for query l / 2, half l % 2 of the keys.
DEVICE void kept_keys(u32 (&bits)[2], const Draw& draw, const Item& item, int heads, int head, int first, int key) {
    bits[0] = bits[1] = ALL;
    if (draw.threshold == 0) return;
    const Place place;
    const int query = first + place.lane / 2, own = key + place.lane % 2 * UNITS;
    const u32 mine = survivors(draw, item.number, pair_block(item, heads, head, query, own));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int from = 2 * (place.row + 8 * half);
        const u32 low = __shfl_sync(ALL, mine, from), high = __shfl_sync(ALL, mine, from + 1);
        bits[half] = (low | high << UNITS) >> 2 * place.quad;
    }
}

// Which of 32 queries from `query` on keep which of 16 keys from `key` on, if rows are keys: bit 2 j + side + 8 half is for this lane's
// element in column 8 j + 2 quad + side of row `half`. Lane l draws for query l.
DEVICE u32 kept_queries(const Draw& draw, const Item& item, int heads, int head, int query, int key) {
    if (draw.threshold == 0) return ALL;
    const Place place;
    const u32 mine = survivors(draw, item.number, pair_block(item, heads, head, query + place.lane, key));
    u32 bits = 0;
#pragma unroll
    for (int i = 0; i < 2 * EIGHTS; ++i) {
        const u32 column = __shfl_sync(ALL, mine, 8 * (i / 2) + 2 * place.quad + i % 2) >> place.row;
        bits |= (column & 0x101) << i;
    }
    return bits;
}

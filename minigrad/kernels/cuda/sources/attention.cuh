// Packed attention, forward and backward, without a matrix of weights in memory: online softmax, and weights recomputed in the backward
// pass from the saved logarithms of their sums (Dao et al., arXiv 2205.14135; Dao, arXiv 2307.08691).
//
// `Products` defines how the products are computed (float32, or tensor cores) and how queries, keys, values, outputs and their gradients
// are stored; sums and everything else are float32. Each number is written by one lane that adds in a fixed order, so results are
// bit-identical every time. A query without any key gives zeros, and its saved logarithm is +∞, which makes its weights 2^-∞ = 0 in the
// backward pass.
#pragma once
#include "attention_tiles.cuh"

// The two tiles of a stage: keys and values, or queries and gradients of the output.
enum { K, V, Q = 0, G };

// The share of this block and warp if rows are queries. A causal query sees the keys up to its own position, the last query the last key.
struct OwnQueries {
    int head;
    Item item;
    int ahead, first;

    DEVICE OwnQueries(const Item* items, int heads, bool causal, const Place& place)
        : head(blockIdx.x % heads), item(items[blockIdx.x / heads]) {
        ahead = causal ? item.keys - item.queries + 1 : item.keys;
        first = item.start + 16 * place.warp;
    }

    // The first key hidden from a query, from all queries of this warp, and from all queries of the block.
    DEVICE int end(int query) const { return min(item.keys, query + ahead); }
    DEVICE int warp_end() const { return first < item.queries ? end(min(first + 16, item.queries) - 1) : 0; }
    DEVICE int block_end() const { return end(min(item.start + PIECE, item.queries) - 1); }

    // The index of this lane's query in the first or second half of the warp's rows.
    DEVICE int row(int half) const { return first + Place().row + 8 * half; }

    // scores ← `hidden` for the keys, from `key` on, that a query does not see.
    template <int N>
    DEVICE void hide(float (&scores)[N][4], int key, float hidden) const {
        if (key + 8 * N <= end(first)) return;  // the whole warp sees them
#pragma unroll
        for (int j = 0; j < N; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (key + 8 * j + 2 * Place().quad + i % 2 >= end(row(i / 2))) scores[j][i] = hidden;
    }
};

// The two rows of an array that this lane reads, of its warp's from `first` on. Past the end it reads the last row again, and stores no
// result.
template <class T, class Offset>
DEVICE Rows<T> rows_of(const T* array, int first, int rows, Offset offset) {
    const int row = first + Place().row;
    return {{array + offset(min(row, rows - 1)), array + offset(min(row + 8, rows - 1))}};
}

// out ← attention; lse (heads, rows) ← for each query the base-2 logarithm of the sum of 2^score.
template <class Products, int D, class T = typename Products::Storage>
DEVICE void attention_forward(
    const T* q, const T* kv, const Item* items, T* out, float* lse, i64 rows, Layout<D> layout, bool causal, Draw draw
) {
    constexpr int STAGES = Products::template STAGES<D>;
    __shared__ typename Products::template Tile<D> tiles[STAGES][2];
    __shared__ typename Products::Staging staging;
    const Place place;
    const OwnQueries own(items, layout.heads, causal, place);
    const Item& item = own.item;
    const auto load = [&](int stage, int key) {
        Products::bring(tiles[stage][K], kv + layout.k_at(item.key_first + key, own.head), layout.kv_width(), item.keys - key);
        Products::bring(tiles[stage][V], kv + layout.v_at(item.key_first + key, own.head), layout.kv_width(), item.keys - key);
    };
    begin_tiles<STAGES>(0, own.block_end(), load);
    const typename Products::template Left<D> queries =
        rows_of(q, own.first, item.queries, [&](int i) { return layout.q_at(item.query_first + i, own.head); });

    float sums[D / 8][4] = {}, top[2] = {-INFINITE, -INFINITE}, total[2] = {0.0f, 0.0f};
    through_tiles<Products>(tiles, 0, own.block_end(), load, [&](int stage, int key) {
        if (key >= own.warp_end()) return;
        const int count = min(TILE, item.keys - key);
        u32 kept[2];
        kept_keys(kept, draw, item, layout.heads, own.head, own.first, key);
        float weights[EIGHTS][4];
        Products::by_rows(weights, queries, tiles[stage][K], 0, count);
        own.hide(weights, key, -INFINITE);
        float shrink[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float highest = top[half];
#pragma unroll
            for (int j = 0; j < EIGHTS; ++j)
#pragma unroll
                for (int side = 0; side < 2; ++side) highest = fmaxf(highest, weights[j][2 * half + side]);
            highest = quad_max(highest);
            const float shift = highest == -INFINITE ? 0.0f : highest * POWER<D>;
            shrink[half] = power_of_two(fmaf(top[half], POWER<D>, -shift));
            top[half] = highest;
            total[half] *= shrink[half];
#pragma unroll
            for (int j = 0; j < EIGHTS; ++j)
#pragma unroll
                for (int side = 0; side < 2; ++side) {
                    float& weight = weights[j][2 * half + side];
                    weight = power_of_two(fmaf(weight, POWER<D>, -shift));
                    total[half] += weight;
                    if (!(kept[half] >> (8 * j + side) & 1)) weight = 0.0f;
                }
        }
        Products::scale(sums, shrink);
        Products::add_mixed(sums, weights, tiles[stage][V], 0, count, staging);
    });
    if (own.first >= item.queries) return;

    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float sum = quad_sum(total[half]);
        const bool blind = sum == 0.0f && (causal || item.keys == 0);
        const float logarithm = blind ? INFINITE : fmaf(top[half], POWER<D>, log2f(sum));
        inverse[half] = blind ? 0.0f : draw.scale / sum;
        if (place.quad == 0 && own.row(half) < item.queries) lse[(i64)own.head * rows + item.query_first + own.row(half)] = logarithm;
    }
    const auto offset = [&](int i) { return layout.at(item.query_first + i, own.head); };
    Products::scale(sums, inverse);
    Products::write(tiles[0], out, sums, own.first, item.queries, offset);
}

// dq ← the gradient of the queries; delta (heads, rows) ← Σ over keys of weight · its gradient, which equals g · out.
template <class Products, int D, class T = typename Products::Storage>
DEVICE void attention_dq(
    const T* q, const T* kv, const Item* items, const T* out, const float* lse, const T* g, T* dq, float* delta, i64 rows,
    Layout<D> layout, bool causal, Draw draw
) {
    typedef typename Products::template Left<D> Left;
    constexpr int STAGES = Products::template STAGES<D>;
    constexpr int N = Products::SPARING ? 2 : EIGHTS;  // groups of eight columns at a time
    __shared__ typename Products::template Tile<D> tiles[STAGES][2];
    __shared__ typename Products::Staging staging;
    const Place place;
    const OwnQueries own(items, layout.heads, causal, place);
    const Item& item = own.item;
    const auto q_offset = [&](int i) { return layout.q_at(item.query_first + i, own.head); };
    const auto offset = [&](int i) { return layout.at(item.query_first + i, own.head); };
    const auto load = [&](int stage, int key) {
        Products::bring(tiles[stage][K], kv + layout.k_at(item.key_first + key, own.head), layout.kv_width(), item.keys - key);
        Products::bring(tiles[stage][V], kv + layout.v_at(item.key_first + key, own.head), layout.kv_width(), item.keys - key);
    };
    begin_tiles<STAGES>(0, own.block_end(), load);
    const Rows<T> gradients = rows_of(g, own.first, item.queries, offset), outputs = rows_of(out, own.first, item.queries, offset);
    const Left queries = rows_of(q, own.first, item.queries, q_offset), above = gradients;

    float mean[2], logarithm[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        mean[half] = quad_sum(Products::template dot<D>(gradients.row[half], outputs.row[half]));
        const i64 at = (i64)own.head * rows + item.query_first + min(own.row(half), item.queries - 1);
        logarithm[half] = lse[at];
        if (place.quad == 0 && own.row(half) < item.queries) delta[at] = mean[half];
    }

    float sums[D / 8][4] = {};
    through_tiles<Products>(tiles, 0, own.block_end(), load, [&](int stage, int key) {
        if (key >= own.warp_end()) return;
        const int count = min(TILE, item.keys - key);
        u32 kept[2];
        kept_keys(kept, draw, item, layout.heads, own.head, own.first, key);
#pragma unroll
        for (int begin = 0; begin < TILE; begin += 8 * N) {
            if (begin > 0 && begin >= count) break;
            float weights[N][4], slopes[N][4];
            Products::by_rows(weights, queries, tiles[stage][K], begin, count);
            Products::by_rows(slopes, above, tiles[stage][V], begin, count);
#pragma unroll
            for (int j = 0; j < N; ++j)
#pragma unroll
                for (int i = 0; i < 4; ++i) weights[j][i] = power_of_two(fmaf(weights[j][i], POWER<D>, -logarithm[i / 2]));
            own.hide(weights, key + begin, 0.0f);
#pragma unroll
            for (int j = 0; j < N; ++j)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float slope = kept[i / 2] >> (begin + 8 * j + i % 2) & 1 ? slopes[j][i] : 0.0f;
                    slopes[j][i] = weights[j][i] * fmaf(slope, draw.scale, -mean[i / 2]);
                }
            Products::add_mixed(sums, slopes, tiles[stage][K], begin, count, staging);
        }
    });
    scale_all(sums, SCALE<D>);
    Products::write(tiles[0], dq, sums, own.first, item.queries, q_offset);
}

// The keys' and values' parts of dkv ← their gradients. Here a row of scores is a key, and the columns are queries.
template <class Products, int D, class T = typename Products::Storage>
DEVICE void attention_dkv(
    const T* q, const T* kv, const Item* items, const float* lse, const float* delta, const T* g, T* dkv, i64 rows, Layout<D> layout,
    bool causal, Draw draw
) {
    typedef typename Products::template Left<D> Left;
    constexpr int STAGES = Products::template STAGES<D>;
    __shared__ typename Products::template Tile<D> tiles[STAGES][2];
    __shared__ typename Products::Staging staging;
    __shared__ float2 saved_of[STAGES][2][TILE / 2];  // logarithms, and means
    const Place place;
    const int head = blockIdx.x % layout.heads;
    const Item item = items[blockIdx.x / layout.heads];
    const int first = item.start + 16 * place.warp;
    const int ahead = item.queries - item.keys;  // a causal key is seen by queries from this many positions after its own on
    const auto k_offset = [&](int i) { return layout.k_at(item.key_first + i, head); };
    const auto v_offset = [&](int i) { return layout.v_at(item.key_first + i, head); };
    const float* const saved = (place.warp ? delta : lse) + (i64)head * rows + item.query_first + place.lane;
    const auto load = [&](int stage, int query) {
        const int count = item.queries - query;
        Products::bring(tiles[stage][Q], q + layout.q_at(item.query_first + query, head), layout.q_width(), count);
        Products::bring(tiles[stage][G], g + layout.at(item.query_first + query, head), layout.width(), count);
        if (place.warp < 2)  // a lane per query
            copy_4((float*)saved_of[stage] + threadIdx.x, saved + query, place.lane < count);
    };
    const int seeing = causal ? max(0, item.start + ahead) / TILE * TILE : 0;
    begin_tiles<STAGES>(seeing, item.queries, load);
    const Left keys = rows_of(kv, first, item.keys, k_offset), values = rows_of(kv, first, item.keys, v_offset);

    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    through_tiles<Products>(tiles, seeing, item.queries, load, [&](int stage, int query) {
        const int count = min(TILE, item.queries - query);
        if (first >= item.keys || (causal && query + count <= first + ahead)) return;
        const int late = first + place.row + ahead - query - 2 * place.quad;  // a causal key is not seen by earlier queries
        const u32 kept = kept_queries(draw, item, layout.heads, head, query, first);
#pragma unroll
        for (int begin = 0; begin < TILE; begin += 16) {  // registers do not suffice for more at a time
            if (begin > 0 && begin >= count) break;
            float weights[2][4], slopes[2][4], kept_weights[2][4];
            Products::by_rows(weights, keys, tiles[stage][Q], begin, count);
            if (!Products::SPARING) Products::by_rows(slopes, values, tiles[stage][G], begin, count);
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const float2 logarithm = saved_of[stage][0][begin / 2 + 4 * j + place.quad];
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    weights[j][i] = power_of_two(fmaf(weights[j][i], POWER<D>, -(i % 2 ? logarithm.y : logarithm.x)));
            }
            if (causal) {
#pragma unroll
                for (int j = 0; j < 2; ++j)
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        if (begin + 8 * j + i % 2 < late + 8 * (i / 2)) weights[j][i] = 0.0f;
            }
            const auto factor = [&](int j, int i) {
                return kept >> (begin / 4 + 2 * j + i % 2 + 8 * (i / 2)) & 1 ? draw.scale : 0.0f;
            };
#pragma unroll
            for (int j = 0; j < 2; ++j)
#pragma unroll
                for (int i = 0; i < 4; ++i) kept_weights[j][i] = weights[j][i] * factor(j, i);
            Products::add_mixed(dv, kept_weights, tiles[stage][G], begin, count, staging);
            if (Products::SPARING) Products::by_rows(slopes, values, tiles[stage][G], begin, count);
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const float2 mean = saved_of[stage][1][begin / 2 + 4 * j + place.quad];
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    slopes[j][i] = weights[j][i] * fmaf(slopes[j][i], factor(j, i), -(i % 2 ? mean.y : mean.x));
            }
            Products::add_mixed(dk, slopes, tiles[stage][Q], begin, count, staging);
        }
    });
    scale_all(dk, SCALE<D>);
    Products::write(tiles[0], dkv, dk, first, item.keys, k_offset);
    Products::write(tiles[STAGES - 1], dkv, dv, first, item.keys, v_offset);
}

// The least number of blocks per multiprocessor, as far as the sums and weights in registers permit: 65536 / 128 / blocks for each lane.
// Stated explicitly because the compiler, left to itself, may spill a few bytes rather than give up one step of occupancy.
template <int D>
constexpr int FORWARD_BLOCKS = D == 128 ? 3 : 4;
template <int D>
constexpr int BACKWARD_BLOCKS = D == 128 ? 2 : 3;

// The three kernels for one kind of products and one head size.
#define READ(Products) const Products::Storage* __restrict__
#define WRITTEN(Products) Products::Storage* __restrict__
#define ITEMS const Item* __restrict__ items
#define SETTINGS i64 rows, int parts, int heads, int causal, RECIPE
#define SET rows, {parts, heads}, causal != 0, RECIPE_DRAW
#define KERNEL(name, blocks) extern "C" __global__ void __launch_bounds__(THREADS, blocks) name
#define ATTENTION_KERNELS(precision, Products, D)                                                                                   \
    KERNEL(attention_forward_##precision##_##D, FORWARD_BLOCKS<D>)                                                                  \
    (READ(Products) q, READ(Products) kv, ITEMS, WRITTEN(Products) out, float* __restrict__ lse, SETTINGS) {                        \
        attention_forward<Products, D>(q, kv, items, out, lse, SET);                                                                \
    }                                                                                                                               \
    KERNEL(attention_dq_##precision##_##D, BACKWARD_BLOCKS<D>)                                                                      \
    (READ(Products) q, READ(Products) kv, ITEMS, READ(Products) out, const float* __restrict__ lse, READ(Products) g,               \
     WRITTEN(Products) dq, float* __restrict__ delta, SETTINGS) {                                                                   \
        attention_dq<Products, D>(q, kv, items, out, lse, g, dq, delta, SET);                                                       \
    }                                                                                                                               \
    KERNEL(attention_dkv_##precision##_##D, BACKWARD_BLOCKS<D>)                                                                     \
    (READ(Products) q, READ(Products) kv, ITEMS, const float* __restrict__ lse, const float* __restrict__ delta, READ(Products) g,  \
     WRITTEN(Products) dkv, SETTINGS) {                                                                                             \
        attention_dkv<Products, D>(q, kv, items, lse, delta, g, dkv, SET);                                                          \
    }

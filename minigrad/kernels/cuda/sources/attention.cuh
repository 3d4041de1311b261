// Packed attention, forward and backward, without a matrix of weights in memory: softmax as one goes along, and weights computed again on
// the way back from the saved logarithms of their sums (Dao et al., arXiv 2205.14135; Dao, arXiv 2307.08691).
//
// `Products` says how the products are computed (float32, or tensor cores) and how queries, keys, values, outputs and their gradients are
// stored; sums and everything else are float32. Each number is written by one lane that adds in a fixed order: results are the same bits
// every time. A query without any key gives zeros, and its saved logarithm is +∞, which makes its weights 2^-∞ = 0 on the way back.
#pragma once
#include "attention_tiles.cuh"

// What this block and this lane own where rows are queries. A causal query sees the keys up to its own place, the last query the last key:
// `seen` is the first key that each of the lane's two queries does not see, the `end`s are where that is for all of a warp or block, and
// all of the warp see the keys before `seen_by_all`.
struct Asking {
    int head;
    Item item;
    int first, row[2], seen[2], seen_by_all, warp_end, block_end;

    DEVICE Asking(const Item* items, int heads, bool causal, const Place& place)
        : head(blockIdx.x % heads), item(items[blockIdx.x / heads]) {
        const auto end = [&](int query) { return causal ? min(item.keys, query + item.keys - item.queries + 1) : item.keys; };
        first = item.start + 16 * place.warp;
        row[0] = first + place.row, row[1] = row[0] + 8;
        seen[0] = end(row[0]), seen[1] = end(row[1]), seen_by_all = end(first);
        warp_end = first < item.queries ? end(min(first + 16, item.queries) - 1) : 0;
        block_end = end(min(item.start + PIECE, item.queries) - 1);
    }

    // scores ← `hidden` for the keys of a tile that a query does not see.
    DEVICE void hide(float (&scores)[EIGHTS][4], int key, float hidden) const {
        if (key + TILE <= seen_by_all) return;
#pragma unroll
        for (int j = 0; j < EIGHTS; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (key + 8 * j + 2 * Place().quad + i % 2 >= seen[i / 2]) scores[j][i] = hidden;
    }
};

// The rows that this lane reads; past the end it is the last row again, whose results are not stored.
template <class T, class Offset>
DEVICE Rows<T> rows_of(const T* array, const int (&row)[2], int rows, Offset offset) {
    return {{array + offset(min(row[0], rows - 1)), array + offset(min(row[1], rows - 1))}};
}

// out ← attention; lse (heads, rows) ← per query the logarithm, base 2, of the sum of 2^score.
template <class Products, int D, class T = typename Products::Storage>
DEVICE void attention_forward(
    const T* q, const T* kv, const Item* items, T* out, float* lse, i64 rows, Layout<D> layout, bool causal, Draw draw
) {
    __shared__ typename Products::template Tile<D> k_tile[Products::STAGES], v_tile[Products::STAGES];
    __shared__ typename Products::Staging staging;
    const Place place;
    const Asking own(items, layout.heads, causal, place);
    const Item& item = own.item;
    const typename Products::template Left<D> asking =
        rows_of(q, own.row, item.queries, [&](int i) { return layout.q_at(item.query_first + i, own.head); });

    float sums[D / 8][4] = {}, top[2] = {-INFINITE, -INFINITE}, total[2] = {0.0f, 0.0f};
    const auto load = [&](int stage, int key) {
        Products::bring(k_tile[stage], kv + layout.k_at(item.key_first + key, own.head), layout.kv_width(), item.keys - key);
        Products::bring(v_tile[stage], kv + layout.v_at(item.key_first + key, own.head), layout.kv_width(), item.keys - key);
    };
    through_tiles<Products::STAGES>(0, own.block_end, load, [&](int stage, int key) {
        if (key >= own.warp_end) return;
        const int count = min(TILE, item.keys - key);
        u32 kept[2];
        kept_keys(kept, draw, item, layout.heads, own.head, own.first, key);
        float weights[EIGHTS][4];
        Products::by_rows(weights, asking, k_tile[stage], 0, count);
        own.hide(weights, key, -INFINITE);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float highest = top[half];
#pragma unroll
            for (int j = 0; j < EIGHTS; ++j)
#pragma unroll
                for (int side = 0; side < 2; ++side) highest = fmaxf(highest, weights[j][2 * half + side]);
            highest = quad_max(highest);
            const float shift = highest == -INFINITE ? 0.0f : highest * POWER<D>;
            const float shrink = power_of_two(fmaf(top[half], POWER<D>, -shift));
            top[half] = highest;
            total[half] *= shrink;
#pragma unroll
            for (int j = 0; j < D / 8; ++j) {
                sums[j][2 * half] *= shrink;
                sums[j][2 * half + 1] *= shrink;
            }
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
        Products::add_mixed(sums, weights, v_tile[stage], 0, count, staging);
    });
    if (own.first >= item.queries) return;

    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float sum = quad_sum(total[half]);
        const bool blind = sum == 0.0f && (causal || item.keys == 0);
        const float logarithm = blind ? INFINITE : fmaf(top[half], POWER<D>, log2f(sum));
        inverse[half] = blind ? 0.0f : draw.scale / sum;
        if (place.quad == 0 && own.row[half] < item.queries) lse[(i64)own.head * rows + item.query_first + own.row[half]] = logarithm;
    }
    const auto offset = [&](int i) { return layout.at(item.query_first + i, own.head); };
    Products::write(k_tile, out, sums, inverse, own.first, item.queries, offset);
}

// dq ← the gradient of the queries; delta (heads, rows) ← Σ over keys of weight · its gradient, which is g · out.
template <class Products, int D, class T = typename Products::Storage>
DEVICE void attention_dq(
    const T* q, const T* kv, const Item* items, const T* out, const float* lse, const T* g, T* dq, float* delta, i64 rows,
    Layout<D> layout, bool causal, Draw draw
) {
    typedef typename Products::template Left<D> Left;
    __shared__ typename Products::template Tile<D> k_tile[Products::STAGES], v_tile[Products::STAGES];
    __shared__ typename Products::Staging staging;
    const Place place;
    const Asking own(items, layout.heads, causal, place);
    const Item& item = own.item;
    const auto q_offset = [&](int i) { return layout.q_at(item.query_first + i, own.head); };
    const auto offset = [&](int i) { return layout.at(item.query_first + i, own.head); };
    const Rows<T> gradients = rows_of(g, own.row, item.queries, offset), outputs = rows_of(out, own.row, item.queries, offset);
    const Left asking = rows_of(q, own.row, item.queries, q_offset), above = gradients;

    float mean[2], logarithm[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        mean[half] = quad_sum(Products::template dot<D>(gradients.row[half], outputs.row[half]));
        const i64 at = (i64)own.head * rows + item.query_first + min(own.row[half], item.queries - 1);
        logarithm[half] = lse[at];
        if (place.quad == 0 && own.row[half] < item.queries) delta[at] = mean[half];
    }

    float sums[D / 8][4] = {};
    const auto load = [&](int stage, int key) {
        Products::bring(k_tile[stage], kv + layout.k_at(item.key_first + key, own.head), layout.kv_width(), item.keys - key);
        Products::bring(v_tile[stage], kv + layout.v_at(item.key_first + key, own.head), layout.kv_width(), item.keys - key);
    };
    through_tiles<Products::STAGES>(0, own.block_end, load, [&](int stage, int key) {
        if (key >= own.warp_end) return;
        const int count = min(TILE, item.keys - key);
        u32 kept[2];
        kept_keys(kept, draw, item, layout.heads, own.head, own.first, key);
        float weights[EIGHTS][4], slopes[EIGHTS][4];
        Products::by_rows(weights, asking, k_tile[stage], 0, count);
        Products::by_rows(slopes, above, v_tile[stage], 0, count);
#pragma unroll
        for (int j = 0; j < EIGHTS; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i) weights[j][i] = power_of_two(fmaf(weights[j][i], POWER<D>, -logarithm[i / 2]));
        own.hide(weights, key, 0.0f);
#pragma unroll
        for (int j = 0; j < EIGHTS; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float slope = kept[i / 2] >> (8 * j + i % 2) & 1 ? slopes[j][i] : 0.0f;
                slopes[j][i] = weights[j][i] * fmaf(slope, draw.scale, -mean[i / 2]);
            }
        Products::add_mixed(sums, slopes, k_tile[stage], 0, count, staging);
    });
    Products::write(k_tile, dq, sums, {SCALE<D>, SCALE<D>}, own.first, item.queries, q_offset);
}

// The keys' and values' parts of dkv ← their gradients. Here a row of scores is a key, and its columns are queries.
template <class Products, int D, class T = typename Products::Storage>
DEVICE void attention_dkv(
    const T* q, const T* kv, const Item* items, const float* lse, const float* delta, const T* g, T* dkv, i64 rows, Layout<D> layout,
    bool causal, Draw draw
) {
    __shared__ typename Products::template Tile<D> q_tile[Products::STAGES], g_tile[Products::STAGES];
    __shared__ typename Products::Staging staging;
    __shared__ float2 logarithms[Products::STAGES][TILE / 2], means[Products::STAGES][TILE / 2];
    const Place place;
    const int head = blockIdx.x % layout.heads;
    const Item item = items[blockIdx.x / layout.heads];
    const int first = item.start + 16 * place.warp;
    const int row[2] = {first + place.row, first + place.row + 8};
    const int ahead = item.queries - item.keys;  // a causal key is seen from this many queries after its own place on
    const auto k_offset = [&](int i) { return layout.k_at(item.key_first + i, head); };
    const auto v_offset = [&](int i) { return layout.v_at(item.key_first + i, head); };
    const typename Products::template Left<D> keys = rows_of(kv, row, item.keys, k_offset), values = rows_of(kv, row, item.keys, v_offset);

    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    const float* const saved = (place.warp ? delta : lse) + (i64)head * rows + item.query_first + place.lane;
    const auto load = [&](int stage, int query) {
        const int count = item.queries - query;
        Products::bring(q_tile[stage], q + layout.q_at(item.query_first + query, head), layout.q_width(), count);
        Products::bring(g_tile[stage], g + layout.at(item.query_first + query, head), layout.width(), count);
        if (place.warp < 2)  // as many lanes as queries
            copy_4((float*)(place.warp ? means : logarithms)[stage] + place.lane, saved + query, place.lane < count);
    };
    const int seeing = causal ? max(0, item.start + ahead) / TILE * TILE : 0;
    through_tiles<Products::STAGES>(seeing, item.queries, load, [&](int stage, int query) {
        const int count = min(TILE, item.queries - query);
        if (first >= item.keys || (causal && query + count <= first + ahead)) return;
        const int late = first + place.row + ahead - query - 2 * place.quad;  // a causal key is not seen before
        const u32 kept = kept_queries(draw, item, layout.heads, head, query, first);
#pragma unroll
        for (int begin = 0; begin < TILE; begin += 16) {  // there are no registers for more at a time
            if (begin >= count) break;
            float weights[2][4], slopes[2][4];
            Products::by_rows(weights, keys, q_tile[stage], begin, count);
            Products::by_rows(slopes, values, g_tile[stage], begin, count);
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const float2 logarithm = logarithms[stage][begin / 2 + 4 * j + place.quad];
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
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const float2 mean = means[stage][begin / 2 + 4 * j + place.quad];
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const float factor = kept >> (begin / 4 + 2 * j + i % 2 + 8 * (i / 2)) & 1 ? draw.scale : 0.0f;
                    slopes[j][i] = weights[j][i] * fmaf(slopes[j][i], factor, -(i % 2 ? mean.y : mean.x));
                    weights[j][i] *= factor;
                }
            }
            Products::add_mixed(dv, weights, g_tile[stage], begin, count, staging);
            Products::add_mixed(dk, slopes, q_tile[stage], begin, count, staging);
        }
    });
    Products::write(q_tile, dkv, dk, {SCALE<D>, SCALE<D>}, first, item.keys, k_offset);
    Products::write(g_tile, dkv, dv, {1.0f, 1.0f}, first, item.keys, v_offset);
}

// Blocks that share a multiprocessor at least: what the sums and weights in registers leave room for, 65536 / 128 / blocks for each lane.
// Said here because the compiler, left to itself, may rather spill a few bytes than go beyond a step of occupancy.
template <class Products, int D>
constexpr int FORWARD_BLOCKS = D == 32 || (D == 64 && Products::STAGES == 2) ? 4 : 3;
template <int D>
constexpr int BACKWARD_BLOCKS = D == 128 ? 2 : 3;

// The three kernels for one way of computing products and one head size.
#define READ(Products) const Products::Storage* __restrict__
#define WRITTEN(Products) Products::Storage* __restrict__
#define ITEMS const Item* __restrict__ items
#define SETTINGS i64 rows, int parts, int heads, int causal, const u64 *clock, u64 seed, u64 site, u64 step, u32 threshold, float scale
#define SET rows, {parts, heads}, causal != 0, draw_at(seed, site, step, clock, threshold, scale)
#define KERNEL(name, blocks) extern "C" __global__ void __launch_bounds__(THREADS, blocks) name
#define ATTENTION_KERNELS(precision, Products, D)                                                                                   \
    KERNEL(attention_forward_##precision##_##D, (FORWARD_BLOCKS<Products, D>))                                                      \
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

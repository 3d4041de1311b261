// Packed attention, forward and backward, without a matrix of weights in memory: softmax as one goes along, and weights computed again on
// the way back from the saved logarithms of their sums (Dao et al., arXiv 2205.14135; Dao, arXiv 2307.08691).
//
// `Products` says how the products are computed (float32, or tensor cores); sums and everything else are float32. Each number is written by
// one lane that adds in a fixed order: results are the same bits every time. A query without any key gives zeros, and its saved
// logarithm is +∞, which makes its weights 2^-∞ = 0 on the way back.
#pragma once
#include "attention_tiles.cuh"

// What this block and this lane own where rows are queries. A causal query sees the keys up to its own place, the last query the last key:
// `seen` is the first key that each of the lane's two queries does not see, and the `end`s are where that is for all of a warp or block.
struct Asking {
    int head;
    Item item;
    int first, row[2], seen[2], warp_end, block_end;

    DEVICE Asking(const Item* items, int heads, bool causal, const Place& place)
        : head(blockIdx.x % heads), item(items[blockIdx.x / heads]) {
        const auto end = [&](int query) { return causal ? min(item.keys, query + item.keys - item.queries + 1) : item.keys; };
        first = item.start + 16 * place.warp;
        row[0] = first + place.row, row[1] = row[0] + 8;
        seen[0] = end(row[0]), seen[1] = end(row[1]);
        warp_end = first < item.queries ? end(min(first + 16, item.queries) - 1) : 0;
        block_end = end(min(item.start + PIECE, item.queries) - 1);
    }
};

// The rows of an operand that this lane reads; past the end it is the last row again, whose results are not stored.
template <class Offset>
DEVICE Rows rows_of(const float* array, const int (&row)[2], int rows, Offset offset) {
    return {{array + offset(min(row[0], rows - 1)), array + offset(min(row[1], rows - 1))}};
}

template <class Products, int D, class Offset>
DEVICE void write_rows(float* array, const float (&sums)[D / 8][4], const int (&row)[2], int rows, Offset offset) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        if (row[half] >= rows) continue;
        float* out = array + offset(row[half]);
#pragma unroll
        for (int j = 0; j < D / 8; ++j) *(float2*)(out + Products::pair_column(j)) = make_float2(sums[j][2 * half], sums[j][2 * half + 1]);
    }
}

// out ← attention; lse (heads, rows) ← per query the logarithm, base 2, of the sum of 2^score.
template <class Products, int D>
DEVICE void attention_forward(
    const float* q, const float* kv, const Item* items, float* out, float* lse, i64 rows, Layout<D> layout, bool causal, Draw draw
) {
    __shared__ typename Products::template Tile<D> k_tile, v_tile;
    __shared__ typename Products::Staging staging;
    const Place place;
    const Asking own(items, layout.heads, causal, place);
    const Item& item = own.item;
    const Rows asking = rows_of(q, own.row, item.queries, [&](int i) { return layout.q_at(item.query_first + i, own.head); });

    float sums[D / 8][4] = {}, top[2] = {-INFINITE, -INFINITE}, total[2] = {0.0f, 0.0f};
    for (int key = 0; key < own.block_end; key += TILE) {
        const int count = min(TILE, item.keys - key);
        __syncthreads();  // all have read the tile before
        load_tile<Products, D>(k_tile, kv + layout.k_at(item.key_first + key, own.head), layout.kv_width(), count);
        load_tile<Products, D>(v_tile, kv + layout.v_at(item.key_first + key, own.head), layout.kv_width(), count);
        __syncthreads();
        if (key >= own.warp_end) continue;
        float weights[EIGHTS][4];
        u32 kept[2];
        Products::template by_rows<D>(weights, asking, k_tile, count);
        kept_keys(kept, draw, item, layout.heads, own.head, own.first, key);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float highest = top[half];
#pragma unroll
            for (int j = 0; j < EIGHTS; ++j)
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; ++i) {
                    if (key + 8 * j + 2 * place.quad + i % 2 >= own.seen[half]) weights[j][i] = -INFINITE;
                    highest = fmaxf(highest, weights[j][i]);
                }
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
                for (int i = 2 * half; i < 2 * half + 2; ++i) {
                    const float weight = power_of_two(fmaf(weights[j][i], POWER<D>, -shift));
                    total[half] += weight;
                    weights[j][i] = kept[half] >> (8 * j + 2 * place.quad + i % 2) & 1 ? weight : 0.0f;
                }
        }
        Products::template add_mixed<D>(sums, weights, v_tile, count, staging);
    }
    if (own.first >= item.queries) return;

#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const float sum = quad_sum(total[half]);
        const bool blind = sum == 0.0f && (causal || item.keys == 0);
        const float inverse = blind ? 0.0f : draw.scale / sum;
#pragma unroll
        for (int j = 0; j < D / 8; ++j) {
            sums[j][2 * half] *= inverse;
            sums[j][2 * half + 1] *= inverse;
        }
        const float logarithm = blind ? INFINITE : fmaf(top[half], POWER<D>, log2f(sum));
        if (place.quad == 0 && own.row[half] < item.queries) lse[(i64)own.head * rows + item.query_first + own.row[half]] = logarithm;
    }
    write_rows<Products, D>(out, sums, own.row, item.queries, [&](int i) { return layout.at(item.query_first + i, own.head); });
}

// dq ← the gradient of the queries; delta (heads, rows) ← Σ over keys of weight · its gradient, which is g · out.
template <class Products, int D>
DEVICE void attention_dq(
    const float* q, const float* kv, const Item* items, const float* out, const float* lse, const float* g, float* dq, float* delta,
    i64 rows, Layout<D> layout, bool causal, Draw draw
) {
    __shared__ typename Products::template Tile<D> k_tile, v_tile;
    __shared__ typename Products::Staging staging;
    const Place place;
    const Asking own(items, layout.heads, causal, place);
    const Item& item = own.item;
    const auto q_offset = [&](int i) { return layout.q_at(item.query_first + i, own.head); };
    const auto offset = [&](int i) { return layout.at(item.query_first + i, own.head); };
    const Rows asking = rows_of(q, own.row, item.queries, q_offset), above = rows_of(g, own.row, item.queries, offset);
    const Rows outputs = rows_of(out, own.row, item.queries, offset);

    float mean[2], logarithm[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float product = 0.0f;
#pragma unroll
        for (int column = 4 * place.quad; column < D; column += 16) {
            const float4 a = *(const float4*)(above.row[half] + column), b = *(const float4*)(outputs.row[half] + column);
            product = fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, product))));
        }
        mean[half] = quad_sum(product);
        const i64 at = (i64)own.head * rows + item.query_first + min(own.row[half], item.queries - 1);
        logarithm[half] = lse[at];
        if (place.quad == 0 && own.row[half] < item.queries) delta[at] = mean[half];
    }

    float sums[D / 8][4] = {};
    for (int key = 0; key < own.block_end; key += TILE) {
        const int count = min(TILE, item.keys - key);
        __syncthreads();  // all have read the tile before
        load_tile<Products, D>(k_tile, kv + layout.k_at(item.key_first + key, own.head), layout.kv_width(), count);
        load_tile<Products, D>(v_tile, kv + layout.v_at(item.key_first + key, own.head), layout.kv_width(), count);
        __syncthreads();
        if (key >= own.warp_end) continue;
        float scores[EIGHTS][4], slopes[EIGHTS][4];
        u32 kept[2];
        Products::template by_rows<D>(scores, asking, k_tile, count);
        Products::template by_rows<D>(slopes, above, v_tile, count);
        kept_keys(kept, draw, item, layout.heads, own.head, own.first, key);
#pragma unroll
        for (int j = 0; j < EIGHTS; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int half = i / 2, column = 8 * j + 2 * place.quad + i % 2;
                const float weight = key + column < own.seen[half] ? power_of_two(fmaf(scores[j][i], POWER<D>, -logarithm[half])) : 0.0f;
                const float slope = kept[half] >> column & 1 ? slopes[j][i] * draw.scale : 0.0f;
                slopes[j][i] = weight * (slope - mean[half]) * SCALE<D>;
            }
        Products::template add_mixed<D>(sums, slopes, k_tile, count, staging);
    }
    write_rows<Products, D>(dq, sums, own.row, item.queries, q_offset);
}

// The keys' and values' parts of dkv ← their gradients. Here a row of scores is a key, and its columns are queries.
template <class Products, int D>
DEVICE void attention_dkv(
    const float* q, const float* kv, const Item* items, const float* lse, const float* delta, const float* g, float* dkv, i64 rows,
    Layout<D> layout, bool causal, Draw draw
) {
    __shared__ typename Products::template Tile<D> q_tile, g_tile;
    __shared__ typename Products::Staging staging;
    __shared__ float logarithm[TILE], mean[TILE];
    const Place place;
    const int head = blockIdx.x % layout.heads;
    const Item item = items[blockIdx.x / layout.heads];
    const int first = item.start + 16 * place.warp;
    const int row[2] = {first + place.row, first + place.row + 8};
    const int ahead = item.queries - item.keys;  // a causal key is seen from this many queries after its own place on
    const int from[2] = {causal ? row[0] + ahead : 0, causal ? row[1] + ahead : 0};
    const auto k_offset = [&](int i) { return layout.k_at(item.key_first + i, head); };
    const auto v_offset = [&](int i) { return layout.v_at(item.key_first + i, head); };
    const Rows keys = rows_of(kv, row, item.keys, k_offset), values = rows_of(kv, row, item.keys, v_offset);

    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    for (int query = causal ? max(0, item.start + ahead) / TILE * TILE : 0; query < item.queries; query += TILE) {
        const int count = min(TILE, item.queries - query);
        __syncthreads();  // all have read the tile before
        load_tile<Products, D>(q_tile, q + layout.q_at(item.query_first + query, head), layout.q_width(), count);
        load_tile<Products, D>(g_tile, g + layout.at(item.query_first + query, head), layout.width(), count);
        if (place.warp == 0) {  // as many lanes as queries
            const i64 at = (i64)head * rows + item.query_first + query + place.lane;
            logarithm[place.lane] = place.lane < count ? lse[at] : INFINITE;
            mean[place.lane] = place.lane < count ? delta[at] : 0.0f;
        }
        __syncthreads();
        if (first >= item.keys || (causal && query + count <= first + ahead)) continue;
        float weights[EIGHTS][4], slopes[EIGHTS][4];
        Products::template by_rows<D>(weights, keys, q_tile, count);
        Products::template by_rows<D>(slopes, values, g_tile, count);
        const u32 kept = kept_of_query(draw, item, layout.heads, head, query, first);
#pragma unroll
        for (int j = 0; j < EIGHTS; ++j)
#pragma unroll
            for (int side = 0; side < 2; ++side) {
                const int column = 8 * j + 2 * place.quad + side;
                const u32 bits = __shfl_sync(ALL, kept, column);
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int i = 2 * half + side;
                    const float factor = bits >> (place.row + 8 * half) & 1 ? draw.scale : 0.0f;
                    const float power = fmaf(weights[j][i], POWER<D>, -logarithm[column]);
                    const float weight = query + column >= from[half] ? power_of_two(power) : 0.0f;
                    slopes[j][i] = weight * (slopes[j][i] * factor - mean[column]) * SCALE<D>;
                    weights[j][i] = weight * factor;
                }
            }
        Products::template add_mixed<D>(dv, weights, g_tile, count, staging);
        Products::template add_mixed<D>(dk, slopes, q_tile, count, staging);
    }
    write_rows<Products, D>(dkv, dk, row, item.keys, k_offset);
    write_rows<Products, D>(dkv, dv, row, item.keys, v_offset);
}

// Blocks that share a multiprocessor at least: what the sums and weights in registers leave room for, 65536 / 128 / blocks for each lane.
// Said here because the compiler, left to itself, may rather spill a few bytes than go beyond a step of occupancy.
template <int D>
constexpr int FORWARD_BLOCKS = D == 32 ? 4 : 3;
template <int D>
constexpr int DQ_BLOCKS = D == 128 ? 2 : 3;
template <int D>
constexpr int DKV_BLOCKS = D == 128 ? 2 : 3;

// The three kernels for one way of computing products and one head size.
#define READ const float* __restrict__
#define WRITTEN float* __restrict__
#define ITEMS const Item* __restrict__ items
#define SETTINGS i64 rows, int parts, int heads, int causal, const u64 *clock, u64 seed, u64 site, u64 step, u32 threshold, float scale
#define SET rows, {parts, heads}, causal != 0, draw_at(seed, site, step, clock, threshold, scale)
#define KERNEL(name, blocks) extern "C" __global__ void __launch_bounds__(THREADS, blocks) name
#define ATTENTION_KERNELS(precision, Products, D)                                                                                \
    KERNEL(attention_forward_##precision##_##D, FORWARD_BLOCKS<D>)(READ q, READ kv, ITEMS, WRITTEN out, WRITTEN lse, SETTINGS) { \
        attention_forward<Products, D>(q, kv, items, out, lse, SET);                                                             \
    }                                                                                                                            \
    KERNEL(attention_dq_##precision##_##D, DQ_BLOCKS<D>)                                                                         \
    (READ q, READ kv, ITEMS, READ out, READ lse, READ g, WRITTEN dq, WRITTEN delta, SETTINGS) {                                  \
        attention_dq<Products, D>(q, kv, items, out, lse, g, dq, delta, SET);                                                    \
    }                                                                                                                            \
    KERNEL(attention_dkv_##precision##_##D, DKV_BLOCKS<D>)                                                                       \
    (READ q, READ kv, ITEMS, READ lse, READ delta, READ g, WRITTEN dkv, SETTINGS) {                                              \
        attention_dkv<Products, D>(q, kv, items, lse, delta, g, dkv, SET);                                                       \
    }

// The products of attention on tensor cores: operands rounded to tf32, bfloat16 or float16, sums in float32.
//
// Weights are a left operand where they lie: a lane holds in its sums the very rows, and it may choose which places of the common axis are
// whose as long as both operands agree. So it does when it reads rows, too: neighbours in memory, several at a time.
#pragma once
#include "attention_tiles.cuh"

struct Tensor {
    struct Staging {};  // weights need not pass through shared memory

    static DEVICE int pair_column(int j) { return 8 * j + 2 * Place().quad; }
};

struct Tf32 : Tensor {
    template <int D>
    struct Tile {
        alignas(16) u32 row[TILE][D + PAD];
    };

    template <int D>
    static DEVICE void store(Tile<D>& tile, int row, int column, float4 x) {
        *(uint4*)&tile.row[row][column] = make_uint4(tf32(x.x), tf32(x.y), tf32(x.z), tf32(x.w));
    }

    // out = left · rightᵀ: 16 rows by the tile's 32.
    template <int D>
    static DEVICE void by_rows(float (&out)[EIGHTS][4], const Rows& left, const Tile<D>& right, int) {
        const Place place;
#pragma unroll
        for (int j = 0; j < EIGHTS; ++j) out[j][0] = out[j][1] = out[j][2] = out[j][3] = 0.0f;
#pragma unroll(UNROLLED<D> / 2)
        for (int k = 0; k < D; k += 8) {
            const int at = k + 2 * place.quad;
            const float2 low = *(const float2*)(left.row[0] + at), high = *(const float2*)(left.row[1] + at);
            const u32 a[4] = {tf32(low.x), tf32(high.x), tf32(low.y), tf32(high.y)};
#pragma unroll
            for (int j = 0; j < EIGHTS; ++j) {
                const uint2 b = *(const uint2*)&right.row[8 * j + place.row][at];
                multiply_tf32(out[j], a, b.x, b.y);
            }
        }
    }

    // sums += weights · right over `count` rows of the tile.
    template <int D>
    static DEVICE void add_mixed(float (&sums)[D / 8][4], const float (&weights)[EIGHTS][4], const Tile<D>& right, int count, Staging&) {
        const Place place;
#pragma unroll
        for (int k = 0; k < EIGHTS; ++k) {
            if (8 * k >= count) break;
            const u32 a[4] = {tf32(weights[k][0]), tf32(weights[k][2]), tf32(weights[k][1]), tf32(weights[k][3])};
            const int row = 8 * k + 2 * place.quad;
#pragma unroll
            for (int j = 0; j < D / 8; ++j) {
                const int column = 8 * j + place.row;
                multiply_tf32(sums[j], a, right.row[row][column], right.row[row + 1][column]);
            }
        }
    }
};

template <class Format>
struct Halves : Tensor {
    template <int D>
    struct Tile {
        alignas(16) u32 row[TILE][D / 2 + PAD];
    };

    template <int D>
    static DEVICE void store(Tile<D>& tile, int row, int column, float4 x) {
        *(uint2*)&tile.row[row][column / 2] = make_uint2(Format::pair(x.x, x.y), Format::pair(x.z, x.w));
    }

    // out = left · rightᵀ: 16 rows by the tile's 32.
    template <int D>
    static DEVICE void by_rows(float (&out)[EIGHTS][4], const Rows& left, const Tile<D>& right, int) {
        const Place place;
#pragma unroll
        for (int j = 0; j < EIGHTS; ++j) out[j][0] = out[j][1] = out[j][2] = out[j][3] = 0.0f;
#pragma unroll(UNROLLED<D>)
        for (int k = 0; k < D; k += 16) {
            const int at = k + 4 * place.quad;
            const float4 low = *(const float4*)(left.row[0] + at), high = *(const float4*)(left.row[1] + at);
            const u32 a[4] = {
                Format::pair(low.x, low.y), Format::pair(high.x, high.y), Format::pair(low.z, low.w), Format::pair(high.z, high.w)
            };
#pragma unroll
            for (int j = 0; j < EIGHTS; ++j) {
                const uint2 b = *(const uint2*)&right.row[8 * j + place.row][at / 2];
                Format::multiply(out[j], a, b.x, b.y);
            }
        }
    }

    // sums += weights · right over `count` rows of the tile.
    template <int D>
    static DEVICE void add_mixed(float (&sums)[D / 8][4], const float (&weights)[EIGHTS][4], const Tile<D>& right, int count, Staging&) {
        const int lane = Place().lane;
#pragma unroll
        for (int k = 0; k < EIGHTS; k += 2) {
            if (8 * k >= count) break;
            const u32 a[4] = {
                Format::pair(weights[k][0], weights[k][1]), Format::pair(weights[k][2], weights[k][3]),
                Format::pair(weights[k + 1][0], weights[k + 1][1]), Format::pair(weights[k + 1][2], weights[k + 1][3])
            };
#pragma unroll
            for (int j = 0; j < D / 8; j += 2) {
                u32 b[4];
                load_across(b, &right.row[8 * k + lane % 16][4 * (j + lane / 16)]);
                Format::multiply(sums[j], a, b[0], b[1]);
                Format::multiply(sums[j + 1], a, b[2], b[3]);
            }
        }
    }
};

struct Bf16Format {
    static DEVICE u32 pair(float x, float y) { return bf16_pair(x, y); }
    static DEVICE void multiply(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) { multiply_bf16(sums, a, b0, b1); }
};

struct Fp16Format {
    static DEVICE u32 pair(float x, float y) { return fp16_pair(x, y); }
    static DEVICE void multiply(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) { multiply_fp16(sums, a, b0, b1); }
};

typedef Halves<Bf16Format> Bf16;
typedef Halves<Fp16Format> Fp16;

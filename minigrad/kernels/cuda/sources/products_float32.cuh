// The products of attention in float32 by fused multiply-adds: full float32 accuracy, on every GPU.
#pragma once
#include "attention_tiles.cuh"

struct Float32 : FloatStorage, SumsByRow {
    // A left operand stays in global memory: the first-level cache holds it between tiles. A second stage would leave little of that cache.
    template <int D>
    using Left = Rows<float>;

    template <int D>
    static constexpr int STAGES = 1;

    template <int D>
    struct Tile {
        static constexpr int WIDTH = D + PAD;
        alignas(16) float row[TILE][WIDTH];

        DEVICE float* at(int r, int column) { return &row[r][column]; }
    };

    // Weights being converted to a left operand, 16 rows per warp.
    struct Staging {
        alignas(16) float row[WARPS][16][TILE + PAD];
    };

    template <int D>
    static DEVICE float dot(const float* a, const float* b) {
        return dot_of<D>(a, b, [](const float4& x) { return x; });
    }

    static DEVICE void multiply(float& sum, const float4& a, const float4& b) {
        sum = fmaf(a.x, b.x, sum);
        sum = fmaf(a.y, b.y, sum);
        sum = fmaf(a.z, b.z, sum);
        sum = fmaf(a.w, b.w, sum);
    }

    // out = left · rightᵀ: 16 rows by 8 N rows of the tile, from `begin` to `count`. Every lane reads its own rows and columns; quads, and
    // lanes with the same columns, share words.
    template <int D, int N>
    static DEVICE void by_rows(float (&out)[N][4], const Left<D>& left, const Tile<D>& right, int begin, int count) {
        const Place place;
#pragma unroll
        for (int j = 0; j < N; ++j) out[j][0] = out[j][1] = out[j][2] = out[j][3] = 0.0f;
#pragma unroll(UNROLLED<D> / 2)
        for (int k = 0; k < D; k += 4) {
            const float4 low = *(const float4*)(left.row[0] + k), high = *(const float4*)(left.row[1] + k);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                const int row = begin + 8 * j;
                if (row >= count) break;
                const float4 even = *(const float4*)&right.row[row + 2 * place.quad][k];
                const float4 odd = *(const float4*)&right.row[row + 2 * place.quad + 1][k];
                multiply(out[j][0], low, even);
                multiply(out[j][1], low, odd);
                multiply(out[j][2], high, even);
                multiply(out[j][3], high, odd);
            }
        }
    }

    // sums += weights · right, over 8 N rows of the tile, from `begin` to `count`. The weights of a row lie in four lanes, so they go
    // through shared memory.
    template <int D, int N>
    static DEVICE void add_mixed(
        float (&sums)[D / 8][4], const float (&weights)[N][4], const Tile<D>& right, int begin, int count, Staging& staging
    ) {
        const Place place;
        float(&staged)[16][TILE + PAD] = staging.row[place.warp];
        __syncwarp();  // the previous product has read its staged weights
#pragma unroll
        for (int j = 0; j < N; ++j) {
            *(float2*)&staged[place.row][8 * j + 2 * place.quad] = make_float2(weights[j][0], weights[j][1]);
            *(float2*)&staged[place.row + 8][8 * j + 2 * place.quad] = make_float2(weights[j][2], weights[j][3]);
        }
        __syncwarp();
#pragma unroll(UNROLLED<D> / 2)
        for (int k = 0; k < min(8 * N, count - begin); ++k) {
            const float low = staged[place.row][k], high = staged[place.row + 8][k];
#pragma unroll
            for (int j = 0; j < D / 8; j += 2) {
                const float4 x = *(const float4*)&right.row[begin + k][pair_column(j)];
                sums[j][0] = fmaf(low, x.x, sums[j][0]);
                sums[j][1] = fmaf(low, x.y, sums[j][1]);
                sums[j][2] = fmaf(high, x.x, sums[j][2]);
                sums[j][3] = fmaf(high, x.y, sums[j][3]);
                sums[j + 1][0] = fmaf(low, x.z, sums[j + 1][0]);
                sums[j + 1][1] = fmaf(low, x.w, sums[j + 1][1]);
                sums[j + 1][2] = fmaf(high, x.z, sums[j + 1][2]);
                sums[j + 1][3] = fmaf(high, x.w, sums[j + 1][3]);
            }
        }
    }

    // The first of the two columns that sums[j] holds. A lane has four neighbouring columns, so that it reads 16 bytes at a time.
    static DEVICE int pair_column(int j) { return 16 * (j / 2) + 4 * Place().quad + 2 * (j % 2); }

    // array ← sums, for this warp's rows from `first` on; `rows` is the number of rows in all.
    template <int N, class Tiles, class Offset>
    static DEVICE void write(Tiles&, float* array, const float (&sums)[N][4], int first, int rows, Offset offset) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = first + Place().row + 8 * half;
            if (row >= rows) continue;
            float* const out = array + offset(row);
#pragma unroll
            for (int j = 0; j < N; j += 2)
                *(float4*)(out + pair_column(j)) =
                    make_float4(sums[j][2 * half], sums[j][2 * half + 1], sums[j + 1][2 * half], sums[j + 1][2 * half + 1]);
        }
    }
};

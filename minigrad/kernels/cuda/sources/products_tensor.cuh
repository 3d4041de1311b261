// The products of attention on tensor cores: operands in tf32, bfloat16 or float16, sums in float32.
//
// Weights are a left operand where they lie: a lane holds in its sums the very rows. In tf32 it chooses which places of the common axis are
// whose, as long as both operands agree: neighbours in memory, two at a time.
#pragma once
#include "attention_tiles.cuh"
#include "storage.cuh"

struct Tf32 : FloatStorage<Tf32> {
    struct Staging {};  // weights need not pass through shared memory

    static DEVICE int pair_column(int j) { return 8 * j + 2 * Place().quad; }

    template <int D>
    struct Tile {
        alignas(16) u32 row[TILE][D + PAD];
    };

    template <int D>
    static DEVICE void bring(Tile<D>& tile, const float* from, i64 stride, int count) {
        each_four<D>(from, stride, count, [&](int row, int column, float4 x) {
            *(uint4*)&tile.row[row][column] = make_uint4(tf32(x.x), tf32(x.y), tf32(x.z), tf32(x.w));
        });
    }

    // out = left · rightᵀ: 16 rows by 8 N of the tile's, from `begin` on.
    template <int D, int N>
    static DEVICE void by_rows(float (&out)[N][4], const Left<D>& left, const Tile<D>& right, int begin, int) {
        const Place place;
#pragma unroll
        for (int j = 0; j < N; ++j) out[j][0] = out[j][1] = out[j][2] = out[j][3] = 0.0f;
#pragma unroll(UNROLLED<D> / 2)
        for (int k = 0; k < D; k += 8) {
            const int at = k + 2 * place.quad;
            const float2 low = *(const float2*)(left.row[0] + at), high = *(const float2*)(left.row[1] + at);
            const u32 a[4] = {tf32(low.x), tf32(high.x), tf32(low.y), tf32(high.y)};
#pragma unroll
            for (int j = 0; j < N; ++j) {
                const uint2 b = *(const uint2*)&right.row[begin + 8 * j + place.row][at];
                multiply_tf32(out[j], a, b.x, b.y);
            }
        }
    }

    // sums += weights · right, over 8 N rows of the tile, from `begin` to `count`.
    template <int D, int N>
    static DEVICE void add_mixed(
        float (&sums)[D / 8][4], const float (&weights)[N][4], const Tile<D>& right, int begin, int count, Staging&
    ) {
        const Place place;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const int row = begin + 8 * k + 2 * place.quad;
            if (begin + 8 * k >= count) break;
            const u32 a[4] = {tf32(weights[k][0]), tf32(weights[k][2]), tf32(weights[k][1]), tf32(weights[k][3])};
#pragma unroll
            for (int j = 0; j < D / 8; ++j) {
                const int column = 8 * j + place.row;
                multiply_tf32(sums[j], a, right.row[row][column], right.row[row + 1][column]);
            }
        }
    }
};

DEVICE void multiply(bf16, float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) { multiply_bf16(sums, a, b0, b1); }
DEVICE void multiply(fp16, float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) { multiply_fp16(sums, a, b0, b1); }

// Two bytes a number, in global and in shared memory. A left operand is held in registers.
template <class Short>
struct Halves {
    typedef Short Storage;
    struct Staging {};
    static constexpr int STAGES = 2;

    // Rows in shared memory begin four banks after one another: eight of them are read at once.
    template <int D>
    struct Tile {
        alignas(16) u32 row[TILE][D / 2 + PAD];
    };

    template <int D>
    struct Left {
        u32 pairs[D / 16][4];

        DEVICE Left(const Rows<Short>& rows) {
#pragma unroll
            for (int k = 0; k < D / 16; ++k)
#pragma unroll
                for (int i = 0; i < 4; ++i) pairs[k][i] = *(const u32*)(rows.row[i % 2] + 16 * k + 8 * (i / 2) + 2 * Place().quad);
        }
    };

    template <int D>
    static DEVICE void bring(Tile<D>& tile, const Short* from, i64 stride, int count) {
        constexpr int STEP = THREADS * 8 / D;
        const int row = threadIdx.x / (D / 8), column = threadIdx.x % (D / 8) * 8;
        from += row * stride + column;
#pragma unroll
        for (int i = 0; i < TILE; i += STEP) copy_16(&tile.row[row + i][column / 2], from + i * stride, row + i < count);
    }

    // A lane's quarter of the product of two rows.
    template <int D>
    static DEVICE float dot(const Short* a, const Short* b) {
        float sum = 0.0f;
#pragma unroll
        for (int column = 8 * Place().quad; column < D; column += 32) {
            const uint4 x = *(const uint4*)(a + column), y = *(const uint4*)(b + column);
            sum += pair_dot(x.x, y.x) + pair_dot(x.y, y.y) + pair_dot(x.z, y.z) + pair_dot(x.w, y.w);
        }
        return sum;
    }

    static DEVICE float pair_dot(u32 a, u32 b) {
        const float2 x = Short::numbers(a), y = Short::numbers(b);
        return fmaf(x.x, y.x, x.y * y.y);
    }

    // array ← sums · factor, for this warp's rows from `first` on, of which there are `rows` in all. They change places in the tiles, which
    // nobody uses any more and of which each warp takes sixteen rows, so that a lane writes 16 bytes at a time.
    template <int D, class Offset>
    static DEVICE void write(
        Tile<D> (&tiles)[STAGES], Short* array, const float (&sums)[D / 8][4], const float (&factor)[2], int first, int rows, Offset offset
    ) {
        static_assert(STAGES * TILE == PIECE, "sixteen rows for each warp");
        const Place place;
        u32(*const own)[D / 2 + PAD] = tiles[place.warp / 2].row + 16 * (place.warp % 2);
#pragma unroll
        for (int j = 0; j < D / 8; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const float x = sums[j][2 * half] * factor[half], y = sums[j][2 * half + 1] * factor[half];
                own[place.row + 8 * half][4 * j + place.quad] = Short::pair(x, y);
            }
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 16; i += WARP * 8 / D) {
            const int row = i + place.lane / (D / 8), column = place.lane % (D / 8) * 8;
            if (first + row < rows) *(uint4*)(array + offset(first + row) + column) = *(const uint4*)&own[row][column / 2];
        }
    }

    // out = left · rightᵀ: 16 rows by 8 N of the tile's, from `begin` on.
    template <int D, int N>
    static DEVICE void by_rows(float (&out)[N][4], const Left<D>& left, const Tile<D>& right, int begin, int) {
        const int lane = Place().lane;
#pragma unroll
        for (int j = 0; j < N; ++j) out[j][0] = out[j][1] = out[j][2] = out[j][3] = 0.0f;
#pragma unroll
        for (int k = 0; k < D / 16; ++k)
#pragma unroll
            for (int j = 0; j < N; j += 2) {
                u32 b[4];
                load_along(b, &right.row[begin + 8 * (j + lane / 16) + lane % 8][8 * k + 4 * (lane / 8 % 2)]);
                multiply(Short{}, out[j], left.pairs[k], b[0], b[1]);
                multiply(Short{}, out[j + 1], left.pairs[k], b[2], b[3]);
            }
    }

    // sums += weights · right, over 8 N rows of the tile, from `begin` to `count`.
    template <int D, int N>
    static DEVICE void add_mixed(
        float (&sums)[D / 8][4], const float (&weights)[N][4], const Tile<D>& right, int begin, int count, Staging&
    ) {
        const int lane = Place().lane;
#pragma unroll
        for (int k = 0; k < N; k += 2) {
            if (begin + 8 * k >= count) break;
            const u32 a[4] = {
                Short::pair(weights[k][0], weights[k][1]), Short::pair(weights[k][2], weights[k][3]),
                Short::pair(weights[k + 1][0], weights[k + 1][1]), Short::pair(weights[k + 1][2], weights[k + 1][3])
            };
#pragma unroll
            for (int j = 0; j < D / 8; j += 2) {
                u32 b[4];
                load_across(b, &right.row[begin + 8 * k + lane % 16][4 * (j + lane / 16)]);
                multiply(Short{}, sums[j], a, b[0], b[1]);
                multiply(Short{}, sums[j + 1], a, b[2], b[3]);
            }
        }
    }
};

typedef Halves<bf16> Bf16;
typedef Halves<fp16> Fp16;

// The products of attention on tensor cores: operands in tf32, bfloat16 or float16, sums in float32.
//
// Weights are used as an operand without moving between lanes: a lane's sums hold the very rows that it needs. In tf32 a lane chooses which
// positions of the common axis are its own, as long as both operands agree: neighbours in memory.
#pragma once
#include "attention_tiles.cuh"
#include "storage.cuh"

// Tiles are copied unrounded, and each thread rounds what it has loaded: once, not at every use.
struct Tf32 : FloatStorage {
    struct Staging {};  // weights need not pass through shared memory

    // Left operands take registers that other kinds use for more columns at a time.
    static constexpr bool SPARING = true;

    // Two stages of a head of size 128 would exceed 48 KiB.
    template <int D>
    static constexpr int STAGES = D < 128 ? 2 : 1;

    // In `by_rows` eight lanes read 16 words of two rows at once; in `add_mixed` sixteen lanes read 8 words of every other of eight rows.
    // To put all of these in different banks takes 12 words after each row, and odd rows that begin 4 words later.
    template <int D>
    struct Tile {
        static constexpr int WIDTH = D + 12;
        alignas(16) float words[TILE * WIDTH];

        DEVICE float* at(int row, int column) { return words + row * WIDTH + row % 2 * 4 + column; }
        DEVICE const float* at(int row, int column) const { return words + row * WIDTH + row % 2 * 4 + column; }
    };

    static DEVICE float rounded(float x) { return __uint_as_float(tf32(x)); }
    static DEVICE float4 rounded(const float4& x) { return make_float4(rounded(x.x), rounded(x.y), rounded(x.z), rounded(x.w)); }

    template <int D>
    static DEVICE float dot(const float* a, const float* b) {
        return dot_of<D>(a, b, [](const float4& x) { return rounded(x); });
    }

    // Rounds in place what this thread has loaded.
    template <int D>
    static DEVICE void round(Tile<D> (&tiles)[2]) {
        const auto in_place = [](int, float4& four) { four = rounded(four); };
        each_four(tiles[0], in_place);
        each_four(tiles[1], in_place);
    }

    // Of each sixteen columns of its two rows a lane reads columns 4 quad … 4 quad + 3. They are rounded once and held in registers or, if
    // these do not suffice, read and rounded at every use.
    template <int D, bool HELD = D < 128>
    struct Left {
        float4 held[D / 16][2];

        DEVICE Left(const Rows<float>& rows) {
#pragma unroll
            for (int k = 0; k < D / 16; ++k)
#pragma unroll
                for (int half = 0; half < 2; ++half) held[k][half] = Left<D, false>(rows).four(k, half);
        }

        DEVICE float4 four(int k, int half) const { return held[k][half]; }
    };

    template <int D>
    struct Left<D, false> : Rows<float> {
        DEVICE Left(const Rows<float>& rows) : Rows<float>(rows) {}

        DEVICE float4 four(int k, int half) const { return rounded(*(const float4*)(row[half] + 16 * k + 4 * Place().quad)); }
    };

    static DEVICE void multiply(float (&sums)[4], float a0, float a1, float a2, float a3, float b0, float b1) {
        const u32 a[4] = {__float_as_uint(a0), __float_as_uint(a1), __float_as_uint(a2), __float_as_uint(a3)};
        multiply_tf32(sums, a, __float_as_uint(b0), __float_as_uint(b1));
    }

    // out = left · rightᵀ: 16 rows by 8 N rows of the tile, from `begin` on.
    template <int D, int N>
    static DEVICE void by_rows(float (&out)[N][4], const Left<D>& left, const Tile<D>& right, int begin, int) {
        const float* const own = right.at(Place().row, 4 * Place().quad) + begin * Tile<D>::WIDTH;
#pragma unroll
        for (int j = 0; j < N; ++j) out[j][0] = out[j][1] = out[j][2] = out[j][3] = 0.0f;
#pragma unroll(D < 128 ? D / 16 : 1)  // registers have no addresses: the loop must be unrolled
        for (int k = 0; k < D / 16; ++k) {
            const float4 low = left.four(k, 0), high = left.four(k, 1);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                const float4 b = *(const float4*)(own + 8 * j * Tile<D>::WIDTH + 16 * k);
                multiply(out[j], low.x, high.x, low.y, high.y, b.x, b.y);
                multiply(out[j], low.z, high.z, low.w, high.w, b.z, b.w);
            }
        }
    }

    // sums += weights · right, over 8 N rows of the tile, from `begin` on; those from `count` on, which is larger, are zeros. It is computed
    // as rightᵀ · weightsᵀ, so that the left operand is read from rows of the tile, two neighbours at a time, and serves two products:
    // sums[j][i] belongs to column 8 (j - j % 2) + 2 (lane / 4) + i / 2 and to the warp's row 8 (j % 2) + 2 quad + i % 2.
    template <int D, int N>
    static DEVICE void add_mixed(
        float (&sums)[D / 8][4], const float (&weights)[N][4], const Tile<D>& right, int begin, int count, Staging&
    ) {
        const float* const own = right.at(2 * Place().quad, 2 * Place().row) + begin * Tile<D>::WIDTH;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            if (k > 0 && k % 2 == 0 && begin + 8 * k >= count) break;
            float b[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) b[i] = rounded(weights[k][i]);
#pragma unroll
            for (int j = 0; j < D / 8; j += 2) {
                const float* const from = own + 8 * k * Tile<D>::WIDTH + 8 * j;
                const float2 even = *(const float2*)from, odd = *(const float2*)(from + Tile<D>::WIDTH + 4);
                multiply(sums[j], even.x, even.y, odd.x, odd.y, b[0], b[1]);
                multiply(sums[j + 1], even.x, even.y, odd.x, odd.y, b[2], b[3]);
            }
        }
    }

    // sums ← sums · factor of each row
    template <int N>
    static DEVICE void scale(float (&sums)[N][4], const float (&factor)[2]) {
        float of_column[2][2];
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int side = 0; side < 2; ++side) of_column[half][side] = __shfl_sync(ALL, factor[half], 8 * Place().quad + 4 * side);
#pragma unroll
        for (int j = 0; j < N; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[j][i] *= of_column[j % 2][i % 2];
    }

    // array ← sums, for this warp's rows from `first` on; `rows` is the number of rows in all.
    template <int N, class Tiles, class Offset>
    static DEVICE void write(Tiles&, float* array, const float (&sums)[N][4], int first, int rows, Offset offset) {
        const Place place;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = first + 8 * (i / 2) + 2 * place.quad + i % 2;
            if (row >= rows) continue;
            float* const out = array + offset(row) + 2 * place.row;
#pragma unroll
            for (int j = i / 2; j < N; j += 2) *(float2*)(out + 8 * (j - i / 2)) = make_float2(sums[j][i % 2], sums[j][i % 2 + 2]);
        }
    }
};

DEVICE void multiply(bf16, float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) { multiply_bf16(sums, a, b0, b1); }
DEVICE void multiply(fp16, float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) { multiply_fp16(sums, a, b0, b1); }

// Operands of two bytes a number, in global and in shared memory. A left operand is held in registers.
template <class Short>
struct Halves : SumsByRow {
    typedef Short Storage;
    struct Staging {};
    template <int D>
    static constexpr int STAGES = 2;

    // Successive rows in shared memory begin four banks apart: eight of them are read at once.
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
    static DEVICE void bring(Tile<D>& tile, const Short* from, int stride, int count) {
        constexpr int STEP = THREADS * 8 / D;
        const int row = threadIdx.x / (D / 8), column = threadIdx.x % (D / 8) * 8;
        from += (i64)row * stride + column;
#pragma unroll
        for (int i = 0; i < TILE; i += STEP) copy_16(&tile.row[row + i][column / 2], from + (i64)i * stride, row + i < count);
    }

    // A lane's quarter of the dot product of two rows.
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

    // array ← sums, for this warp's rows from `first` on; `rows` is the number of rows in all. They are rearranged through the tiles, which
    // nobody uses any more and of which each warp takes sixteen rows, so that a lane writes 16 bytes at a time.
    template <int D, class Offset>
    static DEVICE void write(
        Tile<D> (&tiles)[2], Short* array, const float (&sums)[D / 8][4], int first, int rows, Offset offset
    ) {
        static_assert(2 * TILE == PIECE, "sixteen rows for each warp");
        const Place place;
        u32(*const own)[D / 2 + PAD] = tiles[place.warp / 2].row + 16 * (place.warp % 2);
#pragma unroll
        for (int j = 0; j < D / 8; ++j)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                own[place.row + 8 * half][4 * j + place.quad] = Short::pair(sums[j][2 * half], sums[j][2 * half + 1]);
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 16; i += WARP * 8 / D) {
            const int row = i + place.lane / (D / 8), column = place.lane % (D / 8) * 8;
            if (first + row < rows) *(uint4*)(array + offset(first + row) + column) = *(const uint4*)&own[row][column / 2];
        }
    }

    // out = left · rightᵀ: 16 rows by 8 N rows of the tile, from `begin` on.
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

    // sums += weights · right, over 8 N rows of the tile, from `begin` on; those from `count` on, which is larger, are zeros.
    template <int D, int N>
    static DEVICE void add_mixed(
        float (&sums)[D / 8][4], const float (&weights)[N][4], const Tile<D>& right, int begin, int count, Staging&
    ) {
        const int lane = Place().lane;
#pragma unroll
        for (int k = 0; k < N; k += 2) {
            if (k > 0 && begin + 8 * k >= count) break;
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

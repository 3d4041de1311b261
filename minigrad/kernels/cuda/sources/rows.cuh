// Shared by kernels with eight warps per block, mostly one per row: the row of a warp, and which of its numbers survive dropout.
#pragma once
#include "storage.cuh"

constexpr int WARPS = 8;  // warps per block

DEVICE i64 row_of_warp() { return (i64)blockIdx.x * WARPS + threadIdx.x / WARP; }

// A row's position for dropout: row r of a sequence owns the blocks from r * ceil(width / 16) on.
struct RowDraw {
    Draw draw;
    u64 sequence, first_block;
    bool drops;

    // places: sequence number and position in the sequence of each row; null without dropout.
    DEVICE RowDraw(const int2* places, const Draw& draw, i64 row, int width) : draw(draw), sequence(0), first_block(0), drops(places) {
        if (drops) {
            sequence = places[row].x;
            first_block = (u64)places[row].y * ((width + UNITS - 1) / UNITS);
        }
    }
};

// Which of this lane's numbers survive in N chunks of a row from `chunk` on, four bits each: all if nothing is dropped.
template <int N>
DEVICE u32 draw_chunks(const RowDraw& row, int chunk) {
    if (!row.drops) return ~0u;
    const int lane = threadIdx.x % WARP;
    u32 kept = 0;
#pragma unroll 1
    for (int first = 0; first < N; first += 4) {
        // Each lane draws one of the 32 blocks of four chunks; groups of four lanes share a block of every chunk.
        const u32 drawn = survivors(row.draw, row.sequence, row.first_block + (chunk + first + lane % 4) * (CHUNK / UNITS) + lane / 4);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const u32 of_block = __shfl_sync(ALL, drawn, (lane & ~3) | i);
            kept |= (of_block >> (LANES * (lane % 4)) & 0xF) << (LANES * (first + i));
        }
    }
    return kept;
}

// The factors of this lane's four numbers in the i-th of these chunks.
DEVICE float4 factors(const RowDraw& row, u32 kept, int i) {
    const u32 bits = kept >> (LANES * i);
    const float scale = row.draw.scale;
    return make_float4(bits & 1 ? scale : 0.0f, bits & 2 ? scale : 0.0f, bits & 4 ? scale : 0.0f, bits & 8 ? scale : 0.0f);
}

// out = dropout(x), or x if nothing is dropped (places null and `scale` 1); out may be x.
DEVICE void drop_rows(const float* x, float* out, const Rounded& rounded, i64 rows, int width, const int2* places, const Draw& draw) {
    const i64 row = row_of_warp();
    if (row >= rows) return;
    const RowDraw drawing(places, draw, row, width);
    const bool w = wide(x, width) && wide(out, width) && rounded.is_wide(width);
    for (int chunk = 0; chunk * CHUNK < width; chunk += 4) {
        const u32 kept = draw_chunks<4>(drawing, chunk);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int at = (chunk + i) * CHUNK + threadIdx.x % WARP * LANES;
            const float4 found = load4(x + row * width, at, width, w) * factors(drawing, kept, i);
            store4(out + row * width, at, width, w, found);
            rounded.store(row * width, at, width, w, found);
        }
    }
}

// The kernels of rows.cuh and strips.cuh for rows that lie in memory as float32, and dropout by itself.
#include "storage.cuh"

using Storage = float;
#define KERNEL(name) extern "C" __global__ void __launch_bounds__(256) name##_float32
#include "rows.cuh"
#include "strips.cuh"

// out = dropout(x); out may be x.
extern "C" __global__ void __launch_bounds__(256)
    drop(const float* x, float* out, i64 rows, int width, const int2* places, const u64* clock, u64 seed, u64 site, u64 step, u32 threshold,
         float scale) {
    const i64 row = row_of_warp();
    if (row >= rows) return;
    const RowDraw drawing(places, draw_at(seed, site, step, clock, threshold, scale), row, width);
    const bool w = wide(x, width) && wide(out, width);
    for (int chunk = 0; chunk * CHUNK < width; chunk += 4) {
        const u32 drawn = draw_chunks(drawing, chunk);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int at = (chunk + i) * CHUNK + threadIdx.x % WARP * LANES;
            const float4 kept = factors(drawing, drawn, i);
            store4(out + row * width, at, width, w, load4(x + row * width, at, width, w) * kept);
        }
    }
}

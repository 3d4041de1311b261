// The start of an encoder in one launch: the sum of rows of up to three tables, layer normalisation and dropout; and the backward pass as
// far as the gradient of that sum.
//
// The steps are those of rows.cuh and layer_norm.cuh, or similar ones. They pass rows on through memory, which is still in the cache. All
// of them divide a row among the lanes of its warp in the same way, so that a lane only reads what it wrote itself, and no synchronisation
// is needed.
#include "storage.cuh"

using Storage = float;
#define KERNEL(name, blocks) DEVICE void name
#include "layer_norm.cuh"

constexpr int TABLES = 3;

struct Table {
    const float* rows;  // null: no such table
    const i64* ids;
    i64 height, untrained;
};

// out = the sum of one row of each table, NaN for an id outside it. trained, unless null: the ids, with -1 in place of `untrained`. Shapes:
// trained (tables, rows).
DEVICE void add_tables(const Table (&tables)[TABLES], i64* trained, float* out, i64 rows, int width) {
    const i64 row = row_of_warp();
    if (row >= rows) return;
    const float* start[TABLES];  // of the rows to read
    bool w = wide(out, width);
#pragma unroll
    for (int i = 0; i < TABLES; ++i) {
        if (!tables[i].rows) continue;
        const i64 id = tables[i].ids[row];
        start[i] = 0 <= id && id < tables[i].height ? tables[i].rows + id * width : nullptr;
        if (trained && threadIdx.x % WARP == 0) trained[i * rows + row] = id == tables[i].untrained ? -1 : id;
        w = w && wide(tables[i].rows, width);
    }
#pragma unroll 2
    for (int at = threadIdx.x % WARP * LANES; at < width; at += CHUNK) {
        float4 sum = make_float4(0.0f);
#pragma unroll
        for (int i = 0; i < TABLES; ++i)
            if (tables[i].rows) sum = sum + (start[i] ? load4(start[i], at, width, w) : make_float4(not_a_number()));
        store4(out + row * width, at, width, w, sum);
    }
}

// out = dropout(x̂ · gamma + beta), where x̂ are the normalised sums of one row of each table; missing tables are null. Saved for the
// backward pass unless null: trained, as in `add_tables`, x̂, and rstd = 1/σ of each row. Nothing is dropped if places is null and `scale`
// 1. Shapes: tables (height, width), ids (rows,), trained (tables, rows).
extern "C" __global__ void __launch_bounds__(256, 3)
    embed_norm(const float* table1, const float* table2, const float* table3, const i64* ids1, const i64* ids2, const i64* ids3, i64 height1,
               i64 height2, i64 height3, i64 untrained1, i64 untrained2, i64 untrained3, const float* gamma, const float* beta, float* out,
               ROUNDED, i64* trained, float* xhat, float* rstd, i64 rows, int width, float eps, const int2* places, RECIPE) {
    const Table tables[TABLES] = {
        {table1, ids1, height1, untrained1}, {table2, ids2, height2, untrained2}, {table3, ids3, height3, untrained3}};
    float* sums = xhat ? xhat : out;
    add_tables(tables, trained, sums, rows, width);
    add_norm(sums, nullptr, nullptr, gamma, beta, out, nullptr, xhat, rstd, rows, width, eps, nullptr, nullptr, 0, 0, 0, 0, 1.0f);
    if (places || rounded_bf16 || rounded_fp16) drop_rows(out, out, ROUNDED_ROWS, rows, width, places, RECIPE_DRAW);
}

// gx = the gradient of the sums before normalisation, from that of dropout's result. dropped: that of dropout's input, or null without
// dropout.
extern "C" __global__ void __launch_bounds__(256, 3)
    embed_norm_pullback(const float* g, const float* gamma, const float* xhat, const float* rstd, float* gx, float* dropped, i64 rows,
                        int width, const int2* places, RECIPE) {
    if (dropped) {
        drop_rows(g, dropped, {nullptr, nullptr}, rows, width, places, RECIPE_DRAW);
        __syncthreads();  // `add_norm_pullback` copies g asynchronously, not ordered with this thread's own writes
        g = dropped;
    }
    add_norm_pullback(g, gamma, xhat, rstd, gx, nullptr, rows, width, nullptr, nullptr, 0, 0, 0, 0, 1.0f);
}

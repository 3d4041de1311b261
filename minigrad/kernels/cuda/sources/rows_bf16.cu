// The kernels of rows.cuh and strips.cuh for rows that lie in memory as bf16.
#include "storage.cuh"

using Storage = bf16;
#define KERNEL(name) extern "C" __global__ void __launch_bounds__(256) name##_bf16
#include "rows.cuh"
#include "strips.cuh"

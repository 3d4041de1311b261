// The kernels of layer_norm.cuh and strips.cuh for rows stored as bf16.
#include "storage.cuh"

using Storage = bf16;
#define KERNEL(name, blocks) extern "C" __global__ void __launch_bounds__(256, blocks) name##_bf16
#include "layer_norm.cuh"
#include "strips.cuh"

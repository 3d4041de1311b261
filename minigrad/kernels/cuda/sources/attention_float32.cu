// Packed attention with float32 products.
#include "attention.cuh"
#include "products_float32.cuh"

ATTENTION_KERNELS(float32, Float32, 32)
ATTENTION_KERNELS(float32, Float32, 64)
ATTENTION_KERNELS(float32, Float32, 128)

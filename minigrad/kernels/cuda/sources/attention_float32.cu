// Packed attention whose products are float32.
#include "attention.cuh"
#include "products_float32.cuh"

ATTENTION_KERNELS(float32, Float32, 32)
ATTENTION_KERNELS(float32, Float32, 64)
ATTENTION_KERNELS(float32, Float32, 128)

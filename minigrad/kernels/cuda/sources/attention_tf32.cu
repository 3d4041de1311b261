// Packed attention with product operands in tf32.
#include "attention.cuh"
#include "products_tensor.cuh"

ATTENTION_KERNELS(tf32, Tf32, 32)
ATTENTION_KERNELS(tf32, Tf32, 64)
ATTENTION_KERNELS(tf32, Tf32, 128)

// Packed attention with product operands in bf16.
#include "attention.cuh"
#include "products_tensor.cuh"

ATTENTION_KERNELS(bf16, Bf16, 32)
ATTENTION_KERNELS(bf16, Bf16, 64)
ATTENTION_KERNELS(bf16, Bf16, 128)

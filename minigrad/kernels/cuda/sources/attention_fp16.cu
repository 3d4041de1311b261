// Packed attention with product operands in fp16.
#include "attention.cuh"
#include "products_tensor.cuh"

ATTENTION_KERNELS(fp16, Fp16, 32)
ATTENTION_KERNELS(fp16, Fp16, 64)
ATTENTION_KERNELS(fp16, Fp16, 128)

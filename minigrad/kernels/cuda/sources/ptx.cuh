// The instructions that only PTX offers: powers of two, conversion to the short formats and back, products of small matrices on tensor
// cores, loads of their operands from shared memory, and asynchronous copies to there. Each is one function, which the tests replace to run
// kernels on a CPU. Those that need Ampere (compute capability 8.0) have substitutes for earlier GPUs in turing.cuh.
//
// Lane l has g = l / 4 and c = l % 4. A product adds to 16 x 8 sums (rows g and g + 8, columns 2c and 2c + 1). Of the left operand a lane
// holds rows g and g + 8, of the right one column g; along their common axis, in tf32: c and c + 4 of 8; in halves: 2c, 2c + 1, 2c + 8, 2c
// + 9 of 16.
#pragma once
#include "warp.cuh"

#ifndef EMULATED
// 2^x as accurately as exp2f, in one instruction instead of four: results below 2^-126 are 0.
DEVICE float power_of_two(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}

DEVICE u32 tf32(float x) {
    u32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

// Two numbers in one register, the first in its lower half. Since Ampere it is a single instruction, in this form too.
DEVICE u32 fp16_pair(float x, float y) {
    u32 bits;
    asm("{.reg .f16 low, high; cvt.rn.f16.f32 low, %1; cvt.rn.f16.f32 high, %2; mov.b32 %0, {low, high};}"
        : "=r"(bits)
        : "f"(x), "f"(y));
    return bits;
}

// The two numbers of such a pair, as float32.
DEVICE float2 bf16_numbers(u32 pair) { return make_float2(__uint_as_float(pair << 16), __uint_as_float(pair & 0xFFFF0000u)); }

DEVICE float2 fp16_numbers(u32 pair) {
    float2 x;
    asm("{.reg .f16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high;}" : "=f"(x.x), "=f"(x.y) : "r"(pair));
    return x;
}

// volatile: all lanes must execute it together, so it must not be moved into a branch.
#define MULTIPLY(name, instruction)                                                                               \
    DEVICE void name(float(&sums)[4], const u32(&a)[4], u32 b0, u32 b1) {                                         \
        asm volatile(instruction " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                        \
            : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])                                          \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                      \
    }
MULTIPLY(multiply_tf32, "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32")
MULTIPLY(multiply_bf16, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32")

// Loads four matrices of 8 x 8 halves from shared memory; lane l passes the address of row l % 8 of matrix l / 8. A lane gets of each
// matrix columns 2c and 2c + 1 of row g, or rows 2c and 2c + 1 of column g.
#define LOAD(name, instruction)                                                          \
    DEVICE void name(u32(&pairs)[4], const void* row) {                                  \
        asm volatile(instruction " {%0, %1, %2, %3}, [%4];"                              \
                     : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])    \
                     : "r"((u32)__cvta_generic_to_shared(row))                           \
                     : "memory");                                                        \
    }
LOAD(load_along, "ldmatrix.sync.aligned.m8n8.x4.shared.b16")
LOAD(load_across, "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16")
#undef LOAD

#if __CUDA_ARCH__ >= 800
DEVICE u32 bf16_pair(float x, float y) {
    u32 bits;
    asm("cvt.rn.bf16x2.f32 %0, %2, %1;" : "=r"(bits) : "f"(x), "f"(y));
    return bits;
}

MULTIPLY(multiply_fp16, "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32")

// Copies 16 or 4 bytes from global to shared memory, or zeros unless `there`; both addresses are multiples of that. The copy is complete
// once this thread has awaited it, and visible to other threads after a barrier behind that.
#define COPY(name, instruction, bytes)                                                                          \
    DEVICE void name(void* to, const void* from, bool there) {                                                  \
        asm volatile(instruction " [%0], [%1], " #bytes ", %2;"                                                 \
                     :                                                                                          \
                     : "r"((u32)__cvta_generic_to_shared(to)), "l"(from), "r"(there ? bytes : 0)                \
                     : "memory");                                                                               \
    }
COPY(copy_16, "cp.async.cg.shared.global", 16)
COPY(copy_4, "cp.async.ca.shared.global", 4)
#undef COPY

DEVICE void await_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
#else
// As above, for 8 instead of 16 columns of the left operand.
DEVICE void multiply_fp16_of_8(float (&sums)[4], u32 a0, u32 a1, u32 b0) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a0), "r"(a1), "r"(b0));
}
#include "turing.cuh"
#endif
#undef MULTIPLY
#endif

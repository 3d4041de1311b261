// What ptx.cuh takes from Ampere, for earlier GPUs: Turing (compute capability 7.5) and, without tensor cores, Volta and Pascal.
#pragma once

DEVICE u32 bf16_bits(float x) {
    const u32 bits = __float_as_uint(x);
    return x == x ? (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16 : 0x7FFFu;
}

DEVICE u32 bf16_pair(float x, float y) { return bf16_bits(x) | bf16_bits(y) << 16; }

// Of the sixteen columns a lane holds those among the first eight in a[0], a[1] and b0.
DEVICE void multiply_fp16(float (&sums)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    multiply_fp16_of_8(sums, a[0], a[1], b0);
    multiply_fp16_of_8(sums, a[2], a[3], b1);
}

// There are no asynchronous copies: a copy is made when it is started.
DEVICE void copy_16(void* to, const void* from, bool there) { *(uint4*)to = there ? *(const uint4*)from : make_uint4(0, 0, 0, 0); }

DEVICE void copy_4(void* to, const void* from, bool there) { *(u32*)to = there ? *(const u32*)from : 0; }

DEVICE void await_copies() {}

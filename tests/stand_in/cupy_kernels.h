// Included before the sources of CuPy's own kernels: what they need besides the emulator.
#pragma once

#define __noinline__
#define CUDART_INF_F INFINITY

using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;

inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }

// The threads of a kernel run one after the other.
template <class T> T atomicAdd(T* place, T x) { return std::exchange(*place, *place + x); }
template <class T> T atomicMax(T* place, T x) { return std::exchange(*place, max(*place, x)); }
template <class T> T atomicMin(T* place, T x) { return std::exchange(*place, min(*place, x)); }

namespace stand_in {

template <class... A, size_t... I>
int call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    emulator::failure.clear();
    gridDim = blockDim = {1, 1, 1};
    blockIdx = threadIdx = {0, 0, 0};
    kernel(*(std::remove_const_t<std::remove_reference_t<A>>*)arguments[I]...);
    return 0;
}

template <class... A>
int call(void (*kernel)(A...), void** arguments) {
    return call(kernel, arguments, std::index_sequence_for<A...>());
}

}  // namespace stand_in

// As `EMULATE`, for kernels whose threads divide the elements by `CUPY_FOR`, whatever their number: a single thread is fastest.
#define RUN_BY_ONE_THREAD(name)                                                                                       \
    extern "C" int emulate_##name(const unsigned*, void** arguments) { return stand_in::call(name, arguments); } \
    extern "C" const int* parameters_of_##name() { return emulator::parameter_sizes(name); }

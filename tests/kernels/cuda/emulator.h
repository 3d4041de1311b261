// CUDA C++ on the CPU, as far as our kernels use it: a .cu file compiled with this header included first runs here, block after block.
//
// The threads of a block are coroutines. One that reaches a barrier or a warp operation waits there for the threads it must meet. A warp
// runs as far ahead of the others as barriers allow, and the order in which warps and threads run can be reversed: a missing barrier shows
// as a different result. Whatever would hang or be undefined on a GPU stops the run with a message: threads of a block at different
// barriers, a thread that has left while others wait for it, a warp operation that not all lanes of its mask reach, a misaligned access.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "races.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__
#define EMULATED
#define OWN __attribute__((section("emulator")))  // apart from the kernels' shared memory, which is all variables without a section

// ---------------------------------------------------------------- vector types
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

#define EMULATE_VECTORS(T, name)                                                               \
    struct __align__(2 * sizeof(T)) name##2 { T x, y; };                                       \
    struct __align__(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 { T x, y, z, w; };       \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                 \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATE_VECTORS(float, float)
EMULATE_VECTORS(int, int)
EMULATE_VECTORS(unsigned, uint)
#undef EMULATE_VECTORS

OWN inline dim3 threadIdx;
OWN inline dim3 blockIdx;
OWN inline dim3 blockDim;
OWN inline dim3 gridDim;

// ---------------------------------------------------------------- the scheduler
namespace emulator {

constexpr unsigned WARP = 32;
constexpr size_t STACK = 256 << 10;

enum class State { ready, at_barrier, at_warp, finished };

// An asynchronous copy to shared memory; `from` is null for zeros.
struct Copy {
    void* to;
    const void* from;
    size_t bytes;
};

struct Thread {
    jmp_buf place;       // where it resumes
    bool begun = false;  // whether `place` is valid
    std::unique_ptr<char[]> stack{new char[STACK]};
    dim3 index;
    State state = State::ready;
    int line = 0;                  // of the barrier or warp operation it waits at
    unsigned mask = 0;             // of the warp operation
    bool orders = false;           // whether the operation orders the lanes' memory accesses
    unsigned char value[64] = {};  // this lane's argument to it
    std::vector<Copy> copies;      // started and not yet awaited
};

OWN inline std::vector<Thread> threads;
OWN inline Thread* current = nullptr;
OWN inline jmp_buf scheduler;
OWN inline std::function<void()> body;
OWN inline std::string failure;
OWN inline bool backwards = false;
OWN inline std::string left_out;  // a barrier to be ignored: the end of its file's path, ":" and its line

inline void fail(const char* format, ...) {
    const races::Pause pause;
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (failure.empty()) failure = text;
}

// Switches to the scheduler until it resumes this thread, by jumps, because `swapcontext` queries the signal mask every time.
__attribute__((noinline)) inline void suspend() {
    if (!_setjmp(current->place)) _longjmp(scheduler, 1);
}

inline bool is_left_out(const char* file, int line) {
    const races::Pause pause;
    if (left_out.empty()) return false;
    const std::string place = std::string(file) + ":" + std::to_string(line);
    return place.size() >= left_out.size() && !place.compare(place.size() - left_out.size(), left_out.size(), left_out);
}

inline void wait(State state, int line, bool orders) {
    const races::Pause pause;
    current->state = state;
    current->line = line;
    current->orders = orders;
    suspend();
    threadIdx = current->index;
}

// The main function of a thread, for block after block.
inline void entry() {
    for (;;) {
        body();
        const races::Pause pause;
        current->state = State::finished;
        suspend();
    }
}

// Runs a thread until it waits or has finished.
__attribute__((noinline)) inline void resume(Thread& t) {
    if (_setjmp(scheduler)) {
        races::run(-1, nullptr, 0);
        return;
    }
    const int number = &t - threads.data();
    if (t.begun) {
        races::run(number, t.stack.get(), STACK);
        _longjmp(t.place, 1);
    }
    t.begun = true;
    ucontext_t start;
    getcontext(&start);
    start.uc_stack.ss_sp = t.stack.get();
    start.uc_stack.ss_size = STACK;
    makecontext(&start, entry, 0);
    races::run(number, t.stack.get(), STACK);
    setcontext(&start);
}

// The arguments of every lane of the mask, by lane, once all have arrived. The second wait keeps a fast lane from overwriting what others
// still read.
template <class T>
std::array<T, WARP> collect(unsigned mask, T value, int line) {
    static_assert(sizeof(T) <= sizeof Thread::value);
    const races::Pause pause;
    memcpy(current->value, &value, sizeof value);
    current->mask = mask;
    wait(State::at_warp, line, false);
    std::array<T, WARP> found{};
    const size_t base = (current - threads.data()) / WARP * WARP;
    for (unsigned lane = 0; lane < WARP && base + lane < threads.size(); ++lane)
        if (mask >> lane & 1) memcpy(&found[lane], threads[base + lane].value, sizeof value);
    wait(State::at_warp, line, false);
    return found;
}

inline unsigned lane() { return (current - threads.data()) % WARP; }

template <class T>
T from_lane(unsigned mask, T value, unsigned source, int line) {
    if (source >= WARP || !(mask >> source & 1)) fail("line %d: lane %u asks lane %u, which is not in the mask", line, lane(), source);
    return collect(mask, value, line)[source % WARP];
}

// Runs the ready threads of one warp in order.
inline void run_ready(size_t first, size_t past) {
    for (size_t i = first; i < past; ++i) {
        Thread& t = threads[backwards ? first + past - 1 - i : i];
        if (t.state != State::ready) continue;
        current = &t;
        threadIdx = t.index;
        resume(t);
    }
}

// Wakes the threads of one warp that have met for a warp operation; returns whether there were any.
inline bool wake_lanes(size_t first, size_t past) {
    bool woken = false;
    for (size_t me = first; me < past; ++me) {
        const Thread& t = threads[me];
        if (t.state != State::at_warp) continue;
        if (!(t.mask >> (me - first) & 1)) fail("line %d: lane %zu is not in its own mask", t.line, me - first);
        const unsigned mask = t.mask;
        const int line = t.line;
        bool complete = true;
        for (size_t i = first; i < past; ++i) {
            const Thread& other = threads[i];
            if (mask >> (i - first) & 1) complete = complete && other.state == State::at_warp && other.mask == mask && other.line == line;
        }
        for (size_t i = first; complete && i < past; ++i)
            if (mask >> (i - first) & 1) threads[i].state = State::ready;
        if (complete && t.orders) races::meet_in_warp(first / WARP, mask);
        woken = woken || complete;
    }
    return woken;
}

// Wakes all threads if all are at one barrier; any other state is an error.
inline void wake_block() {
    size_t waiting = 0, finished = 0;
    for (const Thread& t : threads) {
        waiting += t.state == State::at_barrier, finished += t.state == State::finished;
        if (t.state == State::at_warp) fail("a warp operation in line %d is not reached by all lanes of its mask", t.line);
    }
    if (waiting && finished) fail("%zu threads wait at a barrier that %zu have left without", waiting, finished);
    races::meet_at_barrier();
    for (Thread& t : threads) {
        if (t.line != threads[0].line) fail("threads of one block wait at the barriers of lines %d and %d", threads[0].line, t.line);
        t.state = State::ready;
    }
}

inline void run_block() {
    races::begin_block();
    size_t number = 0;
    for (Thread& t : threads) {
        t.index = {(unsigned)(number % blockDim.x), (unsigned)(number / blockDim.x % blockDim.y), (unsigned)(number / blockDim.x / blockDim.y)};
        t.state = State::ready;
        t.copies.clear();
        ++number;
    }
    for (;;) {
        bool all_finished = true;
        for (size_t i = 0; i < threads.size(); i += WARP) {  // each warp runs as far ahead of the others as it can
            const size_t first = backwards ? (threads.size() - 1 - i) / WARP * WARP : i, past = std::min(first + WARP, threads.size());
            do run_ready(first, past);
            while (wake_lanes(first, past));
            for (size_t me = first; me < past; ++me) all_finished = all_finished && threads[me].state == State::finished;
        }
        if (all_finished) return;
        wake_block();
        if (!failure.empty()) return;
    }
}

template <class... A, size_t... I>
int call(void (*kernel)(A...), dim3 grid, dim3 block, void** arguments, std::index_sequence<I...>) {
    failure.clear();
    races::begin_launch();
    gridDim = grid, blockDim = block;
    threads.resize((size_t)block.x * block.y * block.z);  // stacks are reused by later launches
    body = [&] { kernel(*(A*)arguments[I]...); };
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x && failure.empty(); ++x) {
                blockIdx = {x, y, z};
                run_block();
            }
    if (!failure.empty()) threads.clear();  // some are in the middle of the kernel
    return !failure.empty();
}

template <class... A>
int call(void (*kernel)(A...), const unsigned* dims, void** arguments) {
    return call(kernel, {dims[0], dims[1], dims[2]}, {dims[3], dims[4], dims[5]}, arguments, std::index_sequence_for<A...>());
}

// The sizes of a kernel's parameters, then 0.
template <class... A>
const int* parameter_sizes(void (*)(A...)) {
    static const int sizes[] = {(int)sizeof(A)..., 0};
    return sizes;
}

}  // namespace emulator

extern "C" inline __attribute__((used)) void emulator_fail(const char* message) { emulator::failure = message; }
extern "C" inline __attribute__((used)) const char* emulator_failure() { return emulator::failure.c_str(); }
extern "C" inline __attribute__((used)) void emulator_run_backwards(int yes) { emulator::backwards = yes; }
extern "C" inline __attribute__((used)) void emulator_leave_out(const char* barrier) { emulator::left_out = barrier; }

// Called by g++ -fsanitize=alignment before a misaligned access, which no GPU allows.
struct SourceLine {
    const char* file;
    unsigned line;
};
extern "C" inline __attribute__((used)) void __ubsan_handle_type_mismatch_v1(const SourceLine* source, size_t place) {
    const char* name = strrchr(source->file, '/');
    emulator::fail("%s, line %u: %#zx is not aligned", name ? name + 1 : source->file, source->line, place);
    emulator::current->state = emulator::State::finished;
    emulator::suspend();
}

// After a kernel's definition: makes it callable from Python.
#define EMULATE(name)                                                                                                       \
    extern "C" int emulate_##name(const unsigned* dims, void** arguments) { return emulator::call(name, dims, arguments); } \
    extern "C" const int* parameters_of_##name() { return emulator::parameter_sizes(name); }

// ---------------------------------------------------------------- what kernels call
inline void __syncthreads(int line = __builtin_LINE(), const char* file = __builtin_FILE()) {
    if (!emulator::is_left_out(file, line)) emulator::wait(emulator::State::at_barrier, line, true);
}

inline void __syncwarp(unsigned mask = ~0u, int line = __builtin_LINE(), const char* file = __builtin_FILE()) {
    const races::Pause pause;
    if (emulator::is_left_out(file, line)) return;
    emulator::current->mask = mask;
    emulator::wait(emulator::State::at_warp, line, true);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32, int line = __builtin_LINE()) {
    return emulator::from_lane(mask, value, (emulator::lane() & ~(width - 1)) | (lane & (width - 1)), line);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int line = __builtin_LINE()) {
    return emulator::from_lane(mask, value, emulator::lane() ^ bits, line);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int line = __builtin_LINE()) {
    const unsigned lane = emulator::lane();
    return emulator::from_lane(mask, value, lane + delta < emulator::WARP ? lane + delta : lane, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    unsigned bits = 0;
    const auto brought = emulator::collect(mask, predicate, line);
    for (unsigned lane = 0; lane < emulator::WARP; ++lane) bits |= (unsigned)(brought[lane] != 0) << lane;
    return bits;
}

inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) { return __ballot_sync(mask, predicate, line) != 0; }

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return ((unsigned __int128)a * b) >> 64; }
template <class T> T __ldg(const T* place) { return *place; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __int_as_float(int x) { float y; memcpy(&y, &x, 4); return y; }
inline float __uint_as_float(unsigned x) { float y; memcpy(&y, &x, 4); return y; }
inline int __float_as_int(float x) { int y; memcpy(&y, &x, 4); return y; }
inline unsigned __float_as_uint(float x) { unsigned y; memcpy(&y, &x, 4); return y; }
// Off by the two units in the last place that are permitted, so that nobody relies on more accuracy.
inline float __fdividef(float a, float b) { return std::nextafter(std::nextafter(a / b, HUGE_VALF), HUGE_VALF); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
using std::max;
using std::min;

// Functions written in PTX: the sources leave them out if EMULATED is defined, and plain C++ versions are here.
#if __has_include("emulator_ptx.h")
#include "emulator_ptx.h"
#endif

// Finds races in kernels that the emulator runs: two threads that access the same memory, one of them writing, with nothing that orders the
// two accesses.
//
// Kernels are compiled with -fsanitize=thread, which calls a function `__tsan_…` before each access; those functions are defined here, in
// place of the library's. Detection does not depend on the order in which the emulator runs threads, only on the synchronisation between
// two accesses. `__syncthreads` orders the threads of a block, `__syncwarp` the lanes of a warp, and nothing orders the blocks of a launch.
// Reads of shared memory that the block has not written are found, too.
#include "races.h"

#include <cstdint>
#include <cstdio>
#include <unordered_map>
#include <utility>
#include <vector>

// Symbols of the linker: the start of this library and of its variables, which include the kernels' shared memory.
extern char __ehdr_start __attribute__((visibility("hidden")));
extern char __bss_start __attribute__((visibility("hidden")));
extern char _end __attribute__((visibility("hidden")));

extern "C" void emulator_fail(const char* message);
extern "C" const char* emulator_failure();

namespace {

constexpr unsigned WARP = 32, MOST_THREADS = 1024;
constexpr size_t GRAIN = 2, PAGE = 4096;  // bytes tracked as one unit, and bytes looked up together

unsigned moment = 0, launch_began = 0, block_began = 0;  // moments count launches, blocks and barriers; 0 is before all
uint16_t seen[MOST_THREADS][WARP];                       // per thread and lane of its warp: the last `__syncwarp` of that lane it has met
bool paused[MOST_THREADS], without_thread = true;
int runner = -1;
const char *stack_begin = nullptr, *stack_end = nullptr;

struct Access {
    unsigned moment = 0;
    uint16_t thread = 0, clock = 0;  // clock: how many `__syncwarp`s its thread had passed
    unsigned code = 0;

    bool is_of_this_launch() const { return moment >= launch_began && moment; }
    bool is_of_this_block() const { return moment >= block_began && moment; }

    bool is_ordered() const {
        if (!is_of_this_launch()) return true;
        if (!is_of_this_block()) return false;
        if (moment < ::moment || thread == runner) return true;
        return thread / WARP == runner / WARP && seen[runner][thread % WARP] >= clock;
    }
};

struct Memory {
    Access write, read, read_by_another_block;
    std::vector<Access> reads;  // since the last barrier
};

struct Page {
    Memory places[PAGE / GRAIN];
};

std::unordered_map<uintptr_t, Page> pages;

Page& page_of(const char* place) {
    static std::pair<uintptr_t, Page*> found[64];  // a cache: the lookup takes most of the time
    const uintptr_t number = (uintptr_t)place / PAGE;
    auto& [last, page] = found[number % 64];
    if (!page || last != number) last = number, page = &pages[number];
    return *page;
}

bool& is_paused() { return runner < 0 ? without_thread : paused[runner]; }

bool is_shared(const char* place) { return place >= &__bss_start && place < &_end; }

const char* kind(const char* place) { return is_shared(place) ? "shared" : "global"; }

void report_race(const char* place, const Access& before, unsigned code) {
    const races::Pause pause;
    char text[200];
    snprintf(text, sizeof text, "a race in %s memory between @%#x (thread %u%s) and @%#x (thread %d)", kind(place), before.code, before.thread,
             before.is_of_this_block() ? "" : " of another block", code, runner);
    if (!*emulator_failure()) emulator_fail(text);
}

void report_unwritten(unsigned code) {
    const races::Pause pause;
    char text[200];
    snprintf(text, sizeof text, "@%#x (thread %d) reads shared memory that its block has not written", code, runner);
    if (!*emulator_failure()) emulator_fail(text);
}

void read(Memory& memory, const char* place, const Access& now) {
    if (is_shared(place) && !memory.write.is_of_this_block()) return report_unwritten(now.code);
    if (!memory.write.is_ordered()) report_race(place, memory.write, now.code);
    if (memory.read.is_of_this_launch() && !memory.read.is_of_this_block()) memory.read_by_another_block = memory.read;
    if (memory.read.moment != moment) memory.reads.clear();
    memory.read = now;
    for (Access& before : memory.reads)
        if (before.thread == now.thread) {
            before = now;
            return;
        }
    memory.reads.push_back(now);
}

void write(Memory& memory, const char* place, const Access& now) {
    if (is_shared(place) && !memory.write.is_of_this_block()) memory = {};  // each block has its own shared memory
    for (const Access& before : {memory.write, memory.read, memory.read_by_another_block})
        if (!before.is_ordered()) report_race(place, before, now.code);
    for (const Access& before : memory.reads)
        if (!before.is_ordered()) report_race(place, before, now.code);
    memory.write = now;
}

void touch(const void* start, size_t bytes, bool writes, const void* code) {
    const char* place = (const char*)start;
    if (is_paused() || (place >= stack_begin && place < stack_end)) return;
    const Access now{moment, (uint16_t)runner, seen[runner][runner % WARP], (unsigned)((const char*)code - 1 - &__ehdr_start)};
    for (const char* end = place + bytes; place < end; place += GRAIN)
        (writes ? write : read)(page_of(place).places[(uintptr_t)place % PAGE / GRAIN], place, now);
}

}  // namespace

namespace races {

void begin_launch() {
    launch_began = ++moment;
    for (bool& yes : paused) yes = false;  // a failed run may have left a thread paused
}

void begin_block() {
    block_began = ++moment;
    for (unsigned thread = 0; thread < MOST_THREADS; ++thread)
        for (unsigned lane = 0; lane < WARP; ++lane) seen[thread][lane] = lane == thread % WARP;
}

void meet_at_barrier() { ++moment; }

void meet_in_warp(unsigned warp, unsigned mask) {
    auto* lanes = seen + warp * WARP;
    uint16_t latest[WARP] = {};
    for (unsigned lane = 0; lane < WARP; ++lane)
        for (unsigned other = 0; other < WARP; ++other)
            if (mask >> lane & 1 && lanes[lane][other] > latest[other]) latest[other] = lanes[lane][other];
    for (unsigned lane = 0; lane < WARP; ++lane)
        if (mask >> lane & 1) {
            std::copy(latest, latest + WARP, lanes[lane]);
            ++lanes[lane][lane];
        }
}

void run(int thread, const void* stack, size_t stack_bytes) {
    runner = thread;
    stack_begin = (const char*)stack, stack_end = stack_begin + stack_bytes;
}

void touch(const void* place, size_t bytes, bool writes) { ::touch(place, bytes, writes, __builtin_return_address(0)); }

Pause::Pause() : before_(std::exchange(is_paused(), true)) {}

Pause::~Pause() { is_paused() = before_; }

}  // namespace races

// ---------------------------------------------------------------- functions called by -fsanitize=thread
#define TOUCH(bytes)                                                                                         \
    extern "C" void __tsan_read##bytes(void* place) { touch(place, bytes, false, __builtin_return_address(0)); }    \
    extern "C" void __tsan_write##bytes(void* place) { touch(place, bytes, true, __builtin_return_address(0)); }    \
    extern "C" void __tsan_unaligned_read##bytes(void* place) { touch(place, bytes, false, __builtin_return_address(0)); } \
    extern "C" void __tsan_unaligned_write##bytes(void* place) { touch(place, bytes, true, __builtin_return_address(0)); }
TOUCH(1)
TOUCH(2)
TOUCH(4)
TOUCH(8)
TOUCH(16)
#undef TOUCH
extern "C" void __tsan_read_range(void* place, size_t bytes) { touch(place, bytes, false, __builtin_return_address(0)); }
extern "C" void __tsan_write_range(void* place, size_t bytes) { touch(place, bytes, true, __builtin_return_address(0)); }
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit(void*) {}
extern "C" void __tsan_vptr_update(void**, void*) {}

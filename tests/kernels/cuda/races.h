// The emulator reports which thread runs and which threads have met, so that races are found: see races.cpp. Nothing without RACES.
#pragma once

#include <cstddef>

namespace races {

#ifdef RACES
void begin_launch();
void begin_block();
void meet_at_barrier();                                        // all threads of the block
void meet_in_warp(unsigned warp, unsigned mask);               // lanes of a warp, at `__syncwarp`; shuffles order nothing
void run(int thread, const void* stack, size_t stack_bytes);   // accesses from now on are this thread's; -1: nobody's
void touch(const void* place, size_t bytes, bool writes);      // an access that the emulator makes for a kernel

// Inside: accesses are the emulator's own.
class Pause {
public:
    Pause();
    ~Pause();

private:
    bool before_;  // whether another pause was active
};
#else
inline void begin_launch() {}
inline void begin_block() {}
inline void meet_at_barrier() {}
inline void meet_in_warp(unsigned, unsigned) {}
inline void run(int, const void*, size_t) {}
inline void touch(const void*, size_t, bool) {}

struct Pause {
    ~Pause() {}  // or the compiler warns of an unused variable
};
#endif

}  // namespace races

// What the emulator tells about who runs and who has met whom, so that races are found: see races.cpp. Without RACES nothing is told.
#pragma once

#include <cstddef>

namespace races {

#ifdef RACES
void begin_launch();
void begin_block();
void meet_at_barrier();                                        // all threads of the block
void meet_in_warp(unsigned warp, unsigned mask);               // lanes of a warp, at `__syncwarp`; shuffles order nothing
void run(int thread, const void* stack, size_t stack_bytes);   // what is read and written from now on is this thread's doing; -1: nobody's
void touch(const void* place, size_t bytes, bool writes);      // where the emulator copies for a kernel

// Inside: what is read and written is the emulator's own.
class Pause {
public:
    Pause();
    ~Pause();

private:
    bool before_;  // whether there was one already
};
#else
inline void begin_launch() {}
inline void begin_block() {}
inline void meet_at_barrier() {}
inline void meet_in_warp(unsigned, unsigned) {}
inline void run(int, const void*, size_t) {}
inline void touch(const void*, size_t, bool) {}

struct Pause {
    ~Pause() {}  // or the compiler warns of what is made for nothing
};
#endif

}  // namespace races

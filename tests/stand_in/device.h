// What the files of the stand-in share: what work is, where it waits, and how a mistake is told.
//
// Each file defines functions of CUDA under their own names, so that the compiler holds them to the headers' declarations.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace stand_in {

inline std::recursive_mutex mutex;

// Every function of CUDA holds it while it runs.
struct Lock : std::lock_guard<std::recursive_mutex> {
    Lock() : lock_guard(mutex) {}
};

// A mistake that CUDA would let pass, or would not tell so.
void problem(const std::string& what);

// An error of CUDA, and why.
cudaError_t refuse(cudaError_t error, const std::string& why);

// ---------------------------------------------------------------- memory
bool on_device(const void* place);
bool pinned(const void* place);
bool live(const void* place, size_t bytes = 1);  // whether so many bytes lie in one allocation

// ---------------------------------------------------------------- work
using Ids = std::set<long>;

struct Work {
    std::string name;
    std::function<void()> run;
    std::vector<const void*> memory;  // a place in each allocation that it uses

    void check(const char* when) const;  // that its memory is live
};

struct Graph {
    std::vector<Work> works;
    std::vector<Ids> after;  // for each work, the indices of those that it waits for
};

struct Capture : Graph {
    CUstream_st* origin = nullptr;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    std::thread::id thread = std::this_thread::get_id();
    std::string broken;  // why, if a call has broken it
    bool ended = false;

    // The call that breaks it fails with `error`, and the capture at its end.
    cudaError_t break_by(cudaError_t error, const std::string& why);
};

// Puts work on a stream: into its capture, if it is captured.
cudaError_t put(cudaStream_t stream, Work work);

// Appends work to what waits, and returns its number.
long issue(Work work, const Ids& after);

// Does what is wanted, with what it waits for and nothing else.
void settle(const Ids& wanted);
void settle_all();

// Takes all streams out of a capture.
void end(Capture& capture);

// Whether any capture forbids what may synchronize or cannot be part of a graph, by its mode.
cudaError_t forbidden(const char* call);

CUstream_st* stream_of(cudaStream_t stream);

}  // namespace stand_in

// ---------------------------------------------------------------- what CUDA's handles stand for
struct CUstream_st {
    unsigned flags = 0;
    std::shared_ptr<stand_in::Capture> capture;
    stand_in::Ids last;           // what was issued last
    stand_in::Ids captured_last;  // the same in the capture

    bool blocking() const { return !(flags & cudaStreamNonBlocking); }
};

struct CUevent_st {
    std::shared_ptr<stand_in::Capture> capture;  // in which it was recorded, if in one
    stand_in::Ids last;
    bool destroyed = false;
};

// Shared by the files of the stand-in: work, where it waits, and how mistakes are reported.
//
// Each file defines CUDA functions under their own names, so that the compiler checks them against the headers' declarations.
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

// Held by every CUDA function while it runs.
struct Lock : std::lock_guard<std::recursive_mutex> {
    Lock() : lock_guard(mutex) {}
};

// Reports a mistake that CUDA would ignore, or report differently.
void problem(const std::string& what);

// Returns a CUDA error, and records the reason.
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
    std::vector<const void*> memory;  // an address in each allocation that it uses

    void check(const char* when) const;  // reports memory that is not live
};

struct Graph {
    std::vector<Work> works;
    std::vector<Ids> after;  // for each work, the indices of those it waits for
};

struct Capture : Graph {
    CUstream_st* origin = nullptr;
    cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
    std::thread::id thread = std::this_thread::get_id();
    std::string broken;  // the reason, if a call has invalidated it
    bool ended = false;

    // Invalidates the capture: the current call fails with `error`, and so does ending the capture.
    cudaError_t break_by(cudaError_t error, const std::string& why);
};

// Puts work on a stream, or into its capture if it is captured.
cudaError_t put(cudaStream_t stream, Work work);

// Appends work to the waiting work, and returns its number.
long issue(Work work, const Ids& after);

// Executes the wanted work and what it waits for, nothing else.
void settle(const Ids& wanted);
void settle_all();

// Removes all streams from a capture.
void end(Capture& capture);

// Fails if a capture's mode forbids calls that may synchronise or cannot be part of a graph.
cudaError_t forbidden(const char* call);

CUstream_st* stream_of(cudaStream_t stream);

}  // namespace stand_in

// ---------------------------------------------------------------- CUDA's handles
struct CUstream_st {
    unsigned flags = 0;
    std::shared_ptr<stand_in::Capture> capture;
    stand_in::Ids last;           // the work issued last
    stand_in::Ids captured_last;  // the same within the capture

    bool blocking() const { return !(flags & cudaStreamNonBlocking); }
};

struct CUevent_st {
    std::shared_ptr<stand_in::Capture> capture;  // in which it was recorded, if any
    stand_in::Ids last;
    bool destroyed = false;
};

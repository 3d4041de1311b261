// The properties of the device, an H200, and the reporting of mistakes.
#include "device.h"

#include <cstdio>
#include <cstring>
#include <map>
#include <utility>

namespace stand_in {

namespace {
std::string problems;
cudaError_t last_error = cudaSuccess;
std::map<cudaError_t, std::string> reasons;  // by error, the latest reason

constexpr unsigned CUDA = 12090;
}  // namespace

void problem(const std::string& what) {
    problems += (problems.empty() ? "" : "; ") + what;
    fprintf(stderr, "stand-in: %s\n", what.c_str());
}

cudaError_t refuse(cudaError_t error, const std::string& why) {
    reasons[error] = why;
    return last_error = error;
}

}  // namespace stand_in

using namespace stand_in;

extern "C" {

// The problems found since the last call; the text is valid until the next.
const char* stand_in_problems() {
    const Lock lock;
    static std::string told;
    told.clear();
    told.swap(problems);
    return told.c_str();
}

// Called, under their names, for all functions that no file here defines.
int stand_in_unknown(const char* name) {
    const Lock lock;
    problem(std::string("the stand-in does not know ") + name);
    return cudaErrorNotSupported;
}

cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDA, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDA, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaDeviceCanAccessPeer(int* yes, int, int) { return *yes = 0, cudaSuccess; }

cudaError_t cudaDeviceGetPCIBusId(char* id, int length, int) {
    snprintf(id, length, "0000:00:00.0");
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
        case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
        case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
        case cudaDevAttrMultiProcessorCount: *value = 132; break;
        case cudaDevAttrWarpSize: *value = 32; break;
        case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
        case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; break;
        case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 << 10; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 227 << 10; break;
        case cudaDevAttrMaxGridDimX: *value = 2147483647; break;
        case cudaDevAttrMaxGridDimY:
        case cudaDevAttrMaxGridDimZ: *value = 65535; break;
        default: *value = 1;  // CuPy asks whether the others are supported
    }
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties_v2(cudaDeviceProp* properties, int) {
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "stand-in for an H200");
    properties->major = 9;
    properties->multiProcessorCount = 132;
    properties->warpSize = 32;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = 2048;
    properties->sharedMemPerBlock = 48 << 10;
    size_t free = 0;
    return cudaMemGetInfo(&free, &properties->totalGlobalMem);
}

// ---------------------------------------------------------------- errors
cudaError_t cudaGetLastError() {
    const Lock lock;
    return std::exchange(last_error, cudaSuccess);
}

cudaError_t cudaPeekAtLastError() {
    const Lock lock;
    return last_error;
}

#define NAMED(error) \
    case error: return #error;
const char* cudaGetErrorName(cudaError_t error) {
    switch (error) {
        NAMED(cudaErrorInvalidValue)
        NAMED(cudaErrorMemoryAllocation)
        NAMED(cudaErrorIllegalState)
        NAMED(cudaErrorNotSupported)
        NAMED(cudaErrorStreamCaptureUnsupported)
        NAMED(cudaErrorStreamCaptureInvalidated)
        NAMED(cudaErrorStreamCaptureMerge)
        NAMED(cudaErrorStreamCaptureUnmatched)
        NAMED(cudaErrorStreamCaptureUnjoined)
        NAMED(cudaErrorStreamCaptureIsolation)
        NAMED(cudaErrorStreamCaptureImplicit)
        NAMED(cudaErrorCapturedEvent)
        default: return "an error of CUDA's";
    }
}
#undef NAMED

const char* cudaGetErrorString(cudaError_t error) {
    const Lock lock;
    return reasons[error].c_str();
}

// The driver's errors have the same numbers.
CUresult cuGetErrorName(CUresult error, const char** name) { return *name = cudaGetErrorName((cudaError_t)error), CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult error, const char** text) { return *text = cudaGetErrorString((cudaError_t)error), CUDA_SUCCESS; }

CUresult cuDriverGetVersion(int* version) { return *version = CUDA, CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext* context) { return *context = (CUcontext)1, CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
CUresult cuCtxGetDevice(CUdevice* device) { return *device = 0, CUDA_SUCCESS; }
CUresult cuStreamGetCtx(CUstream, CUcontext* context) { return cuCtxGetCurrent(context); }
}

// Device memory, which is host memory: no allocation reuses the addresses of an earlier one, and freed memory is made inaccessible.
#include "device.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>

namespace stand_in {

namespace {
constexpr size_t ADDRESSES = (size_t)1 << 40, TOTAL = (size_t)6 << 30, PAGE = 4096, GAP = (size_t)2 << 20;
constexpr size_t FILLED = (size_t)64 << 20;  // at most this many bytes are filled with NaN; more would take long

char* const addresses = (char*)mmap(nullptr, ADDRESSES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
size_t next = GAP, used = 0;

using Places = std::map<const char*, size_t>;  // sizes by address
Places device, host;

bool lies_in(const Places& places, const void* place, size_t bytes) {
    auto found = places.upper_bound((const char*)place);
    if (found == places.begin()) return false;
    --found;
    return (const char*)place + bytes <= found->first + found->second;
}

size_t pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }
}  // namespace

bool on_device(const void* place) { return place >= addresses && place < addresses + ADDRESSES; }
bool pinned(const void* place) { return lies_in(host, place, 1); }
bool live(const void* place, size_t bytes) { return lies_in(device, place, bytes); }

void Work::check(const char* when) const {
    for (const void* place : memory)
        if (on_device(place) && !live(place)) problem(name + " uses memory that is freed, " + when);
}

}  // namespace stand_in

using namespace stand_in;

extern "C" {

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    const Lock lock;
    *total = TOTAL, *free = TOTAL - used;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void** place, size_t bytes) {
    const Lock lock;
    if (const cudaError_t error = forbidden("cudaMalloc")) return error;
    const size_t room = (bytes + GAP - 1) / GAP * GAP;
    if (bytes > TOTAL - used || next + room > ADDRESSES) return refuse(cudaErrorMemoryAllocation, "out of memory");
    char* begin = addresses + next;
    if (mprotect(begin, pages(bytes), PROT_READ | PROT_WRITE)) return refuse(cudaErrorMemoryAllocation, "the host is out of memory");
    next += room + GAP, used += bytes;
    memset(begin, 0xFF, std::min(bytes, FILLED));
    device[begin] = bytes;
    *place = begin;
    return cudaSuccess;
}

cudaError_t cudaFree(void* place) {
    const Lock lock;
    if (!place) return cudaSuccess;
    if (const cudaError_t error = forbidden("cudaFree")) return error;
    settle_all();
    const auto found = device.find((const char*)place);
    if (found == device.end()) return refuse(cudaErrorInvalidValue, "cudaFree of what was not allocated, or is free already");
    madvise(place, pages(found->second), MADV_DONTNEED);
    mprotect(place, pages(found->second), PROT_NONE);
    used -= found->second;
    device.erase(found);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** place, size_t bytes, unsigned) {
    const Lock lock;
    if (const cudaError_t error = forbidden("cudaHostAlloc")) return error;
    *place = aligned_alloc(PAGE, pages(bytes));
    memset(*place, 0xFF, bytes);
    host[(const char*)*place] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void* place) {
    const Lock lock;
    if (const cudaError_t error = forbidden("cudaFreeHost")) return error;
    settle_all();
    host.erase((const char*)place);
    free(place);
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* place) {
    const Lock lock;
    memset(attributes, 0, sizeof *attributes);
    attributes->type = on_device(place) ? cudaMemoryTypeDevice : pinned(place) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
    attributes->devicePointer = (void*)place;
    return cudaSuccess;
}

// ---------------------------------------------------------------- copies
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
    const Lock lock;
    for (const void* place : {(const void*)to, from})
        if (on_device(place) && !live(place, bytes)) problem("a copy reaches beyond an allocation");
    const bool fetched = !on_device(to), given = !on_device(from);
    const bool captured = stream_of(stream)->capture != nullptr;
    if (given && !pinned(from)) {  // CUDA has read it when the call returns
        if (captured) problem("memory that is not pinned is copied in a capture: the graph would read it each time");
        const auto held = std::make_shared<std::string>((const char*)from, bytes);
        return put(stream, {"a copy to the device", [=] { memcpy(to, held->data(), bytes); }, {to}});
    }
    const cudaError_t error = put(stream, {"a copy", [=] { memmove(to, from, bytes); }, {to, from}});
    if (!error && fetched && !pinned(to)) {
        if (captured) problem("a capture copies to memory that is not pinned");
        else settle(stream_of(stream)->last);
    }
    return error;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    const Lock lock;
    if (const cudaError_t error = forbidden("cudaMemcpy")) return error;
    if (const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr)) return error;
    return cudaStreamSynchronize(nullptr);
}

cudaError_t cudaMemsetAsync(void* place, int value, size_t bytes, cudaStream_t stream) {
    const Lock lock;
    if (!live(place, bytes)) problem("cudaMemset reaches beyond an allocation");
    return put(stream, {"cudaMemset", [=] { memset(place, value, bytes); }, {place}});
}

cudaError_t cudaMemset(void* place, int value, size_t bytes) { return cudaMemsetAsync(place, value, bytes, nullptr); }
}

// Streams and events: dependencies between work, and its execution. Nothing runs before somebody waits for it.
#include "device.h"

#include <cstdlib>
#include <map>
#include <random>

namespace stand_in {

namespace {
struct Node {
    Work work;
    Ids after;
};

constexpr size_t MOST_WAITING = 20000;

std::map<long, Node> waiting;
long issued = 0;
std::set<CUstream_st*> streams;
CUstream_st legacy;  // CUDA's legacy default stream: it and the blocking streams wait for each other

// The next of the ready work: the latest, or with STAND_IN_ORDER a random one.
long next_of(const Ids& ready) {
    static const char* const seed = getenv("STAND_IN_ORDER");
    static std::mt19937 random(seed ? atol(seed) : 0);
    return *std::next(ready.begin(), seed ? random() % ready.size() : ready.size() - 1);
}

void run(long id) {
    const Work work = std::move(waiting[id].work);
    waiting.erase(id);
    work.check("when it runs");
    work.run();
}

Ids with_what_it_waits_for(const Ids& wanted) {
    Ids found, open = wanted;
    while (!open.empty()) {
        const long id = *open.begin();
        open.erase(open.begin());
        if (waiting.count(id) && found.insert(id).second) open.insert(waiting[id].after.begin(), waiting[id].after.end());
    }
    return found;
}

// Refuses work on a stream that would wait for a captured stream.
cudaError_t refuse_implicit(CUstream_st* stream, const std::string& call) {
    if (stream != &legacy) return cudaSuccess;
    const std::string why = call + " on the default stream would wait for a stream that is captured";
    for (CUstream_st* other : streams)
        if (other->capture && other->blocking()) return other->capture->break_by(cudaErrorStreamCaptureImplicit, why);
    return cudaSuccess;
}
}  // namespace

CUstream_st* stream_of(cudaStream_t stream) {
    if (!stream || stream == cudaStreamLegacy || stream == cudaStreamPerThread) return &legacy;
    if (streams.count(stream)) return stream;
    problem("a stream that is destroyed is used");
    return &legacy;
}

void settle(const Ids& wanted) {
    const Ids all = with_what_it_waits_for(wanted);
    std::map<long, int> missing;
    std::map<long, std::vector<long>> later;
    Ids ready;
    for (const long id : all) {
        for (const long before : waiting[id].after)
            if (all.count(before)) ++missing[id], later[before].push_back(id);
        if (!missing[id]) ready.insert(id);
    }
    while (!ready.empty()) {
        const long id = next_of(ready);
        ready.erase(id);
        run(id);
        for (const long other : later[id])
            if (!--missing[other]) ready.insert(other);
    }
}

void settle_all() {
    Ids all;
    for (const auto& [id, node] : waiting) all.insert(id);
    settle(all);
}

long issue(Work work, const Ids& after) {
    if (waiting.size() >= MOST_WAITING) settle_all();
    waiting[issued] = {std::move(work), after};
    return issued++;
}

cudaError_t put(cudaStream_t given, Work work) {
    CUstream_st* stream = stream_of(given);
    if (const cudaError_t error = refuse_implicit(stream, work.name)) return error;
    work.check("when it is issued");
    if (Capture* capture = stream->capture.get()) {
        if (!capture->broken.empty()) return refuse(cudaErrorStreamCaptureInvalidated, capture->broken);
        capture->works.push_back(std::move(work));
        capture->after.push_back(stream->captured_last);
        stream->captured_last = {(long)capture->works.size() - 1};
        return cudaSuccess;
    }
    Ids after = stream->last;
    if (stream == &legacy) {
        for (CUstream_st* other : streams)
            if (other->blocking()) after.insert(other->last.begin(), other->last.end());
    } else if (stream->blocking()) {
        after.insert(legacy.last.begin(), legacy.last.end());
    }
    stream->last = {issue(std::move(work), after)};
    return cudaSuccess;
}

void end(Capture& capture) {
    capture.ended = true;
    for (CUstream_st* stream : streams)
        if (stream->capture.get() == &capture) stream->capture = nullptr;
}

cudaError_t forbidden(const char* call) {
    for (CUstream_st* stream : streams) {
        Capture* capture = stream->capture.get();
        if (!capture || capture->mode == cudaStreamCaptureModeRelaxed) continue;
        if (capture->mode == cudaStreamCaptureModeGlobal || capture->thread == std::this_thread::get_id())
            return capture->break_by(cudaErrorStreamCaptureUnsupported, std::string(call) + " while a stream is captured");
    }
    return cudaSuccess;
}

}  // namespace stand_in

using namespace stand_in;

extern "C" {

cudaError_t cudaDeviceSynchronize() {
    const Lock lock;
    for (CUstream_st* stream : streams)
        if (stream->capture)
            return stream->capture->break_by(cudaErrorStreamCaptureUnsupported, "cudaDeviceSynchronize while a stream is captured");
    settle_all();
    return cudaSuccess;
}

// ---------------------------------------------------------------- streams
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    const Lock lock;
    *stream = new CUstream_st;  // never deleted, so that no other stream gets its address
    (*stream)->flags = flags;
    streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) { return cudaStreamCreateWithFlags(stream, flags); }

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const Lock lock;
    if (stream_of(stream)->capture) problem("a stream is destroyed while it is captured");
    streams.erase(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
    const Lock lock;
    return *flags = stream_of(stream)->flags, cudaSuccess;
}

cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) { return *priority = 0, cudaSuccess; }

cudaError_t cudaStreamSynchronize(cudaStream_t given) {
    const Lock lock;
    CUstream_st* stream = stream_of(given);
    if (stream->capture) return stream->capture->break_by(cudaErrorStreamCaptureUnsupported, "a stream is waited for while it is captured");
    if (const cudaError_t error = refuse_implicit(stream, "cudaStreamSynchronize")) return error;
    settle(stream->last);
    return cudaSuccess;
}

// A query completes the stream's work: polling in a loop must end.
cudaError_t cudaStreamQuery(cudaStream_t stream) { return cudaStreamSynchronize(stream); }

cudaError_t cudaStreamIsCapturing(cudaStream_t given, cudaStreamCaptureStatus* status) {
    const Lock lock;
    CUstream_st* stream = stream_of(given);
    if (const cudaError_t error = refuse_implicit(stream, "cudaStreamIsCapturing")) return error;
    *status = !stream->capture                   ? cudaStreamCaptureStatusNone
              : stream->capture->broken.empty() ? cudaStreamCaptureStatusActive
                                                : cudaStreamCaptureStatusInvalidated;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t given, cudaEvent_t event, unsigned) {
    const Lock lock;
    CUstream_st* stream = stream_of(given);
    Capture *mine = stream->capture.get(), *its = event->capture.get();
    if (event->destroyed) problem("a stream waits for an event that is destroyed");
    if (!its) {
        if (mine) return mine->break_by(cudaErrorStreamCaptureIsolation, "a captured stream waits for an event from outside");
        stream->last.insert(event->last.begin(), event->last.end());
        std::erase_if(stream->last, [](long id) { return !waiting.count(id); });
        return cudaSuccess;
    }
    if (its->ended) return refuse(cudaErrorCapturedEvent, "a stream waits for an event of a capture that has ended");
    if (!its->broken.empty()) return refuse(cudaErrorStreamCaptureInvalidated, its->broken);
    if (mine && mine != its) return mine->break_by(cudaErrorStreamCaptureMerge, "a captured stream waits for an event of another capture");
    if (stream == &legacy) return its->break_by(cudaErrorStreamCaptureImplicit, "the default stream waits for an event of a capture");
    if (!mine) stream->capture = event->capture, stream->captured_last.clear();  // from here on it is captured, too
    stream->captured_last.insert(event->last.begin(), event->last.end());
    return cudaSuccess;
}

// ---------------------------------------------------------------- events
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = new CUevent_st;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    const Lock lock;
    event->destroyed = true;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t given) {
    const Lock lock;
    CUstream_st* stream = stream_of(given);
    if (event->destroyed) problem("an event that is destroyed is recorded");
    if (const cudaError_t error = refuse_implicit(stream, "cudaEventRecord")) return error;
    if (stream->capture && !stream->capture->broken.empty()) return refuse(cudaErrorStreamCaptureInvalidated, stream->capture->broken);
    event->capture = stream->capture;
    event->last = stream->capture ? stream->captured_last : stream->last;
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const Lock lock;
    if (event->capture) return refuse(cudaErrorCapturedEvent, "an event of a capture is waited for");
    settle(event->last);
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    const Lock lock;
    if (event->capture) return refuse(cudaErrorCapturedEvent, "an event of a capture is asked for");
    for (const long id : event->last)
        if (waiting.count(id)) return cudaErrorNotReady;
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime_v2(float* milliseconds, cudaEvent_t, cudaEvent_t) { return *milliseconds = 1, cudaSuccess; }
}

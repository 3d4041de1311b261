// Captures and graphs: work put on a captured stream becomes a node of a graph, issued with the others at each launch.
#include "device.h"

struct CUgraph_st : stand_in::Graph {};

struct CUgraphExec_st : stand_in::Graph {
    stand_in::Ids last;  // of its last launch: CUDA does not let two of them overlap
};

using namespace stand_in;

cudaError_t Capture::break_by(cudaError_t error, const std::string& why) {
    if (broken.empty()) broken = why;
    return refuse(error, why);
}

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t given, cudaStreamCaptureMode mode) {
    const Lock lock;
    CUstream_st* stream = stream_of(given);
    if (stream != given) return refuse(cudaErrorStreamCaptureUnsupported, "the default stream cannot be captured");
    if (stream->capture) return refuse(cudaErrorIllegalState, "the stream is captured already");
    stream->capture = std::make_shared<Capture>();
    stream->capture->origin = stream;
    stream->capture->mode = mode;
    stream->captured_last.clear();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t given, cudaGraph_t* graph) {
    const Lock lock;
    CUstream_st* stream = stream_of(given);
    *graph = nullptr;
    const std::shared_ptr<Capture> capture = stream->capture;
    if (!capture) return refuse(cudaErrorIllegalState, "the stream is not captured");
    if (capture->origin != stream) return refuse(cudaErrorStreamCaptureUnmatched, "a capture ends on the stream that it began on");
    Ids joined, open = stream->captured_last;
    while (!open.empty()) {
        const long index = *open.begin();
        open.erase(open.begin());
        if (joined.insert(index).second) open.insert(capture->after[index].begin(), capture->after[index].end());
    }
    end(*capture);
    if (!capture->broken.empty()) return refuse(cudaErrorStreamCaptureInvalidated, capture->broken);
    for (size_t index = 0; index < capture->works.size(); ++index)
        if (!joined.count(index))
            return refuse(cudaErrorStreamCaptureUnjoined, "a stream was forked and not joined: " + capture->works[index].name);
    *graph = new CUgraph_st{Graph(*capture)};
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
    *made = new CUgraphExec_st{Graph(*graph), {}};
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t given) {
    const Lock lock;
    CUstream_st* stream = stream_of(given);
    if (stream->capture) return stream->capture->break_by(cudaErrorNotSupported, "a graph in a graph, which the stand-in does not know");
    for (const Work& work : graph->works) work.check("when its graph is launched");
    Ids before = stream->last, ends;
    before.insert(graph->last.begin(), graph->last.end());
    std::vector<long> issued;
    for (size_t index = 0; index < graph->works.size(); ++index) {
        Ids after;
        for (const long other : graph->after[index]) after.insert(issued[other]), ends.erase(issued[other]);
        issued.push_back(issue(graph->works[index], after.empty() ? before : after));
        ends.insert(issued.back());
    }
    if (!ends.empty()) stream->last = graph->last = ends;
    return cudaSuccess;
}
}

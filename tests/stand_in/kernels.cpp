// Modules and launches. A module's code is a library made by g++, with kernels prepared by the emulator's `EMULATE`.
#include "device.h"

#include <dlfcn.h>

#include <cstdint>
#include <cstring>

struct CUfunc_st {
    std::string name;
    int (*run)(const unsigned* dims, void** arguments);
    const int* sizes;  // of the parameters, then 0
    const char* (*failure)();
};

using namespace stand_in;

extern "C" {

CUresult cuModuleLoad(CUmodule* module, const char* path) {
    const Lock lock;
    *module = (CUmodule)dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*module) return CUDA_SUCCESS;
    return (CUresult)refuse(cudaErrorInvalidValue, dlerror());
}

// CuPy is given the path of a library in place of a kernel's machine code.
CUresult cuModuleLoadData(CUmodule* module, const void* path) { return cuModuleLoad(module, (const char*)path); }
CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
CUresult cuModuleGetGlobal_v2(CUdeviceptr*, size_t*, CUmodule, const char*) { return CUDA_ERROR_NOT_FOUND; }

CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    const Lock lock;
    const auto run = (decltype(CUfunc_st::run))dlsym(module, (std::string("emulate_") + name).c_str());
    const auto sizes = (const int* (*)())dlsym(module, (std::string("parameters_of_") + name).c_str());
    if (!run || !sizes) return (CUresult)refuse((cudaError_t)CUDA_ERROR_NOT_FOUND, std::string("no kernel ") + name);
    *function = new CUfunc_st{name, run, sizes(), (const char* (*)())dlsym(module, "emulator_failure")};
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned block_x, unsigned block_y, unsigned block_z,
                        unsigned, CUstream stream, void** parameters, void**) {
    const Lock lock;
    const unsigned threads = block_x * block_y * block_z;
    if (!x || !y || !z || x > 2147483647 || y > 65535 || z > 65535 || !threads || threads > 1024)
        return (CUresult)refuse(cudaErrorInvalidValue, function->name + ": no such grid of blocks can be launched");
    using Parameter = std::vector<uint64_t>;
    std::vector<Parameter> held;  // copied, since the caller may reuse its memory
    std::vector<const void*> memory;
    for (const int* size = function->sizes; *size; ++size) {
        Parameter parameter((*size + 7) / 8);
        memcpy(parameter.data(), parameters[held.size()], *size);
        const auto place = (const void*)parameter[0];  // an array of CuPy's begins with its pointer, too
        if (*size >= 8 && on_device(place)) memory.push_back(place);
        held.push_back(parameter);
    }
    auto run = [=]() mutable {
        const unsigned dims[] = {x, y, z, block_x, block_y, block_z};
        std::vector<void*> places;
        for (Parameter& parameter : held) places.push_back(parameter.data());
        if (function->run(dims, places.data())) problem(function->name + ": " + function->failure());
    };
    return (CUresult)put(stream, {function->name, run, memory});
}

CUresult cuFuncGetAttribute(int* value, CUfunction_attribute attribute, CUfunction) {
    *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
    return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }

// Kernels of CUB and Thrust belong to the runtime: machine code that a CPU cannot run.
static cudaError_t refuse_machine_code() {
    const Lock lock;
    problem("a kernel of CUB or Thrust is wanted, which the stand-in cannot run");
    return refuse(cudaErrorNotSupported, "a kernel of CUB or Thrust");
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void*) { return refuse_machine_code(); }
cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) { return refuse_machine_code(); }
}

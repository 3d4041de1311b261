// cuBLAS, as far as CuPy and minigrad use it: products, accumulated in float64.
#include "device.h"

#include <library_types.h>

#include <cstdint>
#include <cstring>

using namespace stand_in;

namespace {

// From cublas_api.h, which does not come with the other headers.
constexpr int SUCCESS = 0, INVALID_VALUE = 7, FAILED = 13, COMPUTE_32F = 68, COMPUTE_64F = 70;

struct Handle {
    cudaStream_t stream = nullptr;
    void* workspace = nullptr;
    size_t workspace_bytes = 0;
};

float from_bf16(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, 4);
    return x;
}

uint16_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return x != x ? 0x7FFF : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}

// One of the three matrices, or a batch of them: columns `pitch` numbers apart; or transposed.
struct Matrix {
    void* place;
    int type;
    bool transposed;
    int rows, columns;
    long pitch, stride;

    int stored_rows() const { return transposed ? columns : rows; }
    int stored_columns() const { return transposed ? rows : columns; }
    size_t itemsize() const { return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2; }
    size_t bytes(int batch) const { return ((batch - 1) * stride + (stored_columns() - 1) * pitch + stored_rows()) * itemsize(); }
    size_t index(long one, int row, int column) const { return one * stride + (transposed ? column + row * pitch : row + column * pitch); }

    double read(size_t index) const {
        switch (type) {
            case CUDA_R_64F: return ((double*)place)[index];
            case CUDA_R_32F: return ((float*)place)[index];
            case CUDA_R_16F: return ((_Float16*)place)[index];
            default: return from_bf16(((uint16_t*)place)[index]);
        }
    }

    void write(size_t index, double value) const {
        switch (type) {
            case CUDA_R_64F: ((double*)place)[index] = value; break;
            case CUDA_R_32F: ((float*)place)[index] = value; break;
            case CUDA_R_16F: ((_Float16*)place)[index] = value; break;
            default: ((uint16_t*)place)[index] = to_bf16(value);
        }
    }
};

// c = alpha a b + beta c
struct Product {
    Matrix a, b, c;
    double alpha, beta;
    int batch;

    void run() const {
        const size_t m = c.rows, n = c.columns, k = a.columns;
        std::vector<double> rows(m * k), columns(k * n);
        for (int one = 0; one < batch; ++one) {
            for (size_t i = 0; i < m; ++i)
                for (size_t l = 0; l < k; ++l) rows[i * k + l] = a.read(a.index(one, i, l));
            for (size_t j = 0; j < n; ++j)
                for (size_t l = 0; l < k; ++l) columns[j * k + l] = b.read(b.index(one, l, j));
            for (size_t j = 0; j < n; ++j)
                for (size_t i = 0; i < m; ++i) {
                    double sum = 0;
                    for (size_t l = 0; l < k; ++l) sum += rows[i * k + l] * columns[j * k + l];
                    const size_t index = c.index(one, i, j);
                    c.write(index, alpha * sum + (beta ? beta * c.read(index) : 0));  // with beta 0 the old value is not read
                }
        }
    }
};

int multiply(const Handle* handle, const Product& product) {
    const Lock lock;
    std::vector<const void*> memory;
    if (product.c.rows <= 0 || product.c.columns <= 0 || product.batch <= 0) return INVALID_VALUE;
    for (const Matrix& matrix : {product.a, product.b, product.c}) {
        if (matrix.pitch < matrix.stored_rows()) return INVALID_VALUE;
        if (!matrix.rows || !matrix.columns) continue;  // an empty sum
        if (!live(matrix.place, matrix.bytes(product.batch))) problem("a product reaches beyond an allocation");
        memory.push_back(matrix.place);
    }
    if (handle->workspace) {
        if (!live(handle->workspace, handle->workspace_bytes)) problem("cuBLAS's workspace reaches beyond an allocation");
        memory.push_back(handle->workspace);
    }
    return put(handle->stream, {"a product", [=] { product.run(); }, memory}) ? FAILED : SUCCESS;
}

// alpha or beta, which have the compute type
double number(const void* place, int compute) { return compute == COMPUTE_64F ? *(const double*)place : *(const float*)place; }

}  // namespace

extern "C" {

int cublasCreate_v2(void** handle) {
    const Lock lock;
    if (forbidden("cublasCreate")) return FAILED;  // it allocates
    *handle = new Handle;
    return SUCCESS;
}

int cublasDestroy_v2(Handle* handle) {
    delete handle;
    return SUCCESS;
}

int cublasSetStream_v2(Handle* handle, cudaStream_t stream) {
    *handle = {stream};  // resets the workspace to cuBLAS's own
    return SUCCESS;
}

int cublasGetStream_v2(Handle* handle, cudaStream_t* stream) { return *stream = handle->stream, SUCCESS; }

int cublasSetWorkspace_v2(Handle* handle, void* place, size_t bytes) {
    if ((uintptr_t)place % 256) return INVALID_VALUE;
    handle->workspace = place, handle->workspace_bytes = bytes;
    return SUCCESS;
}

int cublasSetMathMode(void*, int) { return SUCCESS; }
int cublasGetMathMode(void*, int* mode) { return *mode = 0, SUCCESS; }
int cublasSetPointerMode_v2(void*, int) { return SUCCESS; }
int cublasGetPointerMode_v2(void*, int* mode) { return *mode = 0, SUCCESS; }
int cublasGetVersion_v2(void*, int* version) { return *version = 120900, SUCCESS; }

const char* cublasGetStatusName(int status) {
    return status == INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE" : "CUBLAS_STATUS_EXECUTION_FAILED";
}

int cublasGemmStridedBatchedEx(Handle* handle, int transposed_a, int transposed_b, int m, int n, int k, const void* alpha,  //
                               void* a, int type_a, int pitch_a, long stride_a, void* b, int type_b, int pitch_b, long stride_b,
                               const void* beta, void* c, int type_c, int pitch_c, long stride_c, int batch, int compute, int) {
    return multiply(handle, {{a, type_a, transposed_a != 0, m, k, pitch_a, stride_a},
                             {b, type_b, transposed_b != 0, k, n, pitch_b, stride_b},
                             {c, type_c, false, m, n, pitch_c, stride_c},
                             number(alpha, compute),
                             number(beta, compute),
                             batch});
}

int cublasGemmEx(Handle* handle, int transposed_a, int transposed_b, int m, int n, int k, const void* alpha,  //
                 void* a, int type_a, int pitch_a, void* b, int type_b, int pitch_b,                            //
                 const void* beta, void* c, int type_c, int pitch_c, int compute, int algorithm) {
    return cublasGemmStridedBatchedEx(handle, transposed_a, transposed_b, m, n, k, alpha, a, type_a, pitch_a, 0, b, type_b, pitch_b, 0,
                                      beta, c, type_c, pitch_c, 0, 1, compute, algorithm);
}

int cublasSgemm_v2(Handle* handle, int transposed_a, int transposed_b, int m, int n, int k, const void* alpha,  //
                   void* a, int pitch_a, void* b, int pitch_b, const void* beta, void* c, int pitch_c) {
    const int type = CUDA_R_32F;
    return cublasGemmEx(handle, transposed_a, transposed_b, m, n, k, alpha, a, type, pitch_a, b, type, pitch_b, beta, c, type, pitch_c,
                        COMPUTE_32F, 0);
}

int cublasDgemm_v2(Handle* handle, int transposed_a, int transposed_b, int m, int n, int k, const void* alpha,  //
                   void* a, int pitch_a, void* b, int pitch_b, const void* beta, void* c, int pitch_c) {
    const int type = CUDA_R_64F;
    return cublasGemmEx(handle, transposed_a, transposed_b, m, n, k, alpha, a, type, pitch_a, b, type, pitch_b, beta, c, type, pitch_c,
                        COMPUTE_64F, 0);
}
}

// In place of CuPy's: those of `cupy_kernels.h` serve all types.
#pragma once

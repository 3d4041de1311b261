// Replaces CuPy's header: the functions in `cupy_kernels.h` serve all types.
#pragma once

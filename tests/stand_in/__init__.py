"""A stand-in for NVIDIA's driver, so that CuPy itself runs where there is no GPU, and with it the tests that ask for one.

CuPy is the real one. The functions of CUDA's runtime that are linked into it are replaced in memory by those of the C++ files here (memory,
streams, graphs, kernels, cuBLAS); its own small kernels are compiled by g++ when they are wanted, and ours run in the emulator of
`tests/kernels/cuda`. `PYTHONPATH=tests python -m pytest -p stand_in.plugin tests/gpu` runs the tests so. What is issued is done as late as
possible, and of what no stream or event orders the latest first (with STAND_IN_ORDER=7, or another number, in an order drawn by it).

It finds: reads that do not wait for another stream's work, or that the host makes too early, by a wrong result (mostly NaN: new memory is
full of it); what is not allowed while a stream is captured, and branches of a graph that are not joined, by CUDA's errors; memory that is
used after it went back to the driver, by graphs too, and accesses of copies and products beyond an allocation, by `problems`, for any of
which the test fails that was running.

It cannot find: what only a GPU does (how tensor cores round, for cuBLAS multiplies in float64 here; time), races inside of kernels (for
them there is `test_races.py`), accesses of kernels beyond an allocation (compute-sanitizer finds them), the use of memory that lies in
CuPy's pool, mistakes of CuPy's own. Kernels of CUB and Thrust are machine code and cannot run: `plugin.SKIPPED` lists what needs them.

It needs x86-64, g++, CuPy for CUDA 12 and the headers of nvidia-cuda-runtime-cu12. What is compiled stays in the folder that STAND_IN_CACHE
names, by default one in the temporary folder.
"""

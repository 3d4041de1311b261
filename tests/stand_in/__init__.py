"""A stand-in for NVIDIA's driver that lets CuPy itself run without a GPU, and with it the tests that need one.

CuPy is the real one. The functions of the CUDA runtime that is linked into it are patched in memory to jump to those of the C++ files here
(memory, streams, graphs, kernels, cuBLAS). CuPy's own small kernels are compiled by g++ on demand, and ours run in the emulator of
`tests/kernels/cuda`. `PYTHONPATH=tests python -m pytest -p stand_in.plugin tests/gpu` runs the tests this way. Work is executed as late as
possible, and among work that no stream or event orders, the latest first (with STAND_IN_ORDER=7, or another seed, in a random order).

It finds: reads that do not wait for another stream's work, or that the host makes too early, by a wrong result (mostly NaN, with which new
memory is filled); calls not allowed during a capture, and side streams that are not joined, by CUDA's errors; memory used after it went
back to the driver, also by graphs, and accesses of copies and products outside an allocation, by `problems`, which fail the running test.

It cannot find: behaviour specific to a GPU (rounding on tensor cores, since cuBLAS multiplies in float64 here; timing), races inside
kernels (see `test_races.py`), accesses of kernels outside an allocation (compute-sanitizer finds them), misuse of memory in CuPy's pool, or
bugs of CuPy's own. Kernels of CUB and Thrust are machine code and cannot run: `plugin.SKIPPED` lists what needs them.

It needs x86-64, g++, CuPy for CUDA 12 and the headers of nvidia-cuda-runtime-cu12. Compiled files are kept in the folder named by
STAND_IN_CACHE, by default one in the temporary folder.
"""

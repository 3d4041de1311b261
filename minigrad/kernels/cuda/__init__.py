"""BERT's blocks on an NVIDIA GPU: fused kernels in CUDA C++, and the operations that are made of them.

`sources/` holds the kernels, `table.py` says how each is called, `build.py` compiles them for the GPU at hand, `launch.py` runs one. The
other modules register the operations: each replaces an (output, pullback) pair by a few launches and matrix products, and declines what it
does not cover. Nothing here is imported before a GPU is used.
"""

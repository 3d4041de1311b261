"""BERT's blocks on an NVIDIA GPU: fused kernels in CUDA C++, and the operations built from them.

`sources/` contains the kernels, `table.py` lists how each is launched, `build.py` compiles them for the GPU at hand, `launch.py` launches
them. The other modules register the operations: each replaces an (output, pullback) pair by a few launches and matrix products, and
declines what it does not cover. Nothing here is imported before a GPU is used.
"""

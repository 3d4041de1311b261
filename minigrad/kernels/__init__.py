"""HOW the hot operations run fast, backend by backend. Everything here is optional: without this folder each result is the same, later."""

from minigrad.kernels import cpu

__all__ = ["cpu"]

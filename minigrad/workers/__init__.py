"""Faster inference: forked workers on a CPU, CUDA graphs on a GPU. `replicas` chooses between them.

A worker is a `process` that exchanges `messages` with its parent; `graphs` captures and replays CUDA graphs. Workers and graphs know the
model as it was when they were made; `snapshot` detects when that is out of date. Training steps (`train`) use all of these but `Replicas`.
"""

from minigrad.workers.replicas import Replicas

__all__ = ["Replicas"]

"""Inference by other means than one call in this process: forked workers on a CPU, CUDA graphs on a GPU. `replicas` chooses.

A worker is a `process` that is told and answers `messages`; graphs have a room of their own, `graphs`. Workers and graphs both know what
was true when they were made: `surroundings` sees when that has become old. Training (`train`) rests on all but `replicas`.
"""

from minigrad.workers.replicas import Replicas

__all__ = ["Replicas"]

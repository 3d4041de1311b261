"""Worker processes: forks of this one, what they are told and what they answer, and inference by several of them."""

from minigrad.workers.replicas import Replicas

__all__ = ["Replicas"]

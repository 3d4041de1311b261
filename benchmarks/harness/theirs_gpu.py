"""The opponent on a GPU: PyTorch + transformers with fused AdamW, on batches that lie on the device before the clock starts."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from harness.theirs import Torch
from harness.work import Work

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchOnDevice(Torch):
    """compiled: "no", "yes", or "with graphs" for CUDA graphs of forward and backward pass. precision: float32, tf32 (its own switch), or
    bf16 and fp16 by autocast; fp16 without loss scaling, which costs next to nothing."""

    def __init__(self, work: Work, attention: str, compiled: str, device: str, precision: str) -> None:
        super().__init__(work, attention, None, compiled=False)
        if compiled != "no":
            shapes = {batch["input_ids"].shape for batch in self.batches}
            mode = "reduce-overhead" if compiled == "with graphs" else None
            self.model = torch.compile(self.plain, dynamic=len(shapes) > 1, mode=mode)
        self.device, self.precision = device, precision
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        self.plain.to(device)
        if all(batch["attention_mask"].all() for batch in self.batches):
            for batch in self.batches:  # nothing is masked, which compiled code would not see: with a mask sdpa cannot use flash attention
                del batch["attention_mask"]
        self.batches = [{name: tensor.to(device) for name, tensor in batch.items()} for batch in self.batches]

    def casting(self) -> AbstractContextManager[Any]:
        kind = torch.device(self.device).type
        return torch.autocast(kind, HALF[self.precision]) if self.precision in HALF else nullcontext()


class LargeProduct:
    """One product of large square matrices, the most that the device reaches at a precision: what a share of the peak is a share of. And
    a copy from one place of its memory to another."""

    ORDER = 8192
    REPEATS = 10

    def __init__(self, device: str, precision: str) -> None:
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        generator = torch.Generator().manual_seed(0)
        order = self.ORDER if torch.device(device).type == "cuda" else 256
        drawn = torch.randn((order, order), generator=generator)  # random: a product of zeros takes less power and runs faster
        self.matrix = drawn.to(device, HALF.get(precision, torch.float32))
        self.source = self.matrix.repeat(4, 1)  # ten times what a cache holds
        self.target = torch.empty_like(self.source)

    def train(self) -> float:
        """Seconds per multiplication and addition."""
        started = time.perf_counter()
        for _ in range(self.REPEATS):
            product = self.matrix @ self.matrix
        product[0, 0].item()
        return (time.perf_counter() - started) / self.REPEATS / (2 * len(self.matrix) ** 3)

    infer = train

    def copy(self) -> float:
        """Seconds per byte that is read or written."""
        started = time.perf_counter()
        for _ in range(self.REPEATS):
            self.target.copy_(self.source)
        self.target[0, 0].item()
        return (time.perf_counter() - started) / self.REPEATS / (2 * self.source.nbytes)

    def close(self) -> None:
        """There is nothing to end."""

"""The opponent on a GPU: PyTorch + transformers with fused AdamW, on batches that are on the device before the clock starts."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from harness.theirs import Torch
from harness.work import Work

UNMASKED = "sdpa_unmasked"
"""sdpa where nothing is masked: with a mask, even an empty one, it cannot use flash attention, and for compiled code transformers makes one
(5.17 always, 5.24 if one is given), except for an attention that it knows no masks of."""
AttentionInterface.register(UNMASKED, sdpa_attention_forward)

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchOnDevice(Torch):
    """compiled: "no", "yes", or "with graphs" for CUDA graphs of the forward and backward pass. precision: float32, tf32 (PyTorch's own
    switch), or bf16 and fp16 by autocast; fp16 without loss scaling, which costs next to nothing."""

    def __init__(self, work: Work, attention: str, compiled: str, device: str, precision: str) -> None:
        padded = any(len(set(lengths)) > 1 for lengths in work.lengths)
        super().__init__(work, attention if padded or attention != "sdpa" else UNMASKED, None, compiled=False)
        if compiled != "no":
            shapes = {batch["input_ids"].shape for batch in self.batches}
            mode = "reduce-overhead" if compiled == "with graphs" else None
            self.model = torch.compile(self.plain, dynamic=len(shapes) > 1, mode=mode)
        self.device, self.precision = device, precision
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        self.plain.to(device)
        if not padded:
            for batch in self.batches:
                del batch["attention_mask"]
        self.batches = [{name: tensor.to(device) for name, tensor in batch.items()} for batch in self.batches]

    def casting(self) -> AbstractContextManager[Any]:
        kind = torch.device(self.device).type
        return torch.autocast(kind, HALF[self.precision]) if self.precision in HALF else nullcontext()


class LargeProduct:
    """One product of large square matrices: the highest rate of the device at a precision, to which shares of the peak refer; and a copy
    within its memory."""

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
        """Nothing to close."""

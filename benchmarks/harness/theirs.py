"""The opponent: PyTorch + transformers in its best stock configuration, on batches that are padded before the clock starts."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, BertForTokenClassification

from harness.work import CLASSES, IGNORED, TAGS, Work
from minigrad.backend.threads import usable_cpus


class Torch:
    """attention: "sdpa" or "eager"; pad_to: padded length, None for the longest text of each batch; compiled: use torch.compile."""

    def __init__(self, work: Work, attention: str, pad_to: int | None, compiled: bool) -> None:
        torch.set_num_threads(usable_cpus())
        torch.manual_seed(0)
        size, on_tokens = work.size, work.head == "token"
        config = BertConfig(
            num_hidden_layers=size.layers,
            hidden_size=size.hidden,
            num_attention_heads=size.heads,
            intermediate_size=size.intermediate,
            num_labels=TAGS if on_tokens else CLASSES,
            attn_implementation=attention,
            problem_type=None if on_tokens else "single_label_classification",  # else found in the first step, and all is compiled again
        )
        self.plain = (BertForTokenClassification if on_tokens else BertForSequenceClassification)(config)
        self.model: Any = torch.compile(self.plain, dynamic=True) if compiled else self.plain
        self.optimizer: torch.optim.Optimizer | None = None
        self.batches = [
            {
                "input_ids": _padded(texts, pad_to, 0),
                "attention_mask": _padded([[1] * len(text) for text in texts], pad_to, 0),
                "labels": _padded(labels, pad_to, IGNORED) if on_tokens else torch.tensor(labels),
            }
            for texts, labels in zip(work.batches, work.labels(), strict=True)
        ]

    def train(self) -> float:
        """Seconds per batch of a pass of training steps, until the last loss is on the host (without a GPU, at once)."""
        self.plain.train()
        if self.optimizer is None:  # not earlier, so that inference is measured without moments
            self.optimizer = torch.optim.AdamW(self.plain.parameters(), lr=1e-5, weight_decay=0.01, fused=True)
        started = time.perf_counter()
        for batch in self.batches:
            with self.casting():
                loss = self.model(**batch).loss
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        loss.item()
        return (time.perf_counter() - started) / len(self.batches)

    def infer(self) -> float:
        """Seconds per batch of a pass of predictions."""
        self.plain.eval()
        started = time.perf_counter()
        with torch.inference_mode(), self.casting():
            for batch in self.batches:
                inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
                self.model(**inputs).logits.float().cpu().numpy()
        return (time.perf_counter() - started) / len(self.batches)

    def casting(self) -> AbstractContextManager[Any]:
        """The context in which forward passes run."""
        return nullcontext()

    def close(self) -> None:
        """Nothing to close."""


def _padded(rows: Any, length: int | None, filler: int) -> torch.Tensor:
    longest = length or max(map(len, rows))
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows])

"""Time a BERT training step and inference, minigrad against PyTorch + transformers, on uneven-length batches.

Each contender runs in a process of its own, because two BLAS thread pools in one process ruin each other; the parent lets them take turns
(one active at a time) and compares medians and paired ratios. PyTorch's side is its best stock configuration: the faster of sdpa and eager
attention, fused AdamW, batches padded to their longest sequence.

    python benchmarks/bert_step.py --sizes tiny mini --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

SIZES = {  # layers, hidden, heads, intermediate, batch
    "tiny": (2, 128, 2, 512, 32),
    "mini": (4, 256, 4, 1024, 16),
    "small": (4, 512, 8, 2048, 16),
    "base": (12, 768, 12, 3072, 16),
}
VOCABULARY, LABELS, BATCHES = 30522, 2, 8


def make_batches(batch: int, lengths: str) -> list[tuple[list[np.ndarray[Any, Any]], np.ndarray[Any, Any]]]:
    """Batches of random token ids: "full" is 128 tokens each, "mixed" lognormal with mean 40 between 4 and 128."""
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(BATCHES):
        sizes = np.full(batch, 128) if lengths == "full" else np.clip(rng.lognormal(3.5, 0.6, batch), 4, 128).astype(int)
        batches.append(([rng.integers(1000, VOCABULARY, n) for n in sizes], rng.integers(0, LABELS, batch)))
    return batches


def minigrad_contender(size: str, lengths: str) -> tuple[Callable[[int], float], Callable[[int], None]]:
    import minigrad as mg
    from minigrad.models import BertConfig, BertForSequenceClassification

    layers, hidden, heads, intermediate, batch = SIZES[size]
    mg.manual_seed(0)
    model = BertForSequenceClassification(
        BertConfig(num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, intermediate_size=intermediate)
    )
    optimizer = mg.optim.AdamW(model.named_parameters(), lr=1e-5)
    batches = make_batches(batch, lengths)

    def train(i: int) -> float:
        ids, labels = batches[i % BATCHES]
        loss = model(mg.data.PackedTokens.of(ids), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.item())

    def infer(i: int) -> None:
        with model.evaluating(), mg.no_grad():
            model(mg.data.PackedTokens.of(batches[i % BATCHES][0])).logits.numpy()

    return train, infer


def torch_contender(size: str, lengths: str, attention: str) -> tuple[Callable[[int], float], Callable[[int], None]]:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    layers, hidden, heads, intermediate, batch = SIZES[size]
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        attn_implementation=attention,
    )
    model = BertForSequenceClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    padded = []
    for ids, labels in make_batches(batch, lengths):
        longest = max(map(len, ids))
        tokens, mask = torch.zeros(len(ids), longest, dtype=torch.long), torch.zeros(len(ids), longest, dtype=torch.long)
        for row, sequence in enumerate(ids):
            tokens[row, : len(sequence)], mask[row, : len(sequence)] = torch.from_numpy(sequence), 1
        padded.append((tokens, mask, torch.from_numpy(labels)))

    def train(i: int) -> float:
        tokens, mask, labels = padded[i % BATCHES]
        loss = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.item())

    def infer(i: int) -> None:
        model.eval()
        with torch.inference_mode():
            model(input_ids=padded[i % BATCHES][0], attention_mask=padded[i % BATCHES][1]).logits.numpy()
        model.train()

    return train, infer


def serve(name: str, size: str, lengths: str) -> None:
    """A contender process: answers each line "train" or "infer" with the seconds that one pass over the batches took, per batch."""
    train, infer = minigrad_contender(size, lengths) if name == "minigrad" else torch_contender(size, lengths, name.removeprefix("torch-"))
    for i in range(2):
        train(i), infer(i)
    print("ready", flush=True)
    for line in sys.stdin:
        function = train if line.strip() == "train" else infer
        started = time.perf_counter()
        for i in range(BATCHES):
            function(i)
        print(json.dumps((time.perf_counter() - started) / BATCHES), flush=True)


class Contender:
    def __init__(self, name: str, size: str, lengths: str) -> None:
        command = [sys.executable, __file__, "--serve", name, size, lengths]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a contender died; its message is above")
        return line

    def time(self, what: str) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return float(json.loads(self._read()))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["tiny", "mini"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    if find_spec("torch") is None or find_spec("transformers") is None:
        sys.exit('error: this compares with PyTorch and transformers: pip install ".[oracle]"')
    print(
        "| size | lengths | what | minigrad ms | torch ms (best attention) | torch / minigrad, median of pairs |\n|---|---|---|---|---|---|"
    )
    for size in options.sizes:
        for lengths in ("mixed", "full"):
            contenders = {name: Contender(name, size, lengths) for name in ("minigrad", "torch-sdpa", "torch-eager")}
            for what in ("train", "infer"):
                rounds = [{name: c.time(what) for name, c in contenders.items()} for _ in range(options.rounds)]
                best = min(("torch-sdpa", "torch-eager"), key=lambda name: statistics.median(r[name] for r in rounds))
                ours, theirs = (statistics.median(r[name] for r in rounds) * 1e3 for name in ("minigrad", best))
                ratio = statistics.median(r[best] / r["minigrad"] for r in rounds)
                print(f"| {size} | {lengths} | {what} | {ours:.1f} | {theirs:.1f} ({best[6:]}) | {ratio:.2f} |", flush=True)
            for contender in contenders.values():
                contender.close()


if __name__ == "__main__":
    main()

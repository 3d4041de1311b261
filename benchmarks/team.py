"""Time a training step of MiniLM in one process (with all BLAS threads, or one) against workers, on batches of uneven length.

All train the same model on the same batches; they take turns, a few steps each, and medians over the steps are compared. Weights are
random, sizes are MiniLM's (hidden 384, 12 heads, vocabulary 30522), lengths those of short noisy texts (lognormal, mean about 28).

    python benchmarks/team.py --layers 2 6 --rounds 5
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.backend.threads import blas_threads, usable_cpus
from minigrad.data.loader import Batch
from minigrad.models import BertConfig, BertForTokenClassification
from minigrad.models.losses import IGNORED
from minigrad.packing import PackedTokens
from minigrad.train.team import Team

VOCABULARY, LABELS, BATCH, STEPS = 30522, 13, 32, 4


def make_batches(count: int) -> list[Batch]:
    generator = np.random.default_rng(0)
    found = []
    for _ in range(count):
        lengths = np.clip(generator.lognormal(3.2, 0.5, BATCH), 4, 100).astype(int)
        tokens = PackedTokens.of([generator.integers(1000, VOCABULARY, n) for n in lengths])
        labels = np.where(generator.random(tokens.packing.rows) < 0.3, IGNORED, generator.integers(0, LABELS, tokens.packing.rows))
        found.append(Batch(tokens, None, labels, np.arange(BATCH)))
    return found


class Contender:
    """A model, its optimizer and its team, with the time of each step and of its update."""

    def __init__(self, layers: int, workers: int, threads: int) -> None:
        mg.manual_seed(0)
        config = BertConfig(
            num_hidden_layers=layers,
            hidden_size=384,
            num_attention_heads=12,
            intermediate_size=1536,
            id2label={i: str(i) for i in range(LABELS)},
        )
        self.model, self.threads = BertForTokenClassification(config), threads
        self.team = Team(self.loss_of, mg.optim.AdamW(self.model.named_parameters(), lr=5e-5, weight_decay=0.01), workers=workers)
        self.steps: list[float] = []
        self.updates: list[float] = []

    def loss_of(self, part: Batch, whole: Batch) -> Any:
        assert whole.token_labels is not None
        count = float((whole.token_labels != IGNORED).sum())
        return self.model(part.tokens, labels=part.token_labels, num_items_in_batch=count).loss

    def train(self, batches: list[Batch]) -> None:
        with blas_threads(self.threads):
            for batch in batches:
                started = time.perf_counter()
                self.team.backward(batch)
                mg.optim.clip_grad_norm(self.model.parameters(), 1.0)
                computed = time.perf_counter()
                self.team.step()
                self.steps.append(time.perf_counter() - started)
                self.updates.append(time.perf_counter() - computed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 6])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    cpus = usable_cpus()
    settings = {f"1 process, {cpus} BLAS threads": (1, cpus), "1 process, 1 BLAS thread": (1, 1), f"{cpus} workers": (cpus, 1)}
    print("| layers | " + " | ".join([f"{name}: ms (update)" for name in settings]) + " | first / last, median of rounds |")
    print("|---" * (len(settings) + 2) + "|")
    for layers in options.layers:
        contenders = [Contender(layers, *setting) for setting in settings.values()]
        with contenders[-1].team:
            ratios = []
            for round_number in range(options.rounds + 1):
                batches = make_batches(STEPS)
                for contender in contenders:
                    if round_number == 1:  # round 0 was the warm-up: memory, moments, forks
                        contender.steps.clear(), contender.updates.clear()
                    contender.train(batches)
                if round_number:
                    ratios.append(statistics.median(contenders[0].steps[-STEPS:]) / statistics.median(contenders[-1].steps[-STEPS:]))
        cells = [f"{statistics.median(c.steps) * 1e3:.0f} ({statistics.median(c.updates) * 1e3:.0f})" for c in contenders]
        print(f"| {layers} | {' | '.join(cells)} | {statistics.median(ratios):.2f} |", flush=True)


if __name__ == "__main__":
    main()

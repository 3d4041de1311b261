"""A character-level GPT: a causal Transformer that learns to continue a text, and must beat a bigram model on held-out text.

    python examples/tiny_gpt.py                       # on the 896 records beside this file
    python examples/tiny_gpt.py --text moby_dick.txt  # on a text of your own (UTF-8)

A bigram model sees one character of context and is only a table of counts: a network that does not beat it has learned nothing. Takes
about one minute on two cores; prints the training loss, both models' losses on held-out text, and a sample.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import nn
from minigrad.data import Packing, read_records
from minigrad.functional import cross_entropy
from minigrad.optim import AdamW, CosineSchedule, clip_grad_norm, decay_groups

RECORDS = Path(__file__).resolve().parent / "data" / "records.jsonl"


class TinyGPT(nn.Module):
    """Character and position embeddings, a causal pre-norm Transformer, and a classifier over the next character."""

    def __init__(self, characters: int, context: int, dim: int, heads: int, layers: int, dropout: float) -> None:
        self.tokens = nn.Embedding(characters, dim, std=0.3)
        self.positions = nn.Embedding(context, dim, std=0.3)
        self.encoder = nn.TransformerEncoder(layers, dim, heads, 4 * dim, dropout, norm_first=True, causal=True)
        self.head = nn.Linear(dim, characters, bias=False)

    def forward(self, ids: np.ndarray[Any, Any]) -> mg.Tensor:
        """The scores of the next character. Shapes: ids (batch, length) → (batch · length, characters)."""
        packing = Packing([ids.shape[1]] * len(ids))
        x = self.tokens(ids.reshape(-1)) + self.positions(packing.positions)
        return self.head(self.encoder(x, packing))


def load(path: Path | None) -> tuple[np.ndarray[Any, Any], list[str]]:
    """The text as numbers, and the character of each number."""
    text = path.read_text(encoding="utf-8") if path is not None else "\n".join(record.text for record in read_records(RECORDS))
    characters = sorted(set(text))
    number = {character: i for i, character in enumerate(characters)}
    return np.array([number[character] for character in text]), characters


def bigram_loss(train: np.ndarray[Any, Any], test: np.ndarray[Any, Any], characters: int) -> float:
    """The mean negative log likelihood of a bigram model with add-one smoothing."""
    counts = np.ones((characters, characters))
    np.add.at(counts, (train[:-1], train[1:]), 1)
    chances = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.log(chances[test[:-1], test[1:]]).mean())


def windows(ids: np.ndarray[Any, Any], starts: np.ndarray[Any, Any], length: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """(inputs, targets): pieces of the text, and the same pieces one character further on."""
    places = starts[:, None] + np.arange(length + 1)
    return ids[places[:, :-1]], ids[places[:, 1:]]


def held_out_loss(model: TinyGPT, ids: np.ndarray[Any, Any], context: int) -> float:
    with model.evaluating(), mg.no_grad():
        total = count = 0.0
        starts = np.arange(0, len(ids) - context - 1, context)
        for part in np.array_split(starts, -(-len(starts) // 32)):
            inputs, targets = windows(ids, part, context)
            total += cross_entropy(model(inputs), targets.reshape(-1)).item() * targets.size
            count += targets.size
    return total / count


def sample(model: TinyGPT, start: int, context: int, length: int, rng: np.random.Generator, temperature: float = 0.8) -> list[int]:
    """Characters drawn one after another from the model's predictions."""
    ids = [start]
    with model.evaluating(), mg.no_grad():
        for _ in range(length):
            scores = model(np.array([ids[-context:]])).numpy()[-1].astype(np.float64) / temperature
            chances = np.exp(scores - scores.max())
            ids.append(int(rng.choice(len(chances), p=chances / chances.sum())))
    return ids


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--text", type=Path, metavar="FILE", help="a UTF-8 text to learn (default: the shipped records)")
    add("--steps", type=int, default=600)
    add("--batch-size", type=int, default=16)
    add("--context", type=int, default=64, help="characters seen at a time")
    add("--dim", type=int, default=96)
    add("--heads", type=int, default=4)
    add("--layers", type=int, default=3)
    add("--dropout", type=float, default=0.1)
    add("--lr", type=float, default=3e-3)
    add("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    ids, characters = load(options.text)
    cut = int(0.9 * len(ids))
    train, test = ids[:cut], ids[cut:][:20_000]
    bigram = bigram_loss(train, test, len(characters))
    print(f"{len(ids):,} characters, {len(characters)} different; bigram model: {bigram:.4f} nats per character on held-out text")

    mg.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    model = TinyGPT(len(characters), options.context, options.dim, options.heads, options.layers, options.dropout)
    optimizer = AdamW(decay_groups(model.named_parameters(), 0.1), lr=options.lr, betas=(0.9, 0.99))
    schedule = CosineSchedule(optimizer, warmup_steps=options.steps // 20, total_steps=options.steps)
    print(f"{model.num_parameters():,} parameters")
    start = time.perf_counter()
    for step in range(1, options.steps + 1):
        inputs, targets = windows(train, rng.integers(0, len(train) - options.context - 1, options.batch_size), options.context)
        loss = cross_entropy(model(inputs), targets.reshape(-1))
        loss.backward()
        clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step == 1 or step % max(1, options.steps // 10) == 0:
            seconds = time.perf_counter() - start
            print(f"step {step:4d}  loss {loss.item():.4f}  {step * inputs.size / seconds:6.0f} characters/s  {seconds:5.1f} s")

    found = held_out_loss(model, test, options.context)
    print("sample:", "".join(characters[i] for i in sample(model, int(test[0]), options.context, 200, rng)).replace("\n", " / "))
    below = found < bigram
    print(f"held-out loss {found:.4f}, {'below' if below else 'NOT below'} the bigram model's {bigram:.4f}")
    return 0 if below else 1


if __name__ == "__main__":
    sys.exit(main())

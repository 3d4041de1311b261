"""A character LSTM: learns the spelling of a text and writes in its style.

    python examples/char_lstm.py                       # on the 896 records beside this file
    python examples/char_lstm.py --text moby_dick.txt  # on a text of your own (UTF-8)

The text is cut into parallel strands that are read side by side. Each strand's state is carried from one piece to the next, but gradients
are not (truncated backpropagation through time), so the model remembers further back than it is differentiated. Takes about half a minute
on two cores; fails if it does not beat the frequencies of single characters on held-out text.
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
from minigrad.optim import Adam, clip_grad_norm

RECORDS = Path(__file__).resolve().parent / "data" / "records.jsonl"
State = tuple[mg.Tensor, mg.Tensor]


class CharLSTM(nn.Module):
    """An embedding, one LSTM layer and a classifier over the next character."""

    def __init__(self, characters: int, dim: int, hidden: int) -> None:
        self.tokens = nn.Embedding(characters, dim, std=0.1)
        self.lstm = nn.LSTM(dim, hidden)
        self.head = nn.Linear(hidden, characters)

    def forward(self, ids: np.ndarray[Any, Any], state: State | None = None) -> tuple[mg.Tensor, State]:
        """Shapes: ids (strands, length) → scores (strands · length, characters), and the state after the last character."""
        packing = Packing([ids.shape[1]] * len(ids))
        outputs, state = self.lstm(self.tokens(ids.reshape(-1)), packing, state=state)
        return self.head(outputs), state


def load(path: Path | None) -> tuple[np.ndarray[Any, Any], list[str]]:
    """The text as numbers, and the character of each number."""
    text = path.read_text(encoding="utf-8") if path is not None else "\n".join(record.text for record in read_records(RECORDS))
    characters = sorted(set(text))
    number = {character: i for i, character in enumerate(characters)}
    return np.array([number[character] for character in text]), characters


def pieces(ids: np.ndarray[Any, Any], strands: int, length: int) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """The text as parallel strands cut into (inputs, targets) pieces; targets are one character further on."""
    steps = (len(ids) - 1) // strands
    inputs, targets = (ids[i : i + strands * steps].reshape(strands, steps) for i in (0, 1))
    return [(inputs[:, i : i + length], targets[:, i : i + length]) for i in range(0, steps - length + 1, length)]


def held_out_loss(model: CharLSTM, ids: np.ndarray[Any, Any], length: int) -> float:
    with model.evaluating(), mg.no_grad():
        losses, state = [], None
        for inputs, targets in pieces(ids, 8, length):
            scores, state = model(inputs, state)
            losses.append(cross_entropy(scores, targets.reshape(-1)).item())
    return float(np.mean(losses))


def sample(model: CharLSTM, start: int, length: int, rng: np.random.Generator, temperature: float = 0.7) -> list[int]:
    """Characters drawn one after another; only the state is carried along."""
    ids, state = [start], None
    with model.evaluating(), mg.no_grad():
        for _ in range(length):
            scores, state = model(np.array([[ids[-1]]]), state)
            weights = np.exp((scores.numpy()[0].astype(np.float64) - scores.numpy().max()) / temperature)
            ids.append(int(rng.choice(len(weights), p=weights / weights.sum())))
    return ids


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--text", type=Path, metavar="FILE", help="a UTF-8 text to learn (default: the shipped records)")
    add("--steps", type=int, default=600)
    add("--strands", type=int, default=32)
    add("--length", type=int, default=32, help="characters through which gradients flow back")
    add("--dim", type=int, default=64)
    add("--hidden", type=int, default=192)
    add("--lr", type=float, default=4e-3)
    add("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    ids, characters = load(options.text)
    cut = int(0.9 * len(ids))
    train, test = ids[:cut], ids[cut:][:20_000]
    frequencies = np.bincount(train, minlength=len(characters)) + 1.0
    unigram = float(-np.log(frequencies / frequencies.sum())[test].mean())
    print(f"{len(ids):,} characters, {len(characters)} different; frequencies alone: {unigram:.4f} nats per character on held-out text")

    mg.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    model = CharLSTM(len(characters), options.dim, options.hidden)
    optimizer = Adam(model.named_parameters(), lr=options.lr)
    print(f"{model.num_parameters():,} parameters")
    start, batches = time.perf_counter(), pieces(train, options.strands, options.length)
    state: State | None = None
    for step in range(1, options.steps + 1):
        inputs, targets = batches[(step - 1) % len(batches)]
        if (step - 1) % len(batches) == 0:
            state = None  # the strands start over
        scores, state = model(inputs, state)
        state = (state[0].detach(), state[1].detach())  # kept, but without its gradient graph
        loss = cross_entropy(scores, targets.reshape(-1))
        loss.backward()
        clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step == 1 or step % max(1, options.steps // 10) == 0:
            seconds = time.perf_counter() - start
            print(f"step {step:4d}  loss {loss.item():.4f}  {step * inputs.size / seconds:6.0f} characters/s  {seconds:5.1f} s")

    found = held_out_loss(model, test, options.length)
    print("sample:", "".join(characters[i] for i in sample(model, int(test[0]), 200, rng)).replace("\n", " / "))
    below = found < unigram
    print(f"held-out loss {found:.4f}, {'below' if below else 'NOT below'} the frequencies' {unigram:.4f}")
    return 0 if below else 1


if __name__ == "__main__":
    sys.exit(main())

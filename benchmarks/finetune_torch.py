"""The opponent in `finetune_wall.py`: a fine-tuning with PyTorch + transformers, as their users write it.

Batches are padded to their longest text; fused AdamW without weight decay on biases and normalisation, a linear schedule after a warm-up
of 10 %, gradients clipped to norm 1. It evaluates after each epoch, keeps the weights of the best one, and scores dev and test at the end.
Files are JSON lines, {"text": …, "label": …} or {"tokens": […], "tags": […]}; the last line printed is JSON with the scores.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)

IGNORED = -100
WINDOW = 50
"""Number of batches that --pad grouped sorts together, as transformers does."""

Row = dict[str, Any]


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---------------------------------------------------------------- from rows to batches
def encode_texts(tokenizer: Any, rows: list[Row], numbers: dict[str, int], max_length: int) -> list[Row]:
    found = []
    for row in rows:
        encoded = tokenizer(row["text"], row.get("text_b"), truncation=True, max_length=max_length)
        found.append({**encoded, "labels": numbers[row["label"]]})
    return found


def encode_words(tokenizer: Any, rows: list[Row], numbers: dict[str, int], max_length: int) -> list[Row]:
    """The first piece of a word gets its tag, other pieces none."""
    found = []
    for row in rows:
        encoded = tokenizer(row["tokens"], is_split_into_words=True, truncation=True, max_length=max_length)
        labels, before = [], None
        for word in encoded.word_ids():
            labels.append(IGNORED if word is None or word == before else numbers[row["tags"][word]])
            before = word
        found.append({**encoded, "labels": labels})
    return found


def padded(rows: list[Row]) -> dict[str, torch.Tensor]:
    longest = max(len(row["input_ids"]) for row in rows)
    batch = {}
    for name in ("input_ids", "attention_mask", "token_type_ids", "labels"):
        if isinstance(rows[0].get(name), int):
            batch[name] = torch.tensor([row[name] for row in rows])
        elif name in rows[0]:
            filler = IGNORED if name == "labels" else 0
            batch[name] = torch.tensor([row[name] + [filler] * (longest - len(row[name])) for row in rows])
    return batch


def batches(rows: list[Row], size: int, *, shuffle: bool, grouped: bool) -> list[list[int]]:
    """The row numbers of each batch. With `grouped`, an evaluation is sorted as a whole."""
    order = list(range(len(rows)))
    if shuffle:
        random.shuffle(order)
    if grouped:
        window = WINDOW * size if shuffle else len(order)
        windows = [sorted(order[i : i + window], key=lambda j: -len(rows[j]["input_ids"])) for i in range(0, len(order), window)]
        order = [j for part in windows for j in part]
    dealt = [order[i : i + size] for i in range(0, len(order), size)]
    if shuffle and grouped:
        random.shuffle(dealt)
    return dealt


# ---------------------------------------------------------------- scores
def predictions(model: Any, rows: list[Row], options: argparse.Namespace) -> list[Any]:
    """The best class of each text, or of each of its tokens, in the order of the rows."""
    found: list[Any] = [None] * len(rows)
    model.eval()
    with torch.inference_mode():
        for chosen in batches(rows, options.batch, shuffle=False, grouped=options.pad == "grouped"):
            batch = padded([rows[i] for i in chosen])
            del batch["labels"]
            for i, best in zip(chosen, model(**batch).logits.argmax(-1).tolist(), strict=True):
                found[i] = best
    return found


def score(said: list[Any], encoded: list[Row], rows: list[Row], names: list[str]) -> dict[str, float]:
    """Accuracy for texts; entity F1 for words, where words that were cut off count as outside any entity."""
    if "label" in rows[0]:
        return {"accuracy": sum(one == row["labels"] for one, row in zip(said, encoded, strict=True)) / len(rows)}
    from seqeval.metrics import f1_score

    tags = []
    for one, row, original in zip(said, encoded, rows, strict=True):
        found = [names[tag] for tag, gold in zip(one, row["labels"], strict=False) if gold != IGNORED]
        tags.append(found + ["O"] * (len(original["tags"]) - len(found)))
    return {"entity_f1": float(f1_score([row["tags"] for row in rows], tags))}


# ---------------------------------------------------------------- training
def decay_groups(model: Any) -> list[dict[str, Any]]:
    spared = {name for name, _ in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name}
    return [
        {"params": [p for name, p in model.named_parameters() if (name in spared) == spare], "weight_decay": 0.0 if spare else 0.01}
        for spare in (False, True)
    ]


def train(model: Any, encoded: dict[str, list[Row]], rows: dict[str, list[Row]], names: list[str], options: argparse.Namespace) -> None:
    """Train the model; it ends with the weights of the epoch that was best on dev."""
    optimizer = torch.optim.AdamW(decay_groups(model), lr=options.lr, fused=True)
    steps = options.epochs * -(-len(encoded["train"]) // options.batch)
    schedule = get_linear_schedule_with_warmup(optimizer, int(0.1 * steps), steps)
    best, kept = -1.0, {}
    for epoch in range(options.epochs):
        model.train()
        for chosen in batches(encoded["train"], options.batch, shuffle=True, grouped=options.pad == "grouped"):
            model(**padded([encoded["train"][i] for i in chosen])).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        scores = score(predictions(model, encoded["dev"], options), encoded["dev"], rows["dev"], names)
        print(f"epoch {epoch}: {scores}", flush=True)
        if (reached := next(iter(scores.values()))) > best:
            best, kept = reached, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--model", "--train", "--dev", "--test"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--pad", choices=["longest", "grouped"], default="longest")
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    random.seed(options.seed)
    torch.manual_seed(options.seed)

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    rows = {split: read(getattr(options, split)) for split in ("train", "dev", "test")}
    on_words = "tokens" in rows["train"][0]
    labels = {tag for row in rows["train"] for tag in (row["tags"] if on_words else [row["label"]])}
    numbers = {name: i for i, name in enumerate(sorted(labels))}
    encode = encode_words if on_words else encode_texts
    encoded = {split: encode(tokenizer, given, numbers, options.max_length) for split, given in rows.items()}
    settings: dict[str, Any] = {"num_labels": len(numbers), "attn_implementation": options.attention}
    if options.layers is not None:
        settings["num_hidden_layers"] = options.layers
    kind = AutoModelForTokenClassification if on_words else AutoModelForSequenceClassification
    model = kind.from_pretrained(options.model, **settings)

    train(model, encoded, rows, list(numbers), options)
    ends = {
        split: score(predictions(model, encoded[split], options), encoded[split], rows[split], list(numbers)) for split in ("dev", "test")
    }
    print(json.dumps(ends))


if __name__ == "__main__":
    main()

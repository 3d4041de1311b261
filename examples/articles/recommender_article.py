"""Recommending with BERT, in the style of an article: the text of a user and the text of an item in, interested or not out.

    python examples/articles/recommender_article.py

The users are eight desks, each with a sentence about its work; the items are records that reached one of them. `README.md` beside this
file lists what such scripts usually get wrong; numbers in brackets refer to its rows. `examples/finetune_pairs.py` shows the harder case,
users that were not in training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import minigrad as mg
from minigrad.data import PackedLoader, Record, Tokenizer, read_records, split_records
from minigrad.errors import MinigradError
from minigrad.models import BertForSequenceClassification
from minigrad.optim import AdamW, LinearSchedule, clip_grad_norm, decay_groups
from minigrad.train.metrics import accuracy, classification_report, roc_auc

RECORDS = Path(__file__).resolve().parents[1] / "data" / "records.jsonl"
USERS = {
    "maintenance": "We repair machines and buildings; work orders and technicians' notes come to us.",
    "triage": "We are nurses who decide how urgent a patient is.",
    "banking": "We answer complaints and questions of a bank's customers about cards, accounts and transfers.",
    "shopping": "We read the reviews of products that people bought.",
    "traffic": "We tell drivers and passengers of incidents on road and rail.",
    "energy": "We look after power, gas and water: meters, plants, consumption and outages.",
    "it_support": "We help colleagues whose computers, accounts or networks fail.",
    "hospitality": "We run a hotel and its kitchen, and want to know what guests say.",
}
NAMES = ("not interested", "interested")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="minilm-l6", metavar="DIR|ID|minilm-l6")
    add("--layers", type=int, default=4, metavar="N", help="keep the first N encoder layers (default 4)")
    add("--records", type=Path, default=RECORDS, metavar="FILE", help="records whose labels are the desks")
    add("--epochs", type=int, default=6)
    add("--lr", type=float, default=2e-4)
    add("--output", type=Path, default=Path("runs/recommender-article"), metavar="DIR", help="the best model")
    return parser.parse_args(arguments)


def make_pairs(records: Sequence[Record], generator: np.random.Generator) -> list[tuple[str, str, int]]:
    """Two pairs (user, item, label) per record: its own desk (1) and another one (0), so the item alone does not give away the label."""
    pairs = []
    for record in records:
        others = [desk for desk in USERS if desk != record.label]
        pairs += [(USERS[str(record.label)], record.text, 1), (USERS[others[generator.integers(len(others))]], record.text, 0)]
    return pairs


def make_loader(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str, int]], **dealing: Any) -> PackedLoader:
    """A loader with both texts in one sequence. Token types are passed on, because they distinguish the two."""
    users, items, labels = zip(*pairs, strict=True)
    encodings = tokenizer.encode(users, pairs=items, max_length=96)
    return PackedLoader([e.ids for e in encodings], labels, token_types=[e.type_ids for e in encodings], **dealing)


def interest(model: BertForSequenceClassification, loader: PackedLoader) -> np.ndarray[Any, Any]:
    """The probability of "interested" for each pair."""
    with model.evaluating(), mg.no_grad():
        logits = [model(batch.tokens).logits for batch in loader.epoch()]  # [6]: the logits, not the output object
        return np.concatenate([mg.functional.softmax(rows).numpy()[:, 1] for rows in logits])


def main(arguments: Sequence[str] | None = None) -> float:
    options = parse_arguments(arguments)
    mg.manual_seed(0)
    generator = np.random.default_rng(0)

    # Collect, split, pair. The split comes first: a record's two pairs, and copies of a record, must not be on both sides.
    parts = split_records(read_records(options.records), {"train": 0.7, "dev": 0.15, "test": 0.15}, seed=0)
    pairs = {name: make_pairs(rows, generator) for name, rows in parts.items()}
    print(", ".join(f"{len(rows)} {name} pairs" for name, rows in pairs.items()))

    # Tokenise.
    directory = mg.io.find_checkpoint(options.model)
    tokenizer = Tokenizer.from_pretrained(directory)
    loaders = {
        name: make_loader(tokenizer, rows, batch_size=16 if name == "train" else 64, shuffle=name == "train")
        for name, rows in pairs.items()
    }

    # Freeze the word embeddings, train the rest, keep the model that ranks the dev pairs best: higher AUC is better. [4]
    model = BertForSequenceClassification.from_pretrained(directory, id2label=dict(enumerate(NAMES)), num_hidden_layers=options.layers)
    model.freeze("bert.embeddings")
    optimizer = AdamW(decay_groups(model.named_parameters(), 0.01), lr=options.lr)
    steps = options.epochs * len(loaders["train"])
    schedule = LinearSchedule(optimizer, warmup_steps=steps // 10, total_steps=steps)
    best = -1.0
    for epoch in range(options.epochs):
        model.train()
        for batch in loaders["train"].epoch(epoch):
            loss = model(batch.tokens, labels=batch.labels).loss
            loss.backward()
            clip_grad_norm(model.parameters(), max_norm=1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        auc = roc_auc(loaders["dev"].labels, interest(model, loaders["dev"]))
        print(f"epoch {epoch + 1}: last loss {loss.item():.3f}, dev AUC {auc:.3f}{' (best so far)' if auc > best else ''}")
        if auc > best:
            best = auc
            model.save_pretrained(options.output)
            tokenizer.save_pretrained(options.output)

    # Evaluate the model that was kept. The classes are balanced, so guessing is right half of the time.
    model = BertForSequenceClassification.from_pretrained(options.output)
    scores, true = interest(model, loaders["test"]), loaders["test"].labels
    said = (scores > 0.5).astype(int)
    print(
        f"\nTest pairs: accuracy {accuracy(true, said):.3f}, AUC {roc_auc(true, scores):.3f}\n{classification_report(true, said, NAMES)}\n"
    )

    # Recommend: which desks should see this record?
    record = parts["test"][0]
    ranking = interest(model, make_loader(tokenizer, [(about, record.text, 0) for about in USERS.values()]))
    print(f"{record.text}  (in truth: {record.label})")
    for score, desk in sorted(zip(ranking, USERS, strict=True), reverse=True)[:3]:
        print(f"  {score:.2f} {desk}")
    return roc_auc(true, scores)


if __name__ == "__main__":
    try:
        main()
    except (MinigradError, OSError) as error:
        sys.exit(f"error: {error}")

"""Named entities with BERT, in the style of an article: one script from raw records to tagged sentences, each part written out.

    python examples/articles/ner_article.py

`README.md` beside this file lists what such scripts usually get wrong; numbers in brackets refer to its rows. For your own work use
`examples/finetune_ner.py`, whose trainer can be stopped and resumed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import minigrad as mg
from minigrad.data import LabelMap, PackedLoader, Record, Tokenizer, encode_words, join_words, read_records, split_records, token_labels
from minigrad.data.alignment import Place, Window, tags_of_words, unaligned
from minigrad.errors import DataError, MinigradError
from minigrad.models import BertForTokenClassification
from minigrad.optim import AdamW, LinearSchedule, clip_grad_norm, decay_groups
from minigrad.train.metrics import ner_report

RECORDS = Path(__file__).resolve().parents[1] / "data" / "records.jsonl"
SENTENCE = "The lift in Harbour House has been stuck since 6 am, ticket HD-2291."


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="minilm-l6", metavar="DIR|ID|minilm-l6")
    add("--layers", type=int, default=4, metavar="N", help="keep the first N encoder layers (default 4)")
    add("--records", type=Path, default=RECORDS, metavar="FILE", help="records with entities")
    add("--epochs", type=int, default=5)
    add("--lr", type=float, default=3e-4)
    add("--output", type=Path, default=Path("runs/ner-article"), metavar="DIR", help="the best model")
    return parser.parse_args(arguments)


def predicted_tags(
    model: BertForTokenClassification, windows: list[Window], places: list[list[Place]], labels: LabelMap
) -> list[list[str]]:
    """The tags of the words of each record. There is no padding here, and only the first piece of a word counts. [2]"""
    loader = PackedLoader([window.ids for window in windows], batch_size=32)
    rows = []
    with model.evaluating(), mg.no_grad():
        for batch in loader.epoch():
            logits = model(batch.tokens).logits.numpy()  # [6]: the output is an object with several fields, one of them the logits
            rows += [logits[first:past] for first, past in batch.tokens.packing.spans]
    scores = join_words(windows, rows, [len(words) for words in places])
    return [[labels.names[i] for i in row.argmax(axis=1)] for row in scores]


def main(arguments: Sequence[str] | None = None) -> float:
    options = parse_arguments(arguments)
    mg.manual_seed(0)

    # Collect and clean. Rows that cannot be read are counted, not silently dropped; so are spans that word tags cannot express.
    left_out: list[DataError] = []
    records = read_records(options.records, skipped=left_out)
    print(f"{len(records)} records, {len(left_out)} left out", *left_out, sep="\n  ")

    # Split. Copies of a record are never on both sides, and entity types are spread evenly.
    parts: dict[str, list[Record]] = split_records(records, seed=0)

    # Tokenise and align. A word may become several tokens: the first one gets the tag, all others -100. [1]
    directory = mg.io.find_checkpoint(options.model)
    tokenizer = Tokenizer.from_pretrained(directory)
    labels = LabelMap.of_tags(parts["train"])
    number = {tag: i for i, tag in enumerate(labels.names)}
    encoded = {name: encode_words(tokenizer, rows, max_length=96) for name, rows in parts.items()}
    gold = {
        name: [tags_of_words(record, words) for record, words in zip(rows, encoded[name][1], strict=True)] for name, rows in parts.items()
    }
    cut = sum(len(unaligned(record, words)) for name, rows in parts.items() for record, words in zip(rows, encoded[name][1], strict=True))
    print(f"{cut} entities begin or end inside a word and are widened to the whole of it")
    windows = encoded["train"][0]
    ids = token_labels(windows, [np.array([number[tag] for tag in tags]) for tags in gold["train"]])
    loader = PackedLoader([window.ids for window in windows], token_labels=ids, batch_size=16, shuffle=True)

    # Freeze. A few hundred records are too few to train the word embeddings.
    model = BertForTokenClassification.from_pretrained(directory, id2label=dict(enumerate(labels.names)), num_hidden_layers=options.layers)
    print(f"{len(model.freeze('bert.embeddings'))} parameter tensors are frozen")

    # Train, evaluate, keep the best. Higher F1 is better, so `best` starts below any possible value. [4]
    optimizer = AdamW(decay_groups(model.named_parameters(), 0.01), lr=options.lr)
    steps = options.epochs * len(loader)
    schedule = LinearSchedule(optimizer, warmup_steps=steps // 10, total_steps=steps)
    best = -1.0
    for epoch in range(options.epochs):
        model.train()
        for batch in loader.epoch(epoch):
            loss = model(batch.tokens, labels=batch.token_labels).loss
            loss.backward()
            clip_grad_norm(model.parameters(), max_norm=1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        f1 = ner_report(gold["dev"], predicted_tags(model, *encoded["dev"], labels)).entity.micro.f1
        print(f"epoch {epoch + 1}: last loss {loss.item():.3f}, dev entity F1 {f1:.3f}{' (best so far)' if f1 > best else ''}")
        if f1 > best:
            best = f1
            model.save_pretrained(options.output)
            tokenizer.save_pretrained(options.output)

    # Evaluate the model that was kept, not the last one. Tags stay grouped by sentence: entities need whole sentences. [3]
    model = BertForTokenClassification.from_pretrained(options.output)
    report = ner_report(gold["test"], predicted_tags(model, *encoded["test"], labels))
    print(f"\nTest records:\n{report}\n")

    # Predict.
    print(SENTENCE)
    for entity in mg.pipeline("token-classification", options.output, aggregation_strategy="first")(SENTENCE):
        print(f"  {entity['entity_group']:9s} {SENTENCE[entity['start'] : entity['end']]}  {entity['score']:.2f}")
    return report.entity.micro.f1


if __name__ == "__main__":
    try:
        main()
    except (MinigradError, OSError) as error:
        sys.exit(f"error: {error}")

"""Fine-tune a small BERT to sort short records by the desk that must act on them: the whole loop, written out.

    python examples/finetune_bert_tiny.py

Without arguments it takes the first two layers of a published checkpoint (MiniLM, fetched once, about 90 MB), trains on 624 of the 896
records beside this file, saves the model that is best on 136 others, loads it again, reports on the 136 it never saw and classifies three
sentences. Everything runs on minigrad: no PyTorch, TensorFlow or JAX. Read it from top to bottom as a tutorial; `--help` lists what can
be changed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import minigrad as mg
from minigrad.data import LabelMap, PackedLoader, Record, Tokenizer, read_records
from minigrad.errors import ArgumentError, DataError, MinigradError
from minigrad.files import write_text
from minigrad.models import BertForSequenceClassification
from minigrad.optim import AdamW, LinearSchedule, clip_grad_norm, decay_groups
from minigrad.train import accuracy, classification_report

HERE = Path(__file__).resolve().parent
SPLITS = ("train", "dev", "test")
SENTENCES = (
    "Pump 3 is leaking oil again, seal replaced last week already",
    "my card was charged twice for the same transfer and nobody answers",
    "Signal failure near the junction, trains held for forty minutes",
)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default="minilm-l6", metavar="DIR|ID|minilm-l6", help="a model directory, a Hugging Face id, or the named checkpoint")
    add("--layers", type=int, default=2, metavar="N", help="keep the first N encoder layers (default 2)")
    for split in SPLITS:
        add(f"--{split}", type=Path, metavar="FILE", help=f"{split} records: .tsv, .csv or .jsonl with columns text and label")
    add("--epochs", type=int, default=12)
    add("--batch-size", type=int, default=16)
    add("--lr", type=float, default=3e-4, help="peak learning rate (default 3e-4)")
    add("--max-length", type=int, default=128, metavar="TOKENS", help="longer texts are cut, counted and reported")
    add("--weight-decay", type=float, default=0.01)
    add("--warmup-ratio", type=float, default=0.1, help="share of the steps over which the learning rate rises")
    add("--seed", type=int, default=0)
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--output", type=Path, default=Path("runs/bert-tiny-records"), metavar="DIR", help="where the best model and log.jsonl go")
    add("--report", type=Path, metavar="FILE", help="write the figures of this run as JSON")
    add("--freeze", nargs="+", default=[], metavar="PREFIX", help="do not train parameters whose path starts so, e.g. bert.embeddings")
    options = parser.parse_args(arguments)
    if (options.train is None) != (options.dev is None) or (options.test is not None and options.train is None):
        parser.error("--train and --dev go together (--test may be left out); give none of them to use the shipped records")
    if not 0.0 <= options.warmup_ratio <= 1.0:
        parser.error(f"--warmup-ratio lies between 0 and 1, got {options.warmup_ratio}")
    for name, least in (("epochs", 1), ("batch_size", 1), ("layers", 1), ("seed", 0), ("max_length", 3)):  # 3: [CLS], a token, [SEP]
        if getattr(options, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(options, name)}")
    if not 0.0 < options.lr < math.inf:
        parser.error(f"--lr must be a positive number, got {options.lr}")
    if not 0.0 <= options.weight_decay < math.inf:
        parser.error(f"--weight-decay must not be negative, got {options.weight_decay}")
    return options


# What cannot be written should be known before the training, not after it.
def check_places(options: argparse.Namespace) -> None:
    output, report = options.output, options.report
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"--output {output} cannot be made a folder: {error.strerror}") from error
    if not os.access(output, os.W_OK):
        raise ArgumentError(f"--output {output} is not writable")
    if report is not None and (report.is_dir() or not report.parent.is_dir() or not os.access(report.parent, os.W_OK)):
        raise ArgumentError(f"--report {report} cannot be written: it must name a file in a folder that exists and is writable")


# 1. Data. Records come from files; every row that cannot be used is an error that names its file and line.
def load_records(options: argparse.Namespace) -> dict[str, list[Record]]:
    if options.train is not None:
        return {split: read_records(path) for split in SPLITS if (path := getattr(options, split)) is not None}
    shipped = read_records(HERE / "data" / "records.jsonl")
    return {split: [record for record in shipped if record.fields["split"] == split] for split in SPLITS}


# 2. Text to numbers. Nothing is padded: a batch is its sequences' tokens one after another, and where each begins.
def make_loader(tokenizer: Tokenizer, records: list[Record], labels: LabelMap, name: str, options: argparse.Namespace) -> PackedLoader:
    encodings = tokenizer.encode([record.text for record in records], max_length=options.max_length)
    truncated = sum(encoding.truncated for encoding in encodings)
    if truncated:
        print(f"{name}: {truncated} of {len(records)} texts are longer than {options.max_length} tokens and were cut")
    return PackedLoader(
        [encoding.ids for encoding in encodings],
        labels.ids(records),
        batch_size=options.batch_size,
        shuffle=name == "train",
        seed=options.seed,
    )


# 3. Evaluation: dropout off, nothing recorded.
def predict(model: BertForSequenceClassification, loader: PackedLoader) -> np.ndarray[Any, Any]:
    with model.evaluating(), mg.no_grad():
        logits = np.concatenate([model(batch.tokens).logits.numpy() for batch in loader.epoch()])
    if not np.isfinite(logits).all():
        raise MinigradError("the model's outputs are not finite: the training has diverged; a smaller --lr may help")
    return logits.argmax(axis=1)


# 4. Training: forward, backward, clip, step. Whenever the model is better on the dev records than ever before, it is saved.
def train(
    model: BertForSequenceClassification, tokenizer: Tokenizer, loaders: dict[str, PackedLoader], options: argparse.Namespace
) -> dict[str, Any]:
    optimizer = AdamW(decay_groups(model.named_parameters(), options.weight_decay), lr=options.lr)
    total_steps = options.epochs * len(loaders["train"])
    schedule = LinearSchedule(optimizer, warmup_steps=int(options.warmup_ratio * total_steps), total_steps=total_steps)
    seconds_per_epoch, tokens_seen, best_accuracy = [], 0, -1.0
    with (options.output / "log.jsonl").open("w", encoding="utf-8") as log, tqdm(total=total_steps, unit="step") as bar:
        for epoch in range(options.epochs):
            model.train()
            started, epoch_tokens = time.perf_counter(), 0
            for batch in loaders["train"].epoch(epoch):
                loss = model(batch.tokens, labels=batch.labels).loss
                loss.backward()
                norm = clip_grad_norm(model.parameters(), max_norm=1.0)
                if not (math.isfinite(loss.item()) and math.isfinite(norm)):
                    raise MinigradError(f"step {bar.n + 1}: loss {loss.item()}, gradient norm {norm}; a smaller --lr may help")
                learning_rate = optimizer.param_groups[0]["lr"]
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()

                epoch_tokens += batch.tokens.packing.rows
                speed = epoch_tokens / (time.perf_counter() - started)
                bar.set_postfix(epoch=epoch + 1, loss=f"{loss.item():.3f}", tokens_per_s=f"{speed:.0f}", refresh=False)
                bar.update()
                log.write(
                    json.dumps({"step": bar.n, "epoch": epoch + 1, "loss": loss.item(), "lr": learning_rate, "grad_norm": norm}) + "\n"
                )
            seconds_per_epoch.append(time.perf_counter() - started)
            tokens_seen += epoch_tokens
            dev_accuracy = accuracy(loaders["dev"].labels, predict(model, loaders["dev"]))
            better = dev_accuracy > best_accuracy
            if better:
                best_accuracy = dev_accuracy
                model.save_pretrained(options.output)
                tokenizer.save_pretrained(options.output)
            note = " (best so far, saved)" if better else ""
            tqdm.write(f"epoch {epoch + 1}: dev accuracy {dev_accuracy:.3f}{note}  {seconds_per_epoch[-1]:.1f} s")
            log.write(json.dumps({"epoch": epoch + 1, "dev_accuracy": dev_accuracy, "seconds": seconds_per_epoch[-1]}) + "\n")
    return {
        "dev": {"accuracy": best_accuracy},
        "seconds_per_epoch": [round(s, 2) for s in seconds_per_epoch],
        "tokens_per_second": round(tokens_seen / sum(seconds_per_epoch)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    check_places(options)
    mg.manual_seed(options.seed)
    records = load_records(options)
    labels = LabelMap.from_records(records["train"])
    if len(labels) < 2:
        raise DataError(records["train"][0].path, f"every training record has the label {labels.names[0]!r}; two or more are needed")
    print(", ".join(f"{len(rows)} {split}" for split, rows in records.items()), f"records, {len(labels.names)} classes:", *labels.names)

    directory = mg.io.find_checkpoint(options.model)
    tokenizer = Tokenizer.from_pretrained(directory)
    model = BertForSequenceClassification.from_pretrained(
        directory, id2label=dict(enumerate(labels.names)), num_hidden_layers=options.layers
    ).to(options.device)
    if options.freeze:
        print(f"frozen: {len(model.freeze(*options.freeze))} parameter tensors")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ArgumentError(f"--freeze {' '.join(options.freeze)} leaves nothing to train")
    loaders = {split: make_loader(tokenizer, rows, labels, split, options) for split, rows in records.items()}

    try:
        figures = train(model, tokenizer, loaders, options)
    except KeyboardInterrupt:
        sys.exit(f"interrupted: the best model of the epochs that were finished, if any, is in {options.output}")

    # 5. Load the best model from its directory, as a new process would, and use it.
    print(f"loading the best model from {options.output}")
    tokenizer = Tokenizer.from_pretrained(options.output)
    model = BertForSequenceClassification.from_pretrained(options.output).to(options.device)
    if "test" in loaders:
        report = classification_report(loaders["test"].labels, predict(model, loaders["test"]), labels.names)
        figures["test"] = report.to_dict()
        print(f"\nTest records:\n{report}\n")
    with mg.no_grad():
        tokens = mg.data.PackedTokens.of([encoding.ids for encoding in tokenizer.encode(SENTENCES, max_length=options.max_length)])
        probabilities = mg.functional.softmax(model(tokens).logits).numpy()
    for sentence, row in zip(SENTENCES, probabilities, strict=True):
        print(f"  {row.max():.2f} {model.config.id2label[int(row.argmax())]:12s} {sentence}")

    if options.report is not None:
        figures["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        figures["options"] = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
        write_text(options.report, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (MinigradError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")

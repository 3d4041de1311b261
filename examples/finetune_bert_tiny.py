"""Fine-tune a small BERT to route short records to the desk that must act on them: every step from files to answers.

    python examples/finetune_bert_tiny.py

Without arguments it takes the first two layers of a published checkpoint (MiniLM, fetched once, about 90 MB), trains on 624 of the 896
records beside this file, keeps the model that is best on 136 others, loads it again, reports on the 136 held-out ones and classifies three
sentences. --resume continues an interrupted run. Everything runs on minigrad: no PyTorch, TensorFlow or JAX. Read it from top to bottom as
a tutorial; `--help` lists the options.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import minigrad as mg
from minigrad.data import Record, Tokenizer, read_records
from minigrad.errors import ArgumentError, MinigradError
from minigrad.files import write_text
from minigrad.train import Progress, Task, Trainer, TrainingSettings, classification_report, task_of
from minigrad.train.events import Event
from minigrad.train.tasks import Examples

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
    add("--device", choices=("cpu", "cuda", "auto"), default="cpu")
    add("--output", type=Path, default=Path("runs/bert-tiny-records"), metavar="DIR", help="log.jsonl, checkpoints/ and best/ go here")
    add("--resume", action="store_true", help="go on with the run in --output")
    add("--report", type=Path, metavar="FILE", help="write the figures of this run as JSON")
    add("--freeze", nargs="+", default=[], metavar="PREFIX", help="freeze parameters whose path starts with it, e.g. bert.embeddings")
    options = parser.parse_args(arguments)
    if (options.train is None) != (options.dev is None) or (options.test is not None and options.train is None):
        parser.error("--train and --dev go together (--test may be left out); give none of them to use the shipped records")
    return options


# Find out before training, not after it, that an output cannot be written.
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


# 1. Data. Records come from files; a row that cannot be used is an error that names its file and line.
def load_records(options: argparse.Namespace) -> dict[str, list[Record]]:
    if options.train is not None:
        return {split: read_records(path) for split in SPLITS if (path := getattr(options, split)) is not None}
    shipped = read_records(HERE / "data" / "records.jsonl")
    return {split: [record for record in shipped if record.fields["split"] == split] for split in SPLITS}


# 2. Text to numbers. Nothing is padded: a batch holds the tokens of its sequences one after another, and where each begins.
def encode(task: Task, tokenizer: Tokenizer, split: str, records: list[Record], options: argparse.Namespace) -> Examples:
    dealing = {"batch_size": options.batch_size, "shuffle": True, "seed": options.seed} if split == "train" else {}
    examples = task.examples(tokenizer, records, options.max_length, **dealing)
    if examples.truncated:
        print(f"{split}: {examples.truncated} of {len(records)} texts are longer than {options.max_length} tokens and were cut")
    return examples


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    check_places(options)
    settings = TrainingSettings(
        epochs=options.epochs,
        lr=options.lr,
        weight_decay=options.weight_decay,
        warmup=options.warmup_ratio,
        freeze=tuple(options.freeze),
        metric="accuracy",
        seed=options.seed,
    )
    records = load_records(options)
    task = task_of("sequence-classification", records["train"])
    names = task.labels.names
    print(", ".join(f"{len(rows)} {split}" for split, rows in records.items()), f"records, {len(names)} classes:", *names)

    directory = mg.io.find_checkpoint(options.model)
    tokenizer = Tokenizer.from_pretrained(directory)
    mg.manual_seed(options.seed)  # for the new head's initial weights
    model = mg.models.load(directory, task.head, num_hidden_layers=options.layers, **task.options()).to(options.device)
    examples = {split: encode(task, tokenizer, split, rows, options) for split, rows in records.items()}

    # 3. Evaluation: dropout off, nothing recorded. Returns metrics by name; `settings.metric` names the one that decides what is best.
    def evaluate() -> dict[str, float]:
        return task.evaluate(model, examples["dev"]).metrics

    # 4. Saving the best model: everything that a new process needs to load it.
    def save_model(place: Path) -> None:
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)

    # 5. Training: forward, backward, clip, step, for each batch. After each epoch the model is evaluated, saved to best/ if it is the best
    # so far, and a checkpoint is written. Every step and evaluation is a line of log.jsonl.
    # A callback is any function of an event: here a progress bar, and one that notes the speed for the report.
    marks: list[float] = []
    speeds: list[float] = []

    def note_speed(event: Event) -> None:
        if event["event"] == "step":
            speeds.append(event["tokens_per_second"])
        elif event["event"] in ("start", "evaluation"):
            marks.append(trainer.at.seconds)

    trainer = Trainer(
        model,
        task.objective,
        examples["train"].loader,
        settings,
        evaluate=evaluate,
        output=options.output,
        save_model=save_model,
        callbacks=[Progress(), note_speed],
    )
    if options.freeze:
        print(f"frozen: {sum(not parameter.requires_grad for parameter in model.parameters())} parameter tensors")
    result = trainer.fit(resume=options.resume)
    if result.reason == "interrupted":
        print(f"stopped after step {result.step}; --resume goes on from there", file=sys.stderr)
        sys.exit(result.exit_code)
    figures = {
        "dev": result.best["metrics"],
        "seconds_per_epoch": [round(past - first, 2) for first, past in pairwise(marks)],
        "tokens_per_second": round(speeds[-1]) if speeds else 0,  # none if the resumed run was already finished
    }

    # 6. Load the best model from its directory, as a new process would, and use it.
    best = options.output / "best"
    print(f"loading the best model, of step {result.best['step']}, from {best}")
    if "test" in examples:
        rows = task.evaluate(mg.models.load(best).to(options.device), examples["test"]).predictions
        said = [names.index(row["prediction"]) for row in rows]
        report = classification_report(task.labels.ids(records["test"]), said, names)
        figures["test"] = report.to_dict()
        print(f"\nTest records:\n{report}\n")
    classify = mg.pipeline("text-classification", best, max_length=options.max_length)
    for sentence, answer in zip(SENTENCES, classify(SENTENCES), strict=True):
        print(f"  {answer['score']:.2f} {answer['label']:12s} {sentence}")

    if options.report is not None:
        figures["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        figures["options"] = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
        write_text(options.report, json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (MinigradError, OSError) as error:
        sys.exit(f"error: {error}")

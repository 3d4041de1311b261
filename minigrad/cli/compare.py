"""`python -m minigrad compare`: whether one model's predictions are better than another's on the same records, and how sure that is."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minigrad.cli._options import output_file, writing
from minigrad.cli._prediction_files import Pair, read_pair
from minigrad.errors import ArgumentError
from minigrad.files import listing, quoted, write_text
from minigrad.train import metrics
from minigrad.train.metrics import HIGHER_IS_BETTER, Comparison, GroupReport, McNemar, by_group, mcnemar, paired_bootstrap
from minigrad.train.metrics.bootstrap import Metric
from minigrad.train.not_finite import nulled

DESCRIPTION = (
    "Reads two files of predictions (JSON lines, as a training run writes them) for the same records in the same order, and prints the "
    "scores of both with 95 percent bootstrap intervals, their difference B - A with its interval and p value, and McNemar's test."
)
STATUS = ""

DEFAULT_SCORES = {
    "classification": ("accuracy", "f1_macro", "mcc", "log_loss"),
    "multi-label classification": ("subset_accuracy", "f1_micro", "f1_macro"),
    "regression": ("rmse", "mae", "pearson", "spearman"),
    "token classification": ("entity_f1", "entity_precision", "entity_recall", "token_accuracy"),
}
"""The scores shown without --metric. The first is also the one shown by --group."""


@dataclass(frozen=True)
class Score:
    """A metric and its arguments for each model."""

    metric: Metric
    a: Sequence[Any]
    b: Sequence[Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A.jsonl", help="the predictions of the first model")
    parser.add_argument("b", metavar="B.jsonl", help="the predictions of the second model")
    parser.add_argument("--metric", metavar="NAME", help=f"one score instead of some: {', '.join(list(HIGHER_IS_BETTER)[1:])}")
    parser.add_argument("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap (default 1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default 0)")
    parser.add_argument(
        "--group",
        metavar="COLUMN",
        help="show the score by this key of the rows too, with the gap of best and worst (group, in rows of a run or `evaluate`)",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures there too; the file appears whole or not at all")


def run(options: argparse.Namespace) -> int:
    output = output_file("--json", options.json, options.a, options.b)
    pair = read_pair(Path(options.a), Path(options.b), options.group)
    scores = _scores(pair)
    names = _chosen(options.metric, pair, scores)
    found = {
        name: paired_bootstrap(scores[name].metric, scores[name].a, scores[name].b, resamples=options.resamples, seed=options.seed)
        for name in names
    }
    test = _test(pair)
    groups = _groups(pair, names[0], scores[names[0]]) if options.group is not None else None
    print(_text(pair, found, test))
    if groups is not None:
        print(_group_text(options.group, names[0], *groups))
    if output is not None:
        _write(output, pair, found, test, groups)
    return 0


def _scores(pair: Pair) -> dict[str, Score]:
    """Every score that these files allow, by name."""
    match pair.task:
        case "classification":
            return _classification_scores(pair)
        case "multi-label classification":
            return _multi_label_scores(pair)
        case "regression":
            gold, a, b = (np.array(row) for row in (pair.gold, pair.a.predictions, pair.b.predictions))
            by_name: dict[str, Metric] = {
                "mse": metrics.mean_squared_error,
                "rmse": metrics.root_mean_squared_error,
                "mae": metrics.mean_absolute_error,
                "r2": metrics.r2,
                "pearson": metrics.pearson,
                "spearman": metrics.spearman,
            }
            return {name: Score(metric, (gold, a), (gold, b)) for name, metric in by_name.items()}
        case _:
            sides = (pair.a.predictions, pair.b.predictions)
            entities, tags = (
                [count(pair.gold, predicted)[1] for predicted in sides] for count in (metrics.entity_counts, metrics.tag_counts)
            )
            # Micro-averaged scores need no counts per type: a tenth of the numbers to resample.
            micro = [(counts.sum(axis=1, keepdims=True),) for counts in entities]
            return {
                "entity_f1": Score(metrics.entity_f1, *micro),
                "entity_precision": Score(metrics.entity_precision, *micro),
                "entity_recall": Score(metrics.entity_recall, *micro),
                "token_accuracy": Score(metrics.tag_accuracy, *((counts.sum(axis=1, keepdims=True),) for counts in tags)),
                "token_f1_macro": Score(metrics.tag_f1_macro, *((counts,) for counts in tags)),
            }


def _classification_scores(pair: Pair) -> dict[str, Score]:
    names = sorted({*pair.gold, *pair.a.predictions, *pair.b.predictions, *pair.a.classes, *pair.b.classes})
    number = {name: i for i, name in enumerate(names)}
    gold, a, b = (np.array([number[name] for name in row]) for row in (pair.gold, pair.a.predictions, pair.b.predictions))
    by_name: dict[str, Metric] = {
        "accuracy": metrics.accuracy,
        "f1_macro": partial(metrics.f1, classes=len(names)),
        "f1_micro": partial(metrics.f1, classes=len(names), average="micro"),
        "f1_weighted": partial(metrics.f1, classes=len(names), average="weighted"),
        "precision_macro": partial(metrics.precision, classes=len(names)),
        "recall_macro": partial(metrics.recall, classes=len(names)),
        "mcc": metrics.matthews_correlation,
    }
    found = {name: Score(metric, (gold, a), (gold, b)) for name, metric in by_name.items()}
    if pair.a.probabilities and pair.b.probabilities:
        tables = [side.table(names) for side in (pair.a, pair.b)]
        found["log_loss"] = Score(metrics.log_loss, *((gold, table) for table in tables))
        found["roc_auc"] = Score(metrics.roc_auc, *((gold, table[:, 1] if len(names) == 2 else table) for table in tables))
    return found


def _multi_label_scores(pair: Pair) -> dict[str, Score]:
    rows = (pair.gold, pair.a.predictions, pair.b.predictions)
    names = sorted({name for side in rows for row in side for name in row})
    gold, a, b = (np.array([[name in row for name in names] for row in side]) for side in rows)
    by_name: dict[str, Metric] = {"subset_accuracy": metrics.subset_accuracy}
    by_name |= {f"f1_{average}": partial(metrics.multi_label_f1, average=average) for average in ("micro", "macro", "weighted")}
    return {name: Score(metric, (gold, a), (gold, b)) for name, metric in by_name.items()}


def _chosen(metric: str | None, pair: Pair, scores: dict[str, Score]) -> list[str]:
    if metric is None:
        return [name for name in DEFAULT_SCORES[pair.task] if name in scores]
    if metric not in scores:
        need = "; log_loss and roc_auc need probabilities in both files" if metric in ("log_loss", "roc_auc") else ""
        raise ArgumentError(f"--metric {quoted(metric)} is none of {pair.task} here: {listing(scores)}{need}")
    return [metric]


def _test(pair: Pair) -> McNemar | None:
    """McNemar's test of which records are right; None for numbers, which are neither right nor wrong.

    Of tags it takes whole sentences, because the words of a sentence are not independent.
    """
    if pair.task == "regression":
        return None
    right_a, right_b = (
        np.array([gold == said for gold, said in zip(pair.gold, side.predictions, strict=True)]) for side in (pair.a, pair.b)
    )
    return mcnemar(right_a, right_b)


def _groups(pair: Pair, name: str, score: Score) -> tuple[GroupReport, GroupReport]:
    better = HIGHER_IS_BETTER[name]
    a, b = (by_group(score.metric, pair.groups, *arrays, higher_is_better=better) for arrays in (score.a, score.b))
    return a, b


# ---- what is printed and written


def _text(pair: Pair, found: dict[str, Comparison], test: McNemar | None) -> str:
    rows = [("", "A", "B", "B - A", "p")]
    for name, comparison in found.items():
        title = name if HIGHER_IS_BETTER[name] else f"{name} (less is better)"
        change = comparison.difference
        signed = f"{change.value:+.4f} [{change.low:+.4f}, {change.high:+.4f}]"
        rows.append((title, str(comparison.a), str(comparison.b), signed, f"{comparison.p_value:.4g}"))
    lines = [f"A  {pair.a.path}", f"B  {pair.b.path}", f"{len(pair.gold):,} records, {pair.task}", "", *_aligned(rows)]
    if test is not None:
        kind = "exact" if test.exact else f"chi-square {test.statistic:.4g}"
        units = {"token classification": "sentences right in every tag", "multi-label classification": "right in every label"}
        unit = units.get(pair.task, "right")
        lines += [
            "",
            f"McNemar: {test.only_a} {unit} in A alone, {test.only_b} in B alone; p = {test.p_value:.4g} ({kind})",
        ]
    return "\n".join(lines)


def _group_text(column: str, name: str, a: GroupReport, b: GroupReport) -> str:
    rows = [(f"{name} by {column}", "A", "B", "support")]
    for group, score in a.groups.items():
        shown = group if group.isprintable() else quoted(group)
        rows.append((shown, f"{score.value:.4f}", f"{b.groups[group].value:.4f}", str(score.support)))
    rows.append(("gap of best and worst", f"{a.gap:.4f}", f"{b.gap:.4f}", ""))
    return "\n".join(["", *_aligned(rows), *a.notes])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _write(
    path: Path, pair: Pair, found: dict[str, Comparison], test: McNemar | None, groups: tuple[GroupReport, GroupReport] | None
) -> None:
    content = {
        "a": str(pair.a.path),
        "b": str(pair.b.path),
        "task": pair.task,
        "records": len(pair.gold),
        "metrics": {name: asdict(comparison) for name, comparison in found.items()},
        "mcnemar": None if test is None else asdict(test),
        "groups": None if groups is None else {"a": groups[0].to_dict(), "b": groups[1].to_dict()},
    }
    with writing(path):
        write_text(path, json.dumps(nulled(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n")

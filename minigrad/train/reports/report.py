"""The report of a training run: its inputs, progress, results, and the model's mistakes, from the files of the run alone.

It can be written while the run goes on, after it was killed, or years later: missing parts are left out and named. The figures are
first gathered as plain values, which become report.json; report.html displays them (`html`).
"""

from __future__ import annotations

import json
import shlex
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np

from minigrad import plots
from minigrad.errors import DataError
from minigrad.files import parse_json, read_bounded, write_text
from minigrad.train.config import CONFIG_NAME, MAX_CONFIG_BYTES
from minigrad.train.events import LOG_NAME
from minigrad.train.metrics import HIGHER_IS_BETTER
from minigrad.train.not_finite import nulled, number
from minigrad.train.reports.html import page
from minigrad.train.reports.log_reader import read_log
from minigrad.train.reports.prediction_summary import summarise
from minigrad.train.reports.tally import Summary

PREDICTIONS = "predictions-*.jsonl"
SMOOTHED_FROM = 50
"""The number of steps from which on a smoothed loss curve is drawn, too. It averages over about a thirtieth of the run."""

Event = dict[str, Any]
Point = tuple[float, float]


@dataclass(frozen=True)
class Report:
    """The files of a report, and sentences about what is missing from the run."""

    html: Path
    json: Path
    charts: tuple[Path, ...]
    absent: tuple[str, ...]


def write_report(run_directory: str | Path) -> Report:
    """Write report.html, report.json and the charts as .svg files into a run's directory, each atomically.

    Reads config.toml, log.jsonl and predictions-*.jsonl, as far as they exist.
    Raises: DataError if none of them exists (code no-run), or one is invalid; OSError if the directory cannot be written to.
    """
    directory = Path(run_directory)
    found = [(path.stem.removeprefix("predictions-"), path) for path in directory.glob(PREDICTIONS)]
    predictions = dict(sorted(found, key=lambda pair: (pair[0] != "test", pair[0])))  # the test split first
    has_config, has_log = (directory / CONFIG_NAME).exists(), (directory / LOG_NAME).exists()
    if not (predictions or has_config or has_log):
        message = f"is no directory of a run: there is neither {CONFIG_NAME} nor {LOG_NAME} nor {PREDICTIONS}"
        raise DataError(directory, message, code="no-run")
    config = _config(directory / CONFIG_NAME) if has_config else None
    events = read_log(directory / LOG_NAME) if has_log else []
    summaries = [summarise(path, split) for split, path in predictions.items()]

    curves = _curves(events)
    charts = dict(curves)
    for summary in reversed(summaries):  # if several have a chart of the same name, the file is that of the first
        charts |= summary.charts
    data = _gather(directory, config, events, summaries)
    files = {f"{name}.svg": chart for name, chart in charts.items()}
    files["report.json"] = json.dumps(data, indent=1, ensure_ascii=True, allow_nan=False) + "\n"
    files["report.html"] = page(data, curves, [summary.charts for summary in summaries])
    for name, text in files.items():
        write_text(directory / name, text)
    svg = tuple(directory / name for name in files if name.endswith(".svg"))
    return Report(directory / "report.html", directory / "report.json", svg, tuple(data["absent"]))


def _config(path: Path) -> dict[str, Any]:
    content = read_bounded(path, MAX_CONFIG_BYTES, DataError, "size-limit")
    try:
        values = nulled(tomllib.loads(content.decode("utf-8")))
        config: dict[str, Any] = parse_json(json.dumps(values, default=str))  # times and dates become strings
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"not valid TOML: {error}", code="bad-toml") from None
    return config


# ---- the figures


def _gather(directory: Path, config: Mapping[str, Any] | None, events: Sequence[Event], summaries: Sequence[Summary]) -> dict[str, Any]:
    starts = _of_kind(events, "start")
    about = _mapping(starts[0].get("run")) if starts else {}
    command = about.get("command")
    evaluations = [
        {"step": event["step"], "split": str(event.get("split", "")), "best": event.get("best") is True, "metrics": _metrics(event)}
        for event in _of_kind(events, "evaluation")
    ]
    data = {
        "format": 1,
        "run": directory.resolve().name,
        "overview": _overview(events, about),
        "config": config if config is not None else _mapping(about.get("config")),
        "command": shlex.join(map(str, command)) if isinstance(command, list) else None,
        "environment": _mapping(about.get("environment")),
        "data": {split: _mapping(facts) for split, facts in _mapping(about.get("data")).items()},
        "evaluations": evaluations,
        "notices": _notices(events),
        "splits": [summary.figures for summary in summaries],
    }
    gathered: dict[str, Any] = nulled(data | {"absent": _absent(data, events, has_config=config is not None)})
    return gathered


def _overview(events: Sequence[Event], about: Mapping[str, Any]) -> dict[str, Any]:
    """The known key figures of the run."""
    steps = _of_kind(events, "step")
    end = _end(events) or {}
    facts: dict[str, Any] = {
        "status": end.get("reason") if end else "not ended, or killed" if events else None,
        "steps done": events[-1]["step"] if events else None,
        "steps planned": next((event.get("total_steps") for event in _of_kind(events, "start")), None),
        "seconds of training": end.get("seconds"),
        "parameters": about.get("parameters"),
        "trained parameters": about.get("trainable"),
    }
    for name, key, pick in (
        ("tokens per second (median)", "tokens_per_second", np.median),
        ("padding saved (mean share)", "padding_saved", np.mean),
        ("memory in MiB (highest)", "memory_mb", np.max),
        ("GPU memory in MiB (highest)", "gpu_memory_mb", np.max),
    ):
        values = [value for event in steps if (value := number(event.get(key))) is not None]
        facts[name] = float(pick(values)) if np.isfinite(values).all() and values else None
    best = next((event for event in reversed(_of_kind(events, "evaluation")) if event.get("best") is True), None)
    if best is not None:
        facts |= {"best at step": best["step"]} | {f"best {name}": value for name, value in _metrics(best).items()}
    return {name: value for name, value in facts.items() if value is not None}


def _notices(events: Sequence[Event]) -> list[dict[str, Any]]:
    found = []
    for event in events:
        if event["event"] == "notice":
            found.append({"step": event["step"], "message": str(event.get("message", ""))})
        elif event["event"] == "start" and event.get("resumed") is True:
            found.append({"step": event["step"], "message": "resumed from a checkpoint"})
        elif event["event"] == "end" and event.get("reason") not in ("finished", None):
            found.append({"step": event["step"], "message": f"ended: {event['reason']}"})
    if events and _end(events) is None:
        found.append({"step": events[-1]["step"], "message": "the log has no end: the run goes on, or was killed"})
    return found


def _absent(data: Mapping[str, Any], events: Sequence[Event], *, has_config: bool) -> list[str]:
    """A sentence for each missing part of the report."""
    missing = {
        f"There is no {CONFIG_NAME}" + ("; the configuration is that of the log." if data["config"] else "."): has_config,
        f"There is no {LOG_NAME}, or no event in it: no curves, notices, data summary or environment.": bool(events),
        "The log has no steps, so there are no curves of the training.": not events or bool(_of_kind(events, "step")),
        "The log has no evaluations, so there are no curves of metrics.": not events or bool(data["evaluations"]),
        "The log does not say by which command the run was started.": not events or data["command"] is not None,
        f"There are no {PREDICTIONS}: no scores by class and no mistakes.": bool(data["splits"]),
    }
    return [sentence for sentence, there in missing.items() if not there]


def _mapping(value: Any) -> dict[str, Any]:
    """The value if it is a JSON object; else an empty one."""
    return value if isinstance(value, dict) else {}


def _end(events: Sequence[Event]) -> Event | None:
    """The event that ended the run, unless the run was resumed since; an evaluation may follow it."""
    last = next((event for event in reversed(events) if event["event"] in ("start", "step", "end")), None)
    return last if last is not None and last["event"] == "end" else None


def _of_kind(events: Sequence[Event], kind: str) -> list[Event]:
    return [event for event in events if event["event"] == kind]


def _metrics(event: Event) -> dict[str, float]:
    found = {name: number(value) for name, value in _mapping(event.get("metrics")).items()}
    return {name: value for name, value in found.items() if value is not None}


# ---- the curves


def _curves(events: Sequence[Event]) -> dict[str, str]:
    """The charts over the steps, by name."""
    steps = _of_kind(events, "step")
    evaluated: dict[str, dict[str, list[Point]]] = {"loss": {}, "metrics": {}, "errors": {}}
    evaluations = _of_kind(events, "evaluation")
    times = Counter(str(event.get("split")) for event in evaluations)
    for event in evaluations:
        if times[str(event.get("split"))] < min(2, max(times.values())):
            continue  # the one point of the test split would be no curve beside those of the dev split
        for name, value in _metrics(event).items():
            place = "loss" if name == "loss" else "metrics" if HIGHER_IS_BETTER.get(name, True) else "errors"
            evaluated[place].setdefault(f"{event.get('split', '')} {name}".strip(), []).append((event["step"], value))
    training = _points(steps, "loss")
    loss = {"training loss": training} if training else {}
    if len(training) >= SMOOTHED_FROM:
        loss["training loss, smoothed"] = _smoothed(training)
    titled = {
        "loss": ("Loss", loss | evaluated["loss"], "loss"),
        "metrics": ("Metrics (higher is better)", evaluated["metrics"], ""),
        "errors": ("Metrics (lower is better)", evaluated["errors"], ""),
        "learning_rate": ("Learning rate", {"learning rate": _points(steps, "lr")}, "learning rate"),
        "gradient_norm": ("Norm of the gradient, before clipping", {"norm": _points(steps, "grad_norm")}, "norm"),
    }
    return {name: plots.lines(title, series, "step", y) for name, (title, series, y) in titled.items() if any(series.values())}


def _points(steps: Sequence[Event], key: str) -> list[Point]:
    """A value for each step; NaN, which leaves a gap, if it is not a number."""
    values = [(float(event["step"]), number(event.get(key))) for event in steps]
    return [(step, nan if value is None else value) for step, value in values]


def _smoothed(points: Sequence[Point]) -> list[Point]:
    """The exponential moving average, with bias correction as in Adam (Kingma and Ba 2015); NaN is skipped."""
    share = 30 / len(points)
    mean, weight, smooth = 0.0, 0.0, []
    for step, value in points:
        if np.isfinite(value):
            mean += share * (value - mean)
            weight += share * (1 - weight)
        smooth.append((step, mean / weight if weight and not isnan(value) else nan))
    return smooth

"""The report of a run: true to the files, whatever is missing, torn or hostile in them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from example_runs import classified, evaluation, events, regressed, start, step, tagged, write_lines, write_run
from hypothesis import given
from hypothesis import strategies as st

from minigrad.errors import DataError
from minigrad.train.metrics import classification_report, ner_report, regression_metrics
from minigrad.train.reports.html import page
from minigrad.train.reports.log_reader import read_log
from minigrad.train.reports.prediction_summary import summarise
from minigrad.train.reports.report import Report, write_report
from minigrad.train.reports.tally import MAX_MISTAKES

any_text = st.text(st.characters(codec=None, categories=None), max_size=30)


class Page(HTMLParser):
    """A page as browsers see it: every element closed where it should be, the text of headings and cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def written(directory: Path, **predictions: Any) -> tuple[Report, dict[str, Any], Page]:
    report = write_report(write_run(directory, **predictions))
    return read(report)


def read(report: Report) -> tuple[Report, dict[str, Any], Page]:
    for chart in report.charts:
        assert ElementTree.parse(chart).getroot().tag.endswith("svg")
    return report, json.loads(report.json.read_text(encoding="utf-8")), Page(report.html.read_text(encoding="utf-8"))


def summary(directory: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    write_lines(directory / "predictions-test.jsonl", rows)
    return summarise(directory / "predictions-test.jsonl", "test").figures


# ---- a whole run


def test_a_whole_run(tmp_path: Path) -> None:
    report, data, shown = written(tmp_path / "first")
    assert report.absent == ()
    assert {path.name for path in report.charts} == {
        "loss.svg", "metrics.svg", "errors.svg", "learning_rate.svg", "gradient_norm.svg", "confusion.svg",
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "first").iterdir()} == {
        "config.toml", "log.jsonl", "predictions-test.jsonl", "report.html", "report.json", *(path.name for path in report.charts),
    }  # fmt: skip
    assert data["overview"]["status"] == "finished" and data["overview"]["steps done"] == 200
    assert data["overview"]["best at step"] == 200 and data["overview"]["memory in MiB (highest)"] == 1000
    assert data["config"]["training"]["lr"] == 5e-5
    assert data["command"] == "python -m minigrad train 'my config.toml'"  # may be pasted into a shell
    assert [e["step"] for e in data["evaluations"]] == [50, 100, 150, 200]
    assert data["notices"] == [{"step": 29, "message": "step 29: the loss is nan; the update was left out (1 of 3)"}]
    headings = {"Overview", "Curves", "Predictions: test", "Data", "Configuration", "Environment", "Reproduce", "Notices"}
    assert headings | {"training.lr", "blas.threads", "negative 400, positive 500", data["command"]} <= set(shown.texts)
    assert sum(tag == "svg" for tag, _ in shown.tags) == len(report.charts)


def test_a_report_is_the_same_each_time_and_replaces_the_one_before(tmp_path: Path) -> None:
    report = write_report(write_run(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert write_report(tmp_path) == report
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    report, _, shown = written(tmp_path)
    assert not {"script", "link", "img", "iframe", "object", "form"} & {tag for tag, _ in shown.tags}
    for _, attributes in shown.tags:
        assert not any(name.startswith("on") or name == "src" for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in report.html.read_text() and "@import" not in report.html.read_text()
    policies = [attributes["content"] for _, attributes in shown.tags if "http-equiv" in attributes]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


# ---- scores


def test_classification_is_scored_as_by_the_metrics(tmp_path: Path) -> None:
    rows = classified(200)
    figures = summary(tmp_path, rows)
    names = list(rows[0]["probabilities"])
    gold, said = ([names.index(row[key]) for row in rows] for key in ("label", "prediction"))
    assert figures["report"] == classification_report(gold, said, names).to_dict()
    assert figures["records"] == figures["labelled"] == 200 and figures["wrong"] == 20
    assert "groups" not in figures


def test_entities_and_tags_are_scored_as_by_the_metrics(tmp_path: Path) -> None:
    rows = tagged(600)  # more than are counted at a time
    rows[7]["predicted"] = ["B-LOC"] * 4
    figures = summary(tmp_path, rows)
    assert figures["report"] == ner_report([row["tags"] for row in rows], [row["predicted"] for row in rows]).to_dict()
    _, _, shown = written(tmp_path / "run", test=rows)
    assert {"Whole entities", "PER", "I-PER", "micro average", "Lovelace I-PER", "Lovelace O"} <= set(shown.texts)


def test_sentences_without_a_word_are_counted(tmp_path: Path) -> None:
    empty: dict[str, Any] = {"text": "", "words": [], "tags": [], "predicted": [], "scores": [], "loss": 0.0, "group": "empty"}
    figures = summary(tmp_path, [{"row": i, **empty} for i in range(300)])
    assert figures["report"]["entity"]["classes"] == {} and figures["groups"]["groups"]["empty"]["support"] == 300


def test_regression_is_scored_as_by_the_metrics(tmp_path: Path) -> None:
    rows = regressed()
    figures = summary(tmp_path, rows)
    expected = regression_metrics([row["label"] for row in rows], [row["prediction"] for row in rows])
    assert {name: figures["scores"][name] for name in expected} == pytest.approx(expected)
    worst = [mistake["loss"] for mistake in figures["mistakes"]]
    assert len(worst) == MAX_MISTAKES and worst == sorted((row["loss"] for row in rows), reverse=True)[:MAX_MISTAKES]
    _, _, shown = written(tmp_path / "run", dev=rows)
    assert {"rmse", "Predictions by label, dev", "second text"} <= set(shown.texts)


def test_numbers_that_are_none_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = regressed(20)
    rows[3] |= {"prediction": "nan", "loss": "nan", "group": "odd"}
    rows[4] |= {"prediction": 1.7e308, "loss": "inf", "group": "odd"}
    figures = summary(tmp_path, rows)
    assert figures["not_finite"] == 2 and figures["scores"]["mae"] < 1
    assert [mistake["row"] for mistake in figures["mistakes"][:2]] == [3, 4] and math.isnan(figures["mistakes"][0]["loss"])
    _, data, _ = written(tmp_path / "run", test=rows)
    assert data["splits"][0]["mistakes"][0]["loss"] is None, "JSON has no NaN"
    assert figures["groups"]["groups"]["odd"] == {"value": None, "support": 2}
    _, _, shown = written(tmp_path / "run", test=rows)
    assert any(text.startswith("2 records left out") for text in shown.texts)
    for row in rows:
        row |= {"prediction": "nan"}
    assert "scores" not in summary(tmp_path, rows)


def test_a_class_may_be_called_nan(tmp_path: Path) -> None:
    figures = summary(tmp_path, [row | {"label": "nan", "prediction": "nan"} for row in classified(3)])
    assert figures["task"] == "classification" and figures["wrong"] == 0


def test_the_worst_mistakes_are_those_of_the_highest_loss(tmp_path: Path) -> None:
    rows = classified(1000)
    mistakes = summary(tmp_path, rows)["mistakes"]
    wrong = [row for row in rows if row["label"] != row["prediction"]]
    assert [mistake["row"] for mistake in mistakes] == [row["row"] for row in reversed(wrong)][:MAX_MISTAKES]
    assert mistakes[0] == {
        "row": 999, "text": "fell apart 999", "text_b": None, "gold": "negative", "prediction": "neutral", "probability": 0.8,
        "loss": 2.3 + 0.999, "group": None,
    }  # fmt: skip


def test_equal_losses_keep_the_first_rows(tmp_path: Path) -> None:
    rows = [row | {"loss": 1.0, "label": "other"} for row in classified(120)]
    assert [mistake["row"] for mistake in summary(tmp_path, rows)["mistakes"]] == list(range(MAX_MISTAKES))


@pytest.mark.parametrize(("rows", "metric"), [(classified(90), "accuracy"), (tagged(90), "entity_f1"), (regressed(90), "mae")])
def test_scores_by_group(tmp_path: Path, rows: list[dict[str, Any]], metric: str) -> None:
    for i, row in enumerate(rows):
        row["group"] = ("de", "en")[i % 2]
        if row["group"] == "en" and "predicted" in row:
            row["predicted"] = ["O"] * 4
    rows[0]["group"] = None
    figures = summary(tmp_path, rows)
    groups = figures["groups"]["groups"]
    assert figures["group_metric"] == metric
    assert {name: score["support"] for name, score in groups.items()} == {"(no group)": 1, "de": 44, "en": 45}
    if metric == "mae":
        errors = [abs(row["label"] - row["prediction"]) for row in rows if row["group"] == "en"]
        assert groups["en"]["value"] == pytest.approx(sum(errors) / 45)
    else:
        assert groups["de"]["value"] == 1
        assert groups["en"]["value"] == (0 if metric == "entity_f1" else pytest.approx(36 / 45))
    _, _, shown = written(tmp_path / "run", test=rows)
    assert {"By group", "de", "en"} <= set(shown.texts)


def test_several_classes_at_once(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    for i in range(40):
        said = ["a"] if i % 4 else ["a", "b"]  # of "b" a quarter is found, nothing else is wrong
        fields = {"labels": ["a", "b"], "predictions": said, "probabilities": {"a": 0.9, "b": 0.4, "never": 0.1}, "loss": 0.5 + i}
        rows.append({"row": i, "text": f"text {i}", "group": "en" if i < 20 else "de", **fields})
    figures = summary(tmp_path, rows)
    assert figures["task"] == "multi-label classification" and (figures["labelled"], figures["wrong"]) == (40, 30)
    classes = figures["report"]["classes"]
    assert list(classes) == ["a", "b", "never"] and classes["never"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert classes["b"] == {"precision": 1.0, "recall": 0.25, "f1": 0.4, "support": 40} and classes["a"]["f1"] == 1.0
    assert figures["report"]["micro"]["recall"] == 50 / 80 and figures["scores"] == {"subset accuracy": 0.25}
    assert figures["groups"]["groups"]["de"] == {"value": 0.25, "support": 20} and figures["group_metric"] == "subset_accuracy"
    assert figures["mistakes"][0]["row"] == 39 and (figures["mistakes"][0]["gold"], figures["mistakes"][0]["prediction"]) == ("a, b", "a")
    report, _, shown = written(tmp_path / "run", test=rows)
    assert "labels.svg" in {path.name for path in report.charts} and {"Scores by class", "subset accuracy"} <= set(shown.texts)


def test_predictions_without_labels_are_counted_only(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key not in ("label", "loss")} for row in classified(7)]
    assert summary(tmp_path, rows) == {"split": "test", "task": "classification", "records": 7, "labelled": 0}
    _, _, shown = written(tmp_path / "run", test=rows)
    assert "Without labels nothing can be scored." in shown.texts


def test_a_confusion_matrix_says_of_how_many_classes_it_shows_the_largest(tmp_path: Path) -> None:
    row, names = classified(1)[0], [f"class {i:03}" for i in range(300)]
    labels = names + names[-5:] * 2 + ["class 100"] * 9
    rows = [row | {"label": label, "prediction": label, "probabilities": {label: 1.0}} for label in labels]
    write_lines(tmp_path / "predictions-test.jsonl", rows)
    drawn = summarise(tmp_path / "predictions-test.jsonl", "test").charts["confusion"]
    assert "Confusion matrix, test, the 20 largest of 300 classes" in drawn
    assert {f"class {i:03}" for i in (100, 295, 299)} < set(re.findall(r"class \d{3}", drawn))


def test_many_classes_are_bounded(tmp_path: Path) -> None:
    rows = [row | {"label": f"label {i}", "prediction": f"label {i // 2}"} for i, row in enumerate(classified(2000))]
    report, data, shown = written(tmp_path, test=rows)
    assert len(data["splits"][0]["report"]["classes"]) == 2003  # with the three of the probabilities
    assert any("more classes" in text for text in shown.texts) and "macro average" in shown.texts
    assert report.html.stat().st_size < 300_000


# ---- what is missing or torn


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("config.toml", "the configuration is that of the log"),
        ("log.jsonl", "no curves, notices, data summary or environment"),
        ("predictions-test.jsonl", "no scores by class and no mistakes"),
    ],
)
def test_missing_parts_are_named(tmp_path: Path, missing: str, sentence: str) -> None:
    write_run(tmp_path)
    (tmp_path / missing).unlink()
    report, data, shown = read(write_report(tmp_path))
    assert len(report.absent) == 1 and sentence in report.absent[0]
    assert report.absent[0] in shown.texts and data["absent"] == list(report.absent)
    if missing == "config.toml":
        assert data["config"] == {"training": {"lr": 5e-5}}


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "absent"):
        with pytest.raises(DataError, match=r"neither config\.toml nor log\.jsonl") as caught:
            write_report(directory)
        assert caught.value.code == "no-run"
    assert not list(tmp_path.iterdir())


@given(st.integers(0, 4000))
def test_a_log_torn_anywhere_gives_a_report(tmp_path_factory: pytest.TempPathFactory, kept: int) -> None:
    directory = tmp_path_factory.mktemp("run")
    write_lines(directory / "log.jsonl", events(8))
    whole = (directory / "log.jsonl").read_bytes()
    (directory / "log.jsonl").write_bytes(whole[:kept])
    complete = whole[:kept].count(b"\n")
    found = read_log(directory / "log.jsonl")
    torn = [event for event in found if "torn" in event.get("message", "")]
    assert len(found) - len(torn) in (complete, complete + 1)  # a last line that lacks its line end only is whole
    _, data, _ = read(write_report(directory))
    ended = b'"end"' in whole[:kept] and not torn
    assert any("the log has no end" in notice["message"] for notice in data["notices"]) == (bool(found) and not ended)


def test_a_bad_line_inside_a_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for line in (
        '{"event": "step"',
        "[1]",
        '{"event": "step", "step": NaN}',
        '{"event": "step", "step": -1}',
        '{"event": 3, "step": 1}',
        "",
    ):
        path.write_text(json.dumps(start()) + "\n" + line + "\n" + json.dumps(step(1)) + "\n", encoding="utf-8")
        with pytest.raises(DataError, match=rf"{re.escape(str(path))}:2: "):
            write_report(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.jsonl"]  # nothing is written of a report that failed


def test_resumed_and_failed_runs_say_so(tmp_path: Path) -> None:
    log = [*events(60)[:-1], {"event": "end", "step": 60, "reason": "interrupted", "best": None, "seconds": 9.0}]
    write_lines(tmp_path / "log.jsonl", [*log, start(step=60, resumed=True), step(61), {"event": "end", "step": 61, "reason": "error"}])
    notices = read(write_report(tmp_path))[1]["notices"][1:]
    assert [(notice["step"], notice["message"]) for notice in notices] == [
        (60, "ended: interrupted"), (60, "resumed from a checkpoint"), (61, "ended: error"),
    ]  # fmt: skip


def test_an_evaluation_after_the_end_leaves_it_the_end(tmp_path: Path) -> None:
    write_lines(tmp_path / "log.jsonl", [*events(60), evaluation(60) | {"split": "test"}])
    _, data, shown = read(write_report(tmp_path))
    assert data["overview"]["status"] == "finished" and data["overview"]["seconds of training"] == 123.4
    assert len(data["notices"]) == 1 and data["evaluations"][-1]["split"] == "test"
    assert "test accuracy" in shown.texts  # both splits were evaluated once


def test_a_split_evaluated_once_is_no_curve_beside_others(tmp_path: Path) -> None:
    write_lines(tmp_path / "log.jsonl", [*events(), evaluation(200) | {"split": "test"}])
    _, data, shown = read(write_report(tmp_path))
    assert "dev accuracy" in shown.texts and "test accuracy" not in shown.texts
    assert data["evaluations"][-1]["split"] == "test"


def test_losses_that_are_no_numbers_leave_gaps(tmp_path: Path) -> None:
    log = [start(), *(step(i, loss=("nan", None, "inf", 0.5)[i % 4]) for i in range(1, 99)), evaluation(98, loss="nan", accuracy="nan")]
    write_lines(tmp_path / "log.jsonl", log)
    report, data, _ = read(write_report(tmp_path))
    assert data["evaluations"][0]["metrics"]["accuracy"] is None
    (path,) = re.findall(r'<path d="(M[^"]*)" fill="none" stroke="#0068b5"', (tmp_path / "loss.svg").read_text())
    assert path.count("M") == 24 and "L" not in path
    assert "nan" not in report.html.read_text().lower()


@pytest.mark.parametrize(
    ("config", "code"), [("lr = ", "bad-toml"), ("a = " + "[" * 5000 + "]" * 5000, "bad-toml"), ("# " + "x" * 2**20, "size-limit")]
)
def test_a_broken_configuration_is_refused(tmp_path: Path, config: str, code: str) -> None:
    (tmp_path / "config.toml").write_text(config, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        write_report(tmp_path)
    assert caught.value.code == code and caught.value.path.endswith("config.toml")


def test_a_configuration_of_everything_that_toml_knows(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("day = 2024-05-01\nrate = nan\nempty = {}\n[[a]]\nb = true\n", encoding="utf-8")
    _, data, _ = read(write_report(tmp_path))
    assert data["config"] == {"day": "2024-05-01", "rate": None, "empty": {}, "a": [{"b": True}]}


# ---- what is hostile


def changed(**fields: Any) -> dict[str, Any]:
    row = classified(10)[9] | fields
    return {name: value for name, value in row.items() if value is not ...}


def changed_tags(**fields: Any) -> dict[str, Any]:
    return tagged(4)[3] | fields


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (changed(prediction=...), "a row of predictions has prediction"),
        (changed(row="9"), "row must be a whole number"),
        (changed(text=None), "text must be a string"),
        (changed(text_b=3), "text_b must be a string"),
        (changed(label=3), "label must be a string"),
        (changed(score="high"), "score must be a number"),
        (changed(loss=...), "loss must be a number"),
        (changed(loss=10**400), "loss must be a number"),
        (changed(probabilities=[0.8]), "probabilities must be an object"),
        (changed(group=[]), "group must be a string"),
        (changed(prediction=1.0, label="a"), "label must be a number"),
        (changed_tags(tags=["B-PER"]), "there are 4 words; tags, predicted and scores"),
        (changed_tags(predicted="OOOO"), "predicted must be an array"),
        (changed_tags(predicted=["X-PER", "O", "O", "O"]), "'X-PER' is neither"),
        (changed_tags(words=[[0, 3], [4, 99], [13, 16], [17, 23]]), "words must be an array"),
        (changed_tags(words=[[0, 3], [4], [13, 16], [17, 23]]), "words must be an array"),
        (changed_tags(scores=[0.9, None, 0.9, 0.9]), "scores must be an array"),
    ],
)
def test_a_bad_prediction_is_refused_with_its_place(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    write_lines(tmp_path / "predictions-test.jsonl", [row])
    with pytest.raises(DataError, match=rf"predictions-test\.jsonl:1: .*{re.escape(message)}") as caught:
        write_report(tmp_path)
    assert caught.value.line == 1 and caught.value.code == "bad-prediction"


def test_rows_of_another_task_or_no_rows_are_refused(tmp_path: Path) -> None:
    write_lines(tmp_path / "predictions-test.jsonl", [classified(1)[0], regressed(1)[0]])
    with pytest.raises(DataError, match=":2: label must be a string"):
        write_report(tmp_path)
    write_lines(tmp_path / "predictions-test.jsonl", [])
    with pytest.raises(DataError, match="holds no predictions"):
        write_report(tmp_path)


KNOWN = {
    "html", "head", "meta", "title", "style", "body", "h1", "nav", "a", "main", "section", "h2", "h3", "p", "div", "table", "caption",
    "thead", "tbody", "tr", "th", "td", "pre", "svg", "desc", "rect", "path", "circle", "text",
}  # fmt: skip
HOSTILE = "</td></table><script>alert(1)</script><img src=x onerror=alert(1)>\"'&]]>\u202e\ud800\x00"


def hostile_leaves(value: Any) -> Any:
    """Every string of a row replaced, but for what is read."""
    if isinstance(value, dict):
        return {HOSTILE + name: hostile_leaves(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [hostile_leaves(inner) for inner in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_text_stays_text_wherever_it_stands(tmp_path: Path) -> None:
    directory = tmp_path / "<script>alert(1)<"
    rows = [
        row | {"text": HOSTILE, "text_b": HOSTILE, "label": HOSTILE, "prediction": f"{HOSTILE}2", "group": HOSTILE} for row in classified(3)
    ]
    write_run(directory, **{"<script>": rows})
    log = [start(run={name: hostile_leaves(value) for name, value in start()["run"].items()}), step(1), evaluation(1, **{HOSTILE: 0.5})]
    log += [{"event": "notice", "step": 1, "message": HOSTILE}, {"event": "end", "step": 1, "reason": HOSTILE}]
    write_lines(directory / "log.jsonl", log)
    (directory / "config.toml").write_text(f'"{"</td><script>" * 3}" = "</td><script>alert(1)</script>"', encoding="utf-8")
    _, _, shown = read(write_report(directory))
    assert {tag for tag, _ in shown.tags} <= KNOWN
    assert any(HOSTILE[:40] in text for text in shown.texts)


@given(st.data())
def test_a_log_of_any_json_gives_a_report_or_one_error(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | any_text
    anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3), max_leaves=8)
    names = st.sampled_from(["run", "metrics", "loss", "lr", "message", "reason", "resumed", "best", "split", "total_steps", "seconds"])
    kinds = st.sampled_from(["start", "step", "evaluation", "notice", "end", "other"])
    inside = st.dictionaries(st.sampled_from(["command", "config", "environment", "data", "parameters"]), anything, max_size=5)
    event = st.builds(
        lambda kind, number, fields, run: fields | {"event": kind, "step": number} | ({"run": run} if kind == "start" else {}),
        kinds, st.integers(0, 10), st.dictionaries(names, anything, max_size=6), anything | inside,
    )  # fmt: skip
    directory = tmp_path_factory.mktemp("run")
    write_lines(directory / "log.jsonl", data.draw(st.lists(event, max_size=6)))
    read(write_report(directory))


@given(st.dictionaries(any_text, any_text, max_size=3), any_text)
def test_pages_of_any_text_are_whole(facts: Mapping[str, str], text: str) -> None:
    data = {
        "run": text, "overview": facts, "absent": [text], "evaluations": [], "splits": [], "data": {text: facts}, "config": facts,
        "environment": {text: facts}, "command": text, "notices": [{"step": 1, "message": text}],
    }  # fmt: skip
    Page(page(data, {}, []))


def test_long_tables_are_cut_and_counted(tmp_path: Path) -> None:
    log: Iterator[dict[str, Any]] = ({"event": "notice", "step": i, "message": "x" * 5000} for i in range(1000))
    write_lines(tmp_path / "log.jsonl", log)
    report, data, shown = read(write_report(tmp_path))
    assert len(data["notices"]) == 1001 and "and 801 more, which report.json holds" in shown.texts
    assert report.html.stat().st_size < 500_000


def test_a_smoothed_curve_follows_the_losses(tmp_path: Path) -> None:
    write_lines(tmp_path / "log.jsonl", [start(), *(step(i, loss=2.0 if i < 500 else 1.0) for i in range(1000))])
    write_report(tmp_path)
    described = (tmp_path / "loss.svg").read_text()
    found = re.search(r"training loss, smoothed: from ([\d.]+) at 0 to ([\d.]+) at 999", described)
    assert found is not None
    assert float(found[1]) == 2 and math.isclose(float(found[2]), 1, abs_tol=1e-3)  # what the description rounds to

"""The command data: check, split and convert, what they print and write, and that nothing is overwritten or left half done."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from small_models import directory

from minigrad.cli import data
from minigrad.data import writers
from minigrad.data.readers import read_records
from minigrad.data.records import Entity, labels_of
from minigrad.errors import ArgumentError, DataError


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    return data.run(parser.parse_args([str(argument) for argument in arguments]))


def printed(capsys: pytest.CaptureFixture[str], status: int, *arguments: object) -> str:
    assert run(*arguments) == status
    return capsys.readouterr().out


def refused(*arguments: object) -> str:
    with pytest.raises((ArgumentError, DataError)) as caught:
        run(*arguments)
    return str(caught.value)


def table(path: Path, rows: list[tuple[str, ...]]) -> Path:
    path.write_text("".join(",".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def json_lines(path: Path, rows: list[tuple[str, list[str]]]) -> Path:
    """Texts with lists of topics."""
    path.write_text("".join(json.dumps({"text": text, "topics": topics}) + "\n" for text, topics in rows), encoding="utf-8")
    return path


def sample(path: Path, count: int = 60) -> Path:
    """Labels A and B by turns; three records of every author stand together."""
    rows = [(f"{number * 7919 % 1009} is {number * 104729 % 9973}", "AB"[number % 2], f"author {number // 3}") for number in range(count)]
    return table(path, [("text", "label", "author"), *rows])


def options_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    own = list(parser._actions)
    return own + [a for action in own if isinstance(action.choices, dict) for sub in action.choices.values() for a in options_of(sub)]


def test_every_option_has_help() -> None:
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    options = options_of(parser)
    assert len(options) > 20
    assert [action.dest for action in options if not action.help and action.dest != "action"] == []


# ---- check


def test_check_of_sound_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = table(tmp_path / "train.csv", [("text", "label"), ("one thing", "A"), ("another one", "B")])
    dev = table(tmp_path / "dev.csv", [("text", "label"), ("something else", "A")])
    out = printed(capsys, 0, "check", train, dev)
    assert out.splitlines()[0].split()[:3] == ["split", "records", "unreadable"]
    assert "only in train: 'B'" in out and out.endswith("ok: no leaks, no conflicts\n")


def test_check_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = table(tmp_path / "a.csv", [("body", "desk"), ("one and the same", "A")])
    b = table(tmp_path / "b.csv", [("body", "desk"), ("one and the same", "A")])
    folder = directory(tmp_path / "model", "BertModel")
    files = ("--json", tmp_path / "out.json", "--svg", tmp_path / "out.svg", "--tokenizer", folder)
    out = printed(capsys, 1, "check", "--split", f"train={a}", "--split", f"test={b}", "--text", "body", "--label", "desk", *files)
    assert "LEAK: 1 of test also in train" in out
    found = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert (
        not found["ok"]
        and found["leaks"][0]["count"] == 1
        and list(found["splits"]["test"]["lengths"]) == ["characters", "words", "tokens"]
    )
    svg = ElementTree.parse(tmp_path / "out.svg").getroot()
    charts = [child for child in svg if child.tag.endswith("svg")]
    heights = [float(chart.attrib["height"]) for chart in charts]
    assert [float(chart.attrib["y"]) for chart in charts] == [0, heights[0], heights[0] + heights[1]]
    assert float(svg.attrib["height"]) == sum(heights)


def test_the_tokenizer_may_have_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = directory(tmp_path / "model", "BertModel")
    monkeypatch.setattr("minigrad.cli.data.find_checkpoint", {"owner/name": folder}.__getitem__)
    train = table(tmp_path / "train.csv", [("text", "label"), ("one thing", "A"), ("another one", "B")])
    printed(capsys, 0, "check", train, "--tokenizer", "owner/name", "--json", tmp_path / "out.json")
    assert "tokens" in json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["splits"]["train"]["lengths"]


def test_check_of_a_split_in_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = table(tmp_path / "a.csv", [("text",), ("one and the same text",)])
    b = table(tmp_path / "b.csv", [("text",), ("One and the same text!",)])
    printed(capsys, 1, "check", a, b)
    printed(capsys, 0, "check", a, b, "--near-duplicates", "off")
    printed(capsys, 0, "check", a, b, "--near-duplicates", "0.99")
    assert "2" in printed(capsys, 0, "check", "--split", f"train={a}", "--split", f"train={b}").splitlines()[1].split()


def test_check_refuses(tmp_path: Path) -> None:
    a = table(tmp_path / "a.csv", [("text",), ("one",)])
    (tmp_path / "b").mkdir()
    same = table(tmp_path / "b" / "a.csv", [("text",), ("two",)])
    assert "no files" in refused("check")
    assert "two files are called 'a'" in refused("check", a, same)
    assert "NAME=FILE" in refused("check", "--split", "train")
    assert "is no directory" in refused("check", a, "--json", tmp_path / "nowhere" / "out.json")
    assert "does not exist" in refused("check", tmp_path / "missing.csv")
    assert "0.5 to 1" in refused("check", a, "--near-duplicates", "0.1")


def test_check_tells_of_columns_that_seem_to_be_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kaggle = table(tmp_path / "a.csv", [("review", "sentiment"), *((f"text {i} of all", "AB"[i % 2]) for i in range(6))])
    apart = ("--near-duplicates", "off")
    assert "NOTICE" in (out := printed(capsys, 0, "check", kaggle, *apart, "--json", tmp_path / "out.json"))
    assert "a.csv:1 looks like a header" in out and "--text review --label sentiment" in out
    assert len(json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["notices"]) == 1
    assert "NOTICE" not in printed(capsys, 0, "check", kaggle, *apart, "--text", "review", "--label", "sentiment")
    semicolons = table(tmp_path / "b.csv", [("review;sentiment",), ("a good one;A",)])
    assert "b.csv:1 is one column, 'review;sentiment': the file seems to be separated by semicolons" in printed(
        capsys, 0, "check", semicolons
    )


def test_check_tells_of_labels_in_several_spellings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = table(tmp_path / "a.csv", [("text", "label"), ("one", "pos"), ("two", " pos")])
    b = table(tmp_path / "b.csv", [("text", "label"), ("three", "Pos")])
    assert "NOTICE: labels that differ only in letter case" in (out := printed(capsys, 0, "check", a, b, "--near-duplicates", "off"))
    assert "' pos' (1), 'Pos' (1), 'pos' (1)" in out
    tagged = tmp_path / "c.conll"
    tagged.write_text("Maria B-PER\n\nBerlin B-Per\n", encoding="utf-8")
    assert "'PER' (1), 'Per' (1)" in printed(capsys, 0, "check", tagged, "--near-duplicates", "off")


def test_check_shows_the_beginning_of_labels_that_are_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = table(tmp_path / "a.csv", [("label", "text"), *((f"review number {i} {'x' * 200}", f"id {i}") for i in range(20))])
    out = printed(capsys, 0, "check", a, "--near-duplicates", "off")
    assert "NOTICE: nearly every record has a long label of its own" in out and "x" * 100 not in out


def test_check_of_several_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = json_lines(tmp_path / "train.jsonl", [("one thing", ["A", "B"]), ("another one", []), ("a third, quite different", ["B"])])
    dev = json_lines(tmp_path / "dev.jsonl", [("something else", ["A"])])
    out = printed(capsys, 0, "check", train, dev, "--label-separator", ",", "--label", "topics")
    assert "only in train: 'B'" in out and "several            1 (33.3%)    0 (0.0%)" in out
    dev = json_lines(tmp_path / "dev.jsonl", [("one thing", ["B", "A"]), ("another one", ["B"])])
    out = printed(capsys, 1, "check", "--split", f"both={train}", "--split", f"both={dev}", "--label-separator", ",", "--label", "topics")
    assert f"CONFLICT: 1 text(s) with different labels\n  {train}:2 ≠ {dev}:2" in out


# ---- split


def test_split_of_several_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"A": 2, "B": 3, "C": 5}
    rows = [(f"{n * 7919 % 1009} is {n * 104729 % 9973}", [name for name in names if n % names[name] == 0]) for n in range(300)]
    source = json_lines(tmp_path / "all.jsonl", rows)
    printed(capsys, 0, "split", source, "--output", tmp_path / "parts", "--label-separator", ",", "--label", "topics")
    for name, share in (("train", 0.8), ("dev", 0.1), ("test", 0.1)):
        records = read_records(tmp_path / "parts" / f"{name}.jsonl", label_separator=",")
        assert len(records) == 300 * share and list(records[0].fields) == ["text", "label"]
        found = Counter(label for record in records for label in labels_of(record, ","))
        assert all(abs(found[label] - share * number) < 2 for label, number in {"A": 150, "B": 100, "C": 60}.items())
    assert "labels, 'A', 'B', 'C'; one is needed" in refused("split", source, "--output", tmp_path / "other", "--label", "topics")


def test_split_writes_the_format_that_it_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = sample(tmp_path / "all.csv")
    out = printed(capsys, 0, "split", source, "--output", tmp_path / "new" / "parts")
    parts = [tmp_path / "new" / "parts" / f"{name}.csv" for name in ("train", "dev", "test")]
    assert out.splitlines() == [f"{part}: {count} records" for part, count in zip(parts, (48, 6, 6), strict=True)]
    assert sorted(path.name for path in parts[0].parent.iterdir()) == ["dev.csv", "test.csv", "train.csv"]
    rows = [(r.text, r.label, r.fields["author"]) for part in parts for r in read_records(part)]
    assert sorted(rows) == sorted((r.text, r.label, r.fields["author"]) for r in read_records(source))
    assert all(sum(r.label == "A" for r in read_records(part)) * 2 == len(read_records(part)) for part in parts)


def test_split_by_group_seed_and_shares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = sample(tmp_path / "all.csv")
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = ("--group", "author", "--seed", seed, "--shares", "3,1", "--no-stratify", "--near-duplicates", "off")
        printed(capsys, 0, "split", source, "--output", tmp_path / name, *options)
        dev = read_records(tmp_path / name / "dev.csv")
        train = read_records(tmp_path / name / "train.csv")
        assert (len(train), len(dev)) == (45, 15)
        assert not {r.fields["author"] for r in train} & {r.fields["author"] for r in dev}
        found.append([r.text for r in dev])
    assert found[0] == found[1] != found[2]


def test_split_says_what_it_could_not_keep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = table(tmp_path / "all.csv", [("text", "label"), *((f"{n * 7919 % 1009}", "A" if n else "rare") for n in range(50))])
    assert run("split", source, "--output", tmp_path / "parts") == 0
    assert "note: fewer records than splits have the label(s) 'rare'" in capsys.readouterr().err
    numbers = table(tmp_path / "numbers.csv", [("text", "label"), *((f"{n * 7919 % 1009}", str(n)) for n in range(50))])
    assert run("split", numbers, "--output", tmp_path / "others") == 0
    assert "(--no-stratify on the command line)" in capsys.readouterr().err


def test_split_of_an_export_writes_json_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"id": n, "text": f"Ada {n * 7919 % 1009} wrote", "label": [[0, 3, "PER"]]} for n in range(20)]
    source = tmp_path / "export.txt"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    printed(capsys, 0, "split", source, "--output", tmp_path, "--format", "doccano")
    assert read_records(tmp_path / "dev.jsonl")[0].entities == (Entity(0, 3, "PER"),)


def test_split_replaces_nothing_unless_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = sample(tmp_path / "all.csv")
    (tmp_path / "test.csv").write_text("mine", encoding="utf-8")
    assert "test.csv exists: pass --force" in refused("split", source, "--output", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.csv", "test.csv"]
    printed(capsys, 0, "split", source, "--output", tmp_path, "--force")
    assert len(read_records(tmp_path / "test.csv")) == 6
    (tmp_path / "dev.csv").unlink()
    (tmp_path / "dev.csv").mkdir()
    assert "it is a directory" in refused("split", source, "--output", tmp_path, "--force")


def test_split_leaves_no_file_of_another_division(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its records would be in the new files, too."""
    source, output = table(tmp_path / "all.csv", [("text", "label"), *((f"text {i}", "AB"[i % 2]) for i in range(40))]), tmp_path / "out"
    printed(capsys, 0, "split", source, "--output", output)
    line = refused("split", source, "--output", output, "--shares", "90,10", "--force")
    assert "test.csv is of another division, and its records would be in the new files too: remove it" in line
    (output / "test.csv").unlink()
    printed(capsys, 0, "split", source, "--output", output, "--shares", "90,10", "--force")
    assert "is a file: name a directory" in refused("split", source, "--output", source)
    assert "pass the path of a file or directory, got ''" in refused("split", source, "--output", "")


def test_no_input_is_written_over(tmp_path: Path) -> None:
    source, output = sample(tmp_path / "train.csv", 40), tmp_path / "splits"
    content = source.read_bytes()
    output.mkdir()
    (output / "dev.csv").hardlink_to(source)
    for folder in (tmp_path, output):
        assert "is the input" in refused("split", source, "--output", folder, "--force")
    for option in ("--json", "--svg"):
        assert f"{option}: {source} is the input" in refused("check", source, option, source)
    assert source.read_bytes() == content


def test_split_writes_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sample(tmp_path / "all.csv")
    written: list[Any] = []

    def full_disk(path: Path, records: Any, **options: Any) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        writers.write_records(path, records, **options)

    monkeypatch.setattr(data, "write_records", full_disk)
    assert "cannot be written: No space left on device" in refused("split", source, "--output", tmp_path / "parts")
    assert list((tmp_path / "parts").iterdir()) == []


@pytest.mark.parametrize("shares", ["80", "80,20,10,5", "a,b", "80,-20", "0,100", "inf,1", ""])
def test_split_refuses_shares(tmp_path: Path, shares: str) -> None:
    assert "two or three numbers above 0" in refused("split", tmp_path / "a.csv", "--output", tmp_path, f"--shares={shares}")


# ---- convert


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_convert_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    source, target = sample(tmp_path / "all.csv", 5), tmp_path / f"new{suffix}"
    assert printed(capsys, 0, "convert", source, target) == f"{target}: 5 records\n"
    assert [(r.text, r.label, r.fields) for r in read_records(target)] == [(r.text, r.label, r.fields) for r in read_records(source)]


def test_convert_several_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From lists to names with the separator and back, the column being called label from there on."""
    rows = [("one", ["A", "B"]), ("two", []), ("three", ["B"])]
    source = json_lines(tmp_path / "a.jsonl", rows)
    several = ("--label-separator", "|")
    printed(capsys, 0, "convert", source, tmp_path / "b.csv", *several, "--label", "topics")
    assert (tmp_path / "b.csv").read_bytes() == b"text,label\r\none,A|B\r\ntwo,\r\nthree,B\r\n"
    printed(capsys, 0, "convert", tmp_path / "b.csv", tmp_path / "c.tsv", *several)
    printed(capsys, 0, "convert", tmp_path / "c.tsv", tmp_path / "d.jsonl", *several)
    found = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text(encoding="utf-8").splitlines()]
    assert found == [{"text": text, "label": labels} for text, labels in rows]
    clash = refused("convert", source, tmp_path / "e.csv", "--label-separator", "A", "--label", "topics")
    assert "the label 'A' is empty or holds 'A'" in clash
    assert "has no place; use .jsonl" in refused("convert", tmp_path / "d.jsonl", tmp_path / "e.conll", *several)


def test_convert_marked_spans_to_words_with_tags_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "spans.jsonl"
    source.write_text('{"text": "Ada, who met Byron.", "label": [[0, 3, "PER"], [13, 18, "PER"]]}\n', encoding="utf-8")
    printed(capsys, 0, "convert", source, tmp_path / "a.conll", "--format", "doccano")
    assert (tmp_path / "a.conll").read_text(encoding="utf-8") == "Ada\tB-PER\n,\tO\nwho\tO\nmet\tO\nByron\tB-PER\n.\tO\n\n"
    printed(capsys, 0, "convert", tmp_path / "a.conll", tmp_path / "b.jsonl")
    record = read_records(tmp_path / "b.jsonl")[0]
    assert [record.text[e.start : e.end] for e in record.entities or ()] == ["Ada", "Byron"]


def test_convert_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, other = sample(tmp_path / "a.csv", 3), tmp_path / "b.jsonl"
    assert "DST must end in one of '.jsonl'" in refused("convert", source, tmp_path / "b.xml")
    (tmp_path / "link.csv").symlink_to(source)
    for target in (source, tmp_path / "link.csv"):
        assert f"DST: {target} is the input" in refused("convert", source, target, "--force")
    other.write_text("mine", encoding="utf-8")
    assert "pass --force" in refused("convert", source, other)
    assert other.read_text(encoding="utf-8") == "mine"
    printed(capsys, 0, "convert", source, other, "--force")
    broken = table(tmp_path / "c.csv", [("text", "label"), ("fine", "A"), ("no label",)])
    assert "c.csv:3" in refused("convert", broken, tmp_path / "c.jsonl") and not (tmp_path / "c.jsonl").exists()

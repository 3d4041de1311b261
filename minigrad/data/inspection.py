"""Checks data files before training: copies, contradictions, leaks between splits, traces of wrong encodings.

A file may be larger than memory, so records are streamed. Exact copies and contradictions are found among all records, by hashes.
Near-duplicates are searched among the first records of each split: 100,000 by default, fewer if these are long (`copies.NEAR_CHARS`). The
report says how many records were compared.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from minigrad.data.checks import check_count
from minigrad.data.copies import CopyIndex
from minigrad.data.data_report import DataReport, Finding, Lengths, SplitFindings
from minigrad.data.duplicates import checked_threshold
from minigrad.data.progress import progress_bar
from minigrad.data.readers import iter_records
from minigrad.data.records import Record, labels_of
from minigrad.data.suspicions import column_notices, label_notices
from minigrad.data.text_faults import faults_of, has_composed_letters, spans_off_words
from minigrad.data.tokenization import Tokenizer
from minigrad.errors import ArgumentError, DataError
from minigrad.files import as_path, open_regular, quoted

MAX_LABELS = 1000
"""Different labels that are counted by name; others count as OTHER_LABELS. Numeric labels may all differ."""
OTHER_LABELS = "(other labels)"
TOKENIZER_BATCH = 512

Paths = str | Path | Sequence[str | Path]


def check_files(
    files: Mapping[str, Paths] | Sequence[str | Path],
    *,
    format: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    text_b_column: str | None = None,
    label_separator: str | None = None,
    encoding: str = "utf-8",
    tokenizer: Tokenizer | None = None,
    near_duplicates: float | None = 0.8,
    near_records: int = 100_000,
    progress: bool = False,
) -> DataReport:
    """Read every record of some data files and report what may spoil training on them.

    files: the file or files of each split by name; or a sequence of files, each a split named by its stem. Rows that cannot be read are
    counted and left out. format to encoding: as `read_records`; with a label_separator each label of a record counts, and texts conflict if
    they occur with different sets of labels.
    tokenizer: count tokens too, special ones included.
    near_duplicates: the similarity from which texts count as near-duplicates (see `near_duplicate_groups`); None: only exact ones.
    near_records: how many records of each split are compared for near-duplicates. progress: a bar or lines on standard error.
    Memory: 20 bytes per record, and about 700 plus its text for each record that is compared for near-duplicates.

    Raises:
        ArgumentError: no files, two in a sequence with the same stem, or an option that cannot be used.
        DataError: a file cannot be read at all, or none of its rows can.
    """
    splits = _by_split(files)
    if near_duplicates is not None:
        checked_threshold(near_duplicates)
    check_count("near_records", near_records, 0)
    report = DataReport({name: SplitFindings([str(path) for path in paths]) for name, paths in splits.items()})
    firsts: list[Record] = []
    index = CopyIndex(report, near_records if near_duplicates is not None else 0)
    with progress_bar(None, progress) as bar:
        for split, (name, paths) in enumerate(splits.items()):
            found = report.splits[name]
            lengths = _LengthCounts(found, tokenizer)
            for path in paths:
                file = index.open(path, split)
                if _has_byte_order_mark(path):
                    found.byte_order_marks.append(str(path))
                skipped = _Skipped(found, file)
                records = iter_records(
                    path, format=format, text_column=text_column, label_column=label_column, text_b_column=text_b_column,
                    label_separator=label_separator, encoding=encoding, skipped=skipped, max_skipped=sys.maxsize,
                )  # fmt: skip
                for number, record in enumerate(_readable(records, skipped)):
                    if number == 0:
                        firsts.append(record)
                    labels = _labels(record, label_separator)
                    index.add(record, labels)
                    lengths.add(record)
                    _inspect(record, found, index)
                    _count_labels(labels, found, label_separator is not None)
                    bar.update()
            lengths.flush()
    index.finish(near_duplicates)
    if not any(found.composed for found in report.splits.values()):
        for found in report.splits.values():
            found.faults.pop("mixed-normal-forms", None)  # all texts write accents separately from letters: consistent, so not a fault
    _compare_labels(report)
    all_labels = sum((found.labels for found in report.splits.values()), Counter())
    types = sum((found.entity_types for found in report.splits.values()), Counter())
    report.notices += [*column_notices(firsts, all_labels, format), *label_notices(all_labels), *label_notices(types)]
    return report


def _by_split(files: Mapping[str, Paths] | Sequence[str | Path]) -> dict[str, list[Path]]:
    if isinstance(files, str | Path):
        raise ArgumentError(f"files must be a list of paths or a mapping of split names to paths, got {quoted(files)}; put it in a list")
    if isinstance(files, Mapping):
        splits = {name: [as_path(path) for path in ([of] if isinstance(of, str | Path) else of)] for name, of in files.items()}
    else:
        splits = {}
        for path in map(as_path, files):
            if path.stem in splits:
                raise ArgumentError(f"two files are called {quoted(path.stem)}; name the splits: {{'train': path, 'test': other path}}")
            splits[path.stem] = [path]
    if not splits or not all(splits.values()):
        raise ArgumentError("there are no files to check" if not splits else "a split without files cannot be checked")
    return splits


def _has_byte_order_mark(path: Path) -> bool:
    with open_regular(path, DataError) as file:
        return file.read(3) == b"\xef\xbb\xbf"


class _Skipped(list[DataError]):
    """The list that a reader appends its bad rows to: counts them by code, and keeps the first messages."""

    def __init__(self, found: SplitFindings, file: int) -> None:
        super().__init__()
        self._found, self._file = found, file

    def append(self, error: DataError) -> None:
        if not self:
            super().append(error)
        self._found.unreadable.setdefault(error.code, Finding()).add((self._file << 32) + (error.line or 0), str(error))


def _readable(records: Iterator[Record], skipped: _Skipped) -> Iterator[Record]:
    try:
        yield from records
    except DataError as error:
        if error.code == "empty-file" and skipped:
            raise DataError(error.path, f"not one row can be read; the first: {skipped[0]}", code=error.code) from error
        raise


# ---- one record at a time


class _LengthCounts:
    """Counts characters, words and tokens of one split's records; tokenizes many at once, which is faster."""

    def __init__(self, found: SplitFindings, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._waiting: list[Record] = []
        self._of = found.lengths
        self._of.update({unit: Lengths() for unit in ("characters", "words", *(["tokens"] if tokenizer is not None else []))})

    def add(self, record: Record) -> None:
        texts = [record.text] if record.text_b is None else [record.text, record.text_b]
        self._of["characters"].add(sum(map(len, texts)))
        self._of["words"].add(sum(len(text.split()) for text in texts))
        if self._tokenizer is not None:
            self._waiting.append(record)
            if len(self._waiting) == TOKENIZER_BATCH:
                self.flush()

    def flush(self) -> None:
        for paired in (False, True):
            waiting = [record for record in self._waiting if (record.text_b is not None) == paired]
            if self._tokenizer is not None and waiting:
                pairs = [record.text_b or "" for record in waiting] if paired else None
                for encoding in self._tokenizer.encode([record.text for record in waiting], pairs=pairs):
                    self._of["tokens"].add(len(encoding))
        self._waiting.clear()


def _inspect(record: Record, found: SplitFindings, index: CopyIndex) -> None:
    for entity in record.entities or ():
        _count(found.entity_types, entity.type)
    for text in (record.text, record.text_b or ""):
        found.composed = found.composed or has_composed_letters(text)
        for kind in faults_of(text):
            _fault(found, kind, index, f"{record.path}:{record.line}: {quoted(text)}")
    for entity in spans_off_words(record):
        around = record.text[max(entity.start - 10, 0) : entity.start], record.text[entity.end : entity.end + 10]
        marked = f"{around[0]}[{record.text[entity.start : entity.end]}]{around[1]}"
        _fault(found, "span-off-words", index, f"{record.path}:{record.line}: {entity.type} {quoted(marked)}")


def _labels(record: Record, separator: str | None) -> list[str] | None:
    """The record's different labels, sorted; None if its file has none."""
    if record.label is None:
        return None
    return [record.label] if separator is None else sorted(set(labels_of(record, separator)))


def _count_labels(labels: list[str] | None, found: SplitFindings, several: bool) -> None:
    for label in labels or ():
        _count(found.labels, label)
    if several and labels is not None:
        found.labels_per_record["none" if not labels else "one" if len(labels) == 1 else "several"] += 1


def _count(counts: Counter[str], name: str) -> None:
    counts[name if name in counts or len(counts) < MAX_LABELS else OTHER_LABELS] += 1


def _fault(found: SplitFindings, kind: str, index: CopyIndex, example: str) -> None:
    found.faults.setdefault(kind, Finding()).add(len(index), example)


# ---- the splits against each other


def _compare_labels(report: DataReport) -> None:
    for kind in ("labels", "entity_types"):
        counts = {
            name: of_split
            for name, found in report.splits.items()
            if (of_split := getattr(found, kind)) or (kind == "labels" and found.labels_per_record)
        }
        for label in sorted({label for of_split in counts.values() for label in of_split}):
            having = [name for name, of_split in counts.items() if label in of_split]
            if len(having) < len(counts):
                report.missing_labels[label] = having

"""CoNLL files: one word per line with its tag, an empty line between sentences.

Nearly all published named-entity data is in this format, which has no single definition; this is the one used here. Columns are separated
by tabs if the line has one, else by spaces; the first is the word, the last its tag, the others are ignored. Lines of white space end a
sentence. Lines that begin with -DOCSTART- mark documents and are dropped.

A hash is a word like any other, unless the file has comments, as CoNLL-U: its first line begins with "# " and contains an equals sign. Then
all lines that begin with "# " before the first word of a sentence are comments, and those of the form "# name = value" become fields of its
record.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minigrad.data.records import MAX_TEXT_CHARACTERS
from minigrad.data.tables import Line, Objects, lines
from minigrad.data.tagging import parse_tag
from minigrad.errors import ArgumentError, DataError
from minigrad.files import quoted


def joined(words: Sequence[str]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The words joined by single spaces, and the (start, end) characters of each."""
    places = []
    start = 0
    for word in words:
        places.append((start, start + len(word)))
        start += len(word) + 1
    return " ".join(words), tuple(places)


def conll_objects(path: Path, encoding: str) -> Objects:
    """A {"words": [...], "tags": [...]} for each sentence, with the comments before it; the line is that of the first word."""
    sentence = _Sentence(path)
    commented: bool | None = None
    for line in lines(path, encoding):
        if commented is None and line.text.strip():
            commented = line.text.startswith("# ") and "=" in line.text
        if (not line.text.strip() and not line.error) or line.text.startswith("-DOCSTART-"):
            yield from sentence.end()
        elif commented and line.text.startswith("# ") and not sentence.line and not line.error:
            sentence.comment(line.text)
        else:
            sentence.add(line)
    yield from sentence.end()


class _Sentence:
    """The words read since the last empty line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: tuple[int, int] | None = None
        """(number of columns, line) of the file's first word."""
        self._clear()

    def _clear(self) -> None:
        self.words: list[str] = []
        self.tags: list[str] = []
        self.comments: dict[str, str] = {}
        self.line = 0
        self.characters = 0
        self.error: DataError | None = None

    def comment(self, text: str) -> None:
        name, equals, value = text[1:].partition("=")
        if equals:
            self.comments[name.strip()] = value.strip()

    def add(self, line: Line) -> None:
        """Add a word. After a first error the whole sentence is dropped: without one of its words it would be another sentence."""
        self.line = self.line or line.number
        self.characters += len(line.text)
        if self.error is None:
            try:
                if line.error:
                    raise line.error
                if self.characters > MAX_TEXT_CHARACTERS:
                    raise self._bad(
                        line, f"a sentence of more than {MAX_TEXT_CHARACTERS} characters; are the empty lines missing?", "text-limit"
                    )
                self._add(line)
            except DataError as error:
                self.error = error
                self.words, self.tags = [], []

    def _add(self, line: Line) -> None:
        text = line.text.rstrip(" \t\r\n")
        cells = text.split("\t") if "\t" in text else [cell for cell in text.split(" ") if cell]
        if len(cells) < 2:
            raise self._bad(
                line, f"the word {quoted(cells[0])} has no tag; each line is a word, a tab or space, and its tag", "missing-tag"
            )
        self.columns = self.columns or (len(cells), line.number)
        if len(cells) != self.columns[0]:
            raise self._bad(line, f"{len(cells)} columns, line {self.columns[1]} has {self.columns[0]}", "column-count")
        if not cells[0].strip():
            raise self._bad(line, "the word is empty; remove the line", "empty-text")
        try:
            parse_tag(cells[-1])
        except ArgumentError as error:
            raise self._bad(line, str(error), "bad-tag") from None
        self.words.append(cells[0])
        self.tags.append(cells[-1])

    def _bad(self, line: Line, message: str, code: str) -> DataError:
        return DataError(self.path, message, line=line.number, code=code)

    def end(self) -> Objects:
        """Yield the sentence, if there is one. Comments that no word follows are dropped."""
        if self.line:
            yield self.line, self.error or {**self.comments, "words": self.words, "tags": self.tags}
        self._clear()

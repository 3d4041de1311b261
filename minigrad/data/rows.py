"""Turns rows of named values into records.

A row is a dict, whether it was a line of a table, a JSON object, a CoNLL sentence or a row of a data set in memory. This module decides for
all of them what is the text, what the label, and what else a row says about its text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minigrad.data.annotations import is_span_list, read_entities
from minigrad.data.checks import check_separator
from minigrad.data.conll import joined
from minigrad.data.records import Entity, Record, check_characters, check_text
from minigrad.data.tables import unknown_column
from minigrad.data.tagging import spans_of
from minigrad.errors import ArgumentError, DataError
from minigrad.files import json_type, listing, quoted

Places = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Columns:
    """The requested column names. None stands for the usual name, and the column may then be absent."""

    text: str | None
    label: str | None
    text_b: str | None
    separator: str | None = None
    """The separator between labels, if a record may have several."""

    def __post_init__(self) -> None:
        names = [("text", self.text or "text"), ("label", self.label), ("text_b", self.text_b)]
        for place, (role, name) in enumerate(names):
            if name is not None and (not isinstance(name, str) or not name):
                raise ArgumentError(f"{role}_column must be the name of a column, got {quoted(name)}")
            for other, same in names[:place]:
                if name is not None and name == same:
                    raise ArgumentError(f"{other} and {role} cannot both be read from column {quoted(name)}")
        check_separator(self.separator)

    @property
    def asked(self) -> list[str]:
        """The names that a header must have. If only another column is requested, the text column has its usual name."""
        if (self.text, self.label, self.text_b) == (None, None, None):
            return []
        return [self.text or "text", *(name for name in (self.label, self.text_b) if name is not None)]


class RowReader:
    """Turns the rows of one file into records. All of them must have what the first one has: a label, a second text, entities."""

    def __init__(self, path: str, columns: Columns, *, plain: bool = False) -> None:
        """plain: the rows come from a table, whose values are all strings, never spans or lists of words."""
        self._path = path
        self._columns = columns
        self._plain = plain
        self._first: Record | None = None

    def record(self, line: int, fields: Mapping[str, Any]) -> Record:
        """The record of a row. Raises: DataError for a row that cannot be used."""
        words_column = None if self._plain else self._words_column(fields)
        record = self._record(line, fields) if words_column is None else self._sentence(line, fields, words_column)
        if self._first is None:
            self._first = record
        for what in ("label", "text_b", "entities"):
            has, due = getattr(record, what) is not None, getattr(self._first, what) is not None
            if has != due:
                held, lacks = ("has", "has none") if has else ("has no", "has")
                message = f"this record {held} {what}, line {self._first.line} {lacks}; either all records of a file have one or none"
                raise DataError(self._path, message, line=line, code=f"missing-{what.replace('_', '-')}")
        return record

    def _record(self, line: int, fields: Mapping[str, Any]) -> Record:
        fields = dict(fields)
        text_name = self._columns.text or "text"
        if text_name not in fields:
            raise unknown_column(self._path, line, text_name, fields)
        text = check_text(self._path, line, fields[text_name])
        entities, words = (None, None) if self._plain else (self._entities(line, fields, text), self._words(line, fields, text))
        return Record(text, self._label(line, fields), self._path, line, fields, self._text_b(line, fields), entities, words)

    # ---- the label and the second text

    def _label(self, line: int, fields: Mapping[str, Any]) -> str | None:
        name = self._columns.label or "label"
        if self._columns.label is None and (name not in fields or name in (self._columns.text, self._columns.text_b)):
            return None
        value = fields.get(name)
        if self._columns.separator is not None and value is not None:
            return self._joined_labels(line, value, self._columns.separator)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):  # doccano and Label Studio allow several
            if len(value) > 1:
                raise self._bad(line, f"the record has {len(value)} labels, {listing(value)}; one is needed", "bad-label")
            value = value[0] if value else None
        if value is None or (isinstance(value, str) and not value.strip()):
            raise self._bad(line, f"the record has no label in column {quoted(name)}", "missing-label")
        return self._label_text(line, value)

    def _joined_labels(self, line: int, value: Any, separator: str) -> str:
        """The names in a list, joined by the separator; a string already is. Empty for no label."""
        if not isinstance(value, list):
            return self._label_text(line, value)
        names = [self._label_text(line, item) for item in value]
        if wrong := [name for name in names if separator in name or not name.strip()]:
            message = f"the label {quoted(wrong[0])} is empty or holds {quoted(separator)}, which separates labels: choose label_separator"
            raise self._bad(line, message, "bad-label")
        if names and separator.join(names).split(separator) != names:  # 'a;' and 'b' with ';;' between them
            message = f"the labels {listing(names)} cannot be told apart with {quoted(separator)} between them: choose label_separator"
            raise self._bad(line, message, "bad-label")
        return separator.join(names)

    def _label_text(self, line: int, value: Any) -> str:
        if isinstance(value, str):
            return check_characters(self._path, line, value)
        if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
            return json.dumps(value)  # a bool is an int, and json writes it as true or false
        found = "a number that is not finite" if isinstance(value, float) else json_type(value)
        raise self._bad(line, f"a label must be a string, a number or a boolean, found {found}", "bad-label")

    def _text_b(self, line: int, fields: Mapping[str, Any]) -> str | None:
        name = self._columns.text_b
        if name is None:
            taken = "text_b" in (self._columns.text, self._columns.label)
            return None if taken or fields.get("text_b") is None else check_text(self._path, line, fields["text_b"], "second text")
        if name not in fields:
            raise unknown_column(self._path, line, name, fields)
        return check_text(self._path, line, fields[name], "second text")

    # ---- spans and words

    def _entities(self, line: int, fields: dict[str, Any], text: str) -> tuple[Entity, ...] | None:
        """The spans of the row, whose column is removed from `fields`; None if it has none."""
        label_name = self._columns.label or "label"
        for name in ("entities", label_name, "labels"):
            several = name == label_name and self._columns.separator is not None  # then even an empty list holds labels, not spans
            if name in fields and not several and (name == "entities" or is_span_list(fields[name])):
                return read_entities(self._path, line, fields.pop(name), text)
        return None

    def _words(self, line: int, fields: dict[str, Any], text: str) -> Places | None:
        """The (start, end) of each word, from the column `words`; unless that is a list of lists, it is an ordinary column."""
        words = fields.get("words")
        if not isinstance(words, list) or not all(isinstance(word, list) for word in words):
            return None
        past = 0
        for word in words:
            if len(word) != 2 or not all(type(place) is int for place in word) or not past <= word[0] < word[1] <= len(text):
                message = f"the word {quoted(word)} must be [start, end], after the word before it and within the text"
                raise self._bad(line, message, "bad-words")
            past = word[1]
        del fields["words"]
        return tuple((start, end) for start, end in words)

    # ---- words with tags

    def _words_column(self, fields: Mapping[str, Any]) -> str | None:
        """The name of the column of words, if the row is a sentence of words with tags."""
        if self._columns.text is not None or not isinstance(fields.get("ner_tags", fields.get("tags")), list):
            return None
        for name in ("tokens", "words"):
            words = fields.get(name)
            if isinstance(words, list) and words and all(isinstance(word, str) for word in words):
                return name
        return None

    def _sentence(self, line: int, fields: Mapping[str, Any], words_column: str) -> Record:
        words, tags = fields[words_column], fields.get("ner_tags", fields.get("tags"))
        if len(words) != len(tags):
            raise self._bad(line, f"{len(words)} words but {len(tags)} tags: every word needs one", "bad-tag")
        for word in words:
            check_text(self._path, line, word, "word")
        if not all(isinstance(tag, str) for tag in tags):
            raise self._bad(line, "tags must be strings such as 'B-PERSON'; `records_from` takes numbers, with tag_names", "bad-tag")
        text, places = joined(words)
        check_text(self._path, line, text)
        try:
            spans = spans_of(tags)
        except ArgumentError as error:
            raise self._bad(line, str(error), "bad-tag") from None
        entities = tuple(Entity(places[first][0], places[past - 1][1], kind) for first, past, kind in spans)
        rest = {name: value for name, value in fields.items() if name not in (words_column, "ner_tags")} | {"tags": tuple(tags)}
        return Record(text, self._label(line, fields), self._path, line, rest, self._text_b(line, fields), entities, places)

    def _bad(self, line: int, message: str, code: str) -> DataError:
        return DataError(self._path, message, line=line, code=code)

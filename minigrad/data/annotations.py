"""Annotated spans as annotation tools write them: our own JSON lines, doccano's, and exports of Label Studio.

The tools agree on characters as the unit and on little else. Here all their notations become `Entity`, and each span is checked against the
text, because a shifted or overlapping span would silently teach a model nonsense.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from minigrad.data.records import Entity, check_characters
from minigrad.data.tables import MAX_LINE_BYTES, Objects, lines, parsed_object
from minigrad.errors import DataError
from minigrad.files import json_type, quoted

# An export of Label Studio is one JSON value, so all of it is held in memory, at several times its size on disk.
MAX_EXPORT_BYTES = MAX_LINE_BYTES


# ---- spans


def read_entities(path: str | Path, line: int, values: object, text: str) -> tuple[Entity, ...]:
    """The spans of a JSON array that annotate `text`, in order.

    Each is [start, end, type], or an object with start or start_offset, end or end_offset, and type, label or a list `labels` of one. An
    object may repeat the span's text, as Label Studio does; then it must match.

    Raises:
        DataError (code bad-entity): a span has another form, is reversed, empty, outside the text, or overlaps another; names the span.
    """
    if not isinstance(values, list):
        raise _bad(path, line, f"entities must be an array of spans, found {json_type(values)}")
    entities = sorted(_entity(path, line, value, text) for value in values)
    for before, after in pairwise(entities):
        if after.start < before.end:
            raise _bad(path, line, f"the entities {_named(before)} and {_named(after)} overlap; a word can have one tag only")
    return tuple(entities)


def is_span_list(value: object) -> bool:
    """Whether the value of a label column holds spans instead: an array of arrays or objects, or an empty one."""
    return isinstance(value, list) and all(isinstance(item, list | dict) for item in value)


def _entity(path: str | Path, line: int, value: Any, text: str) -> Entity:
    shown: object = None
    match value:
        case [start, end, kind]:
            pass
        case {"start": start, "end": end} | {"start_offset": start, "end_offset": end}:
            shown = value.get("text")
            kind = value.get("type", value.get("label", value.get("labels")))
            if isinstance(kind, list) and len(kind) == 1:
                kind = kind[0]
        case _:
            raise _bad(path, line, f"{quoted(value)} is no span; write {{'start': 0, 'end': 4, 'type': 'NAME'}} or [0, 4, 'NAME']")
    if type(start) is not int or type(end) is not int:
        raise _bad(path, line, f"start and end of the entity {quoted(value)} must be integers, the places of characters in the text")
    if not isinstance(kind, str) or not kind.strip():
        raise _bad(path, line, f"the entity {quoted(value)} needs one type, a string")
    entity = Entity(start, end, check_characters(path, line, kind))
    if isinstance(shown, str) and start >= 0:
        entity = _shown(path, line, entity, shown, text)
    if entity.start >= entity.end:
        wrong = "is empty" if start == end else "is reversed"
        raise _bad(path, line, f"the entity {_named(entity)} {wrong}; start is its first character and end the one past its last")
    if entity.start < 0 or entity.end > len(text):
        raise _bad(path, line, f"the entity {_named(entity)} lies outside of the text, which has {len(text)} characters")
    return entity


def _shown(path: str | Path, line: int, entity: Entity, shown: str, text: str) -> Entity:
    """The entity, converted if its places count UTF-16 code units, as in a browser, where characters such as emoji count twice."""
    if entity.end <= len(text) and _same(text[entity.start : entity.end], shown):
        return entity
    units = text.encode("utf-16-le")
    start = len(units[: 2 * entity.start].decode("utf-16-le", errors="ignore"))
    end = len(units[: 2 * entity.end].decode("utf-16-le", errors="ignore"))
    if _same(text[start:end], shown):
        return Entity(start, end, entity.type)
    found = quoted(text[entity.start : entity.end])
    raise _bad(path, line, f"the entity {_named(entity)} should be {quoted(shown)}, but the text there is {found}")


def _same(found: str, shown: str) -> bool:
    """Equal except for white space, which Label Studio folds, and line ends, which it writes as two characters."""
    return found.split() == shown.replace("\\n", " ").split() or found == shown


def _named(entity: Entity) -> str:
    return f"{entity.start} to {entity.end} ({quoted(entity.type)})"


def _bad(path: str | Path, line: int, message: str) -> DataError:
    return DataError(path, message, line=line, code="bad-entity")


# ---- Label Studio


def label_studio_objects(path: Path, encoding: str) -> Objects:
    """The tasks of an export, JSON or JSON-MIN: their data, their `entities` if any task has some, their choices by name.

    A JSON-MIN task is such an object already. Of another task, the annotation that was not cancelled counts; of several, the one marked as
    ground truth. A choice becomes a field named after its control, and also `label` if the task has only one.

    Raises:
        DataError: the file is larger than 64 MiB or not an array of tasks.
    """
    found = list(_array(path, encoding))
    results = [_results(path, line, task) for line, task in found]
    marked = any(result.get("type") == "labels" for rows in results if isinstance(rows, list) for result in rows)
    for (line, task), rows in zip(found, results, strict=True):
        if isinstance(task, DataError) or rows is None:
            yield line, task
        else:
            yield line, rows if isinstance(rows, DataError) else _fields(task, rows, marked)


def _array(path: Path, encoding: str) -> Objects:
    """The objects of a JSON array, each with the line that it begins on."""
    parts: list[str] = []
    size = 0
    for number, part, error in lines(path, encoding):
        if error:
            raise error
        size += len(part.encode("utf-8", "surrogatepass"))  # UTF-7 can spell half a pair
        if size > MAX_EXPORT_BYTES:
            message = f"larger than {MAX_EXPORT_BYTES} bytes, and an export is held in memory whole; export it in parts, or use .jsonl"
            raise DataError(path, message, line=number, code="json-limit")
        parts.append(part)
    text = "".join(parts)
    place = _past_space(text, 0)
    if not text.startswith("[", place):
        message = "a .json file must be an export of Label Studio, an array of tasks; for one object per line use .jsonl or format='jsonl'"
        raise DataError(path, message, line=1, code="bad-json")
    decoder = json.JSONDecoder()
    line, counted = 1, 0
    place = _past_space(text, place + 1)
    more = not text.startswith("]", place)
    while more:
        line, counted = line + text.count("\n", counted, place), place
        try:
            _, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            raise DataError(path, f"not valid JSON in the task that begins here: {error}", line=line, code="bad-json") from None
        yield line, parsed_object(path, line, text[place:end])
        place = _past_space(text, end)
        if text[place : place + 1] not in (",", "]"):
            raise DataError(path, "not valid JSON: no comma and no ] after the task that begins here", line=line, code="bad-json")
        more = text[place] == ","
        place = _past_space(text, place + 1) if more else place
    if _past_space(text, place + 1) < len(text):
        raise DataError(path, "not valid JSON: there is more after the array", line=line, code="bad-json")


def _past_space(text: str, place: int) -> int:
    while text[place : place + 1] in (" ", "\t", "\r", "\n"):
        place += 1
    return place


def _results(path: Path, line: int, task: dict[str, Any] | DataError) -> list[dict[str, Any]] | DataError | None:
    """The results of a task's annotation; None for a JSON-MIN task and for a task that could not be parsed."""
    if isinstance(task, DataError) or ("annotations" not in task and "data" not in task):
        return None
    name = f"task {quoted(task.get('id'))}"
    annotations = task.get("annotations")
    if not isinstance(task.get("data"), dict) or not isinstance(annotations, list):
        return DataError(path, f"{name} of Label Studio needs `data`, an object, and `annotations`, an array", line=line, code="bad-json")
    kept = [annotation for annotation in annotations if isinstance(annotation, dict) and not annotation.get("was_cancelled")]
    kept = [annotation for annotation in kept if annotation.get("ground_truth") is True] or kept
    if len(kept) != 1:
        message = f"{name} has {len(kept)} annotations; exactly one must count (of several, mark one as ground truth)"
        return DataError(path, message, line=line, code="bad-annotation")
    results = kept[0].get("result")
    if not isinstance(results, list) or not all(isinstance(row, dict) and isinstance(row.get("value"), dict) for row in results):
        return DataError(path, f"the annotation of {name} has no proper `result`", line=line, code="bad-annotation")
    return results


def _fields(task: Mapping[str, Any], results: list[dict[str, Any]], marked: bool) -> dict[str, Any]:
    fields = {"id": task.get("id"), **task["data"]}
    choices = {str(row.get("from_name")): row["value"].get("choices") for row in results if row.get("type") == "choices"}
    fields |= choices
    if len(choices) == 1:
        fields.setdefault("label", *choices.values())
    if marked:
        fields["entities"] = [row["value"] for row in results if row.get("type") == "labels"]
    return fields

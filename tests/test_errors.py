"""Every error of the family survives what a process pool does to it: it is sent and copied with message, code and place."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest

from minigrad import errors
from minigrad.audit_report import Audit, AuditError, AuditRow
from minigrad.errors import CheckpointUnavailableError, DataError, FileFormatError, InputError, MinigradError


def family(kind: type[MinigradError] = MinigradError) -> Iterator[type[MinigradError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from family(child)


def example(kind: type[MinigradError]) -> MinigradError:
    if issubclass(kind, InputError):
        return kind("text", 3, "is wrong", code="special")
    if issubclass(kind, DataError):
        return kind("some/file.tsv", "what is wrong", line=7, code="special")
    if issubclass(kind, FileFormatError):
        return kind("some/file.tsv", "what is wrong", code="special")
    return kind("what is wrong", code="special")


@pytest.mark.parametrize("kind", sorted(set(family()), key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_sent_and_copied_whole(kind: type[MinigradError]) -> None:
    error = example(kind)
    error.add_note("a note")
    copies = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for again in [*copies, copy.copy(error), copy.deepcopy(error)]:
        assert type(again) is kind
        assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
        assert again.code == "special"


def test_the_walk_finds_the_leaves_of_the_family() -> None:
    assert {DataError, CheckpointUnavailableError, MinigradError} <= set(family())
    assert set(family()) == {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MinigradError)}


def test_the_place_survives() -> None:
    again = pickle.loads(pickle.dumps(DataError("a.tsv", "empty", line=3)))
    assert (again.path, again.line, again.code, str(again)) == ("a.tsv", 3, "data", "a.tsv:3: empty")


def test_an_error_that_writes_its_own_message_survives() -> None:
    error = AuditError(Audit(0.5, (AuditRow("w", (2,), 1.0, 0.3, "wrong"),)))
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.audit) == (str(error), error.audit)

"""What processes send each other."""

from __future__ import annotations

import pytest

from minigrad import errors
from minigrad.errors import MinigradError
from minigrad.workers.messages import described, rebuilt

FAMILY = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MinigradError)]


@pytest.mark.parametrize("kind", FAMILY)
def test_an_error_of_the_family_arrives_as_it_was(kind: type[MinigradError]) -> None:
    error = kind.__new__(kind)
    error.args = ("a file is not there: fetch it",)
    error.code = "some-code"
    found = rebuilt(described(error), "worker 1")
    assert type(found) is kind and str(found) == "a file is not there: fetch it" and found.code == "some-code"
    assert "In worker 1:" in found.__notes__[0]

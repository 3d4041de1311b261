"""Windows over a long text hold all of it, and every token is answered for once, where most is shown around it."""

from __future__ import annotations

from math import inf

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minigrad.data.tokenization import Encoding
from minigrad.data.windows import answering, joined, window, windows


def encoding(own: int) -> Encoding:
    """A text of so many tokens, numbered, between two special ones."""
    ids = np.arange(own + 2)
    sequence = np.r_[-1, np.zeros(own, np.int64), -1]
    return Encoding(ids, ids * 0, np.zeros((own + 2, 2), np.int64), ids, sequence, truncated=False)


@given(own=st.integers(0, 60), size=st.integers(3, 20), data=st.data())
def test_every_token_is_answered_for_where_most_is_shown(own: int, size: int, data: st.DataObject) -> None:
    stride = data.draw(st.none() | st.integers(0, size - 3))
    whole = encoding(own)
    parts = windows(whole, 0, size, stride, "text", 0)
    edges = (parts[0][0], parts[-1][1])
    assert edges == (1, own + 1)
    shown = [window(whole, part, edges).ids for part in parts]
    assert all(ids[0] == 0 and ids[-1] == own + 1 and len(ids) <= size for ids in shown)

    ranges = answering(parts)
    assert [token for first, past in ranges for token in range(first, past)] == list(range(1, own + 1))
    for part, answered in zip(parts, ranges, strict=True):
        for token in range(*answered):
            around = [_around(token, other, edges) for other in parts if other[0] <= token < other[1]]
            assert _around(token, part, edges) >= max(around) - 1  # the middle of what two share may lie between tokens
    rows = [ids[:, None].astype(float) for ids in shown]
    assert joined(parts, rows)[:, 0].tolist() == list(range(1, own + 1))


def _around(token: int, part: tuple[int, int], edges: tuple[int, int]) -> float:
    """The tokens on the side where fewer are shown; at an edge of the text nothing is missing."""
    before = inf if part[0] == edges[0] else token - part[0]
    after = inf if part[1] == edges[1] else part[1] - 1 - token
    return min(before, after)

"""A step divided into stretches: every element is updated once, in the same blocks as in one process, with about equal shares."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import minigrad as mg
from minigrad.optim.arena import TABLE_ROWS
from minigrad.optim.updates import Update, divide

updates = st.lists(st.tuples(st.sampled_from([None, 0]), st.integers(0, 50), st.integers(1, 400), st.integers(1, 20)), max_size=5)


@given(updates, st.integers(1, 5), st.integers(1, 64))
def test_every_element_is_dealt_out_once(found: list[tuple[int | None, int, int, int]], parts: int, block: int) -> None:
    stretches = [Update(t, start, start + n, 1 if t is None else width, (), {"number": i}) for i, (t, start, n, width) in enumerate(found)]
    shares = divide(stretches, parts, block)
    assert len(shares) == parts
    for i, whole in enumerate(stretches):
        pieces = [u for share in shares for u in share if u.constants["number"] == i]
        assert [u.start for u in pieces] == [whole.start, *[u.stop for u in pieces[:-1]]]
        assert pieces[-1].stop == whole.stop
        step = max(1, block // whole.width)
        assert all((u.start - whole.start) % step == 0 for u in pieces)  # cut at the edges of blocks only
    sizes = [sum((u.stop - u.start) * u.width for u in share) for share in shares]
    largest_block = max([max(1, block // u.width) * u.width for u in stretches], default=0)
    assert max(sizes) <= sum(sizes) / parts + len(stretches) * largest_block + 1


def test_stretches_in_any_order_make_the_step() -> None:
    generator = np.random.default_rng(0)
    start = [generator.standard_normal((TABLE_ROWS, 4)), generator.standard_normal((300, 500))]
    results = []
    for parts in (1, 3):
        table, matrix = mg.Parameter(start[0], gathered=True), mg.Parameter(start[1])
        optimizer = mg.optim.AdamW([table, matrix], lr=0.1)
        for step in range(3):
            ids = np.random.default_rng(step).integers(0, TABLE_ROWS, 900)
            ((mg.functional.embedding(mg.tensor(ids), table) ** 2).sum() + (matrix**2).sum()).backward()
            for share in reversed(divide(optimizer.begin_step(), parts, optimizer.arena.block)):
                for update in reversed(share):
                    optimizer.apply(update)
            optimizer.end_step()
            optimizer.zero_grad()
        results.append([table.numpy().copy(), matrix.numpy().copy()])
    for one, several in zip(*results, strict=True):
        np.testing.assert_array_equal(one, several)

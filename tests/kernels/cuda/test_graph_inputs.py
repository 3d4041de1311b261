"""Packings for captured steps: arrays of fixed shapes, and idle pieces that change nothing."""

from __future__ import annotations

import numpy as np
import pytest
from kernels.cuda.attention_cases import kernels, sample
from kernels.cuda.emulation import Emulator

import minigrad as mg
from minigrad.backend import transfers
from minigrad.errors import DeviceError
from minigrad.kernels.cuda import attention, draws
from minigrad.kernels.cuda.attention import Work, pieces
from minigrad.kernels.cuda.graph_inputs import IDLE, PlacedPacking, packing_layout, write_packing
from minigrad.packing import Packing


def packing_arrays(packing: Packing) -> dict[str, np.ndarray]:
    found = {name: np.full(shape, -7, dtype) for name, (shape, dtype) in packing_layout(packing.rows, len(packing)).items()}
    write_packing(packing, found)
    return found


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("form", ["encoder", "decoder", "cross", "sequence head"])
def test_idle_pieces_change_nothing(form: str, precision: str, emulator: Emulator) -> None:
    given = sample(form, 32, (3, 65, 17))
    packing, queries = given[2]["packing"], given[2]["queries"]
    with mg.precision(precision):
        expected = kernels(given, emulator)
        tables = [
            np.concatenate([pieces(packing, queries, owner), np.full((3, 8), IDLE[owner], np.int32)]) for owner in ("queries", "keys")
        ]
        attention.register_work(packing, queries, Work(*tables))
        found = kernels(given, emulator)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("lengths", [[1, 1, 1, 197], [50, 50, 50, 50], [64, 64, 64, 8], [65, 1, 65, 69]])
def test_tables_are_those_of_attention_and_idle_behind(lengths: list[int]) -> None:
    packing = Packing(lengths, numbers=[7, 0, 3, 1])
    arrays = packing_arrays(packing)
    for name, queries in (("all", packing), ("first", packing.first)):
        for owner, idle in IDLE.items():
            table = pieces(packing, queries, owner)
            np.testing.assert_array_equal(arrays[f"{name}_{owner}"][: len(table)], table)
            assert (arrays[f"{name}_{owner}"][len(table) :] == idle).all()
        np.testing.assert_array_equal(arrays[f"{name}_places"], draws.host_places(queries))


def test_there_is_room_for_the_most_pieces() -> None:
    worst = packing_arrays(Packing([65, 1, 65, 69]))  # as many pieces as two hundred rows can make up
    assert (worst["all_keys"][:, 1] != IDLE["keys"][1]).sum() >= 6


def test_operations_find_what_was_placed() -> None:
    packing = Packing([3, 70], numbers=[4, 2])
    arrays = packing_arrays(packing)
    placed = PlacedPacking(packing, arrays)
    assert placed.first_rows is arrays["first_rows"] and packing.first_rows is not arrays["first_rows"]
    assert draws.places(None, placed) is arrays["all_places"] and draws.places(None, placed.first) is arrays["first_places"]
    np.testing.assert_array_equal(arrays["first_places"], [[4, 0], [2, 0]])
    np.testing.assert_array_equal(arrays["all_places"][3:5], [[2, 0], [2, 1]])
    assert placed.positions.base is arrays["all_places"]
    np.testing.assert_array_equal(placed.positions, packing.positions)
    work = attention._work(None, placed, placed.first)
    assert work.by_query is arrays["first_queries"] and work.by_key is arrays["first_keys"]
    assert (placed.rows, len(placed), placed.first.rows) == (73, 2, 2)


def test_counting_ids_says_how_far_it_goes(emulator: Emulator) -> None:
    packing = Packing([3, 70])
    placed, ids = PlacedPacking(packing, packing_arrays(packing)), np.arange(73) % 5
    with transfers.collecting_ids() as noted:
        found = placed.counted(ids, 4, 9)
    np.testing.assert_array_equal(found, packing.counted(ids, 4, 9))
    ((computed, by, above),) = noted.bounds
    assert computed is found and by is placed.positions
    np.testing.assert_array_equal(packing.counted(ids, 5, 9), packing.positions + above)  # as far as it can, where none is skipped


@pytest.mark.parametrize("name", ["lengths", "offsets", "spans", "key_spans"])
def test_nobody_reads_what_is_different_in_every_replay(name: str) -> None:
    packing = Packing([3, 70])
    with pytest.raises(DeviceError, match="different in every replay"):
        getattr(PlacedPacking(packing, packing_arrays(packing)), name)

"""Interruption: what each signal does inside and outside its block. (In the middle of a save: `faults/test_stopped.py`.)"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from minigrad.train.signals import Interruption

HANDLED = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Whatever a test does, the handlers are the former ones again."""
    former = {number: signal.getsignal(number) for number in HANDLED}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def test_without_a_signal_nothing_happens() -> None:
    with Interruption() as interruption:
        assert interruption.signal is None
    assert interruption.exit_code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_is_noted(number: signal.Signals, code: int) -> None:
    with Interruption() as interruption:
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)  # changes nothing
        assert (interruption.signal, interruption.exit_code) == (number, code)
    assert interruption.exit_code == code


@pytest.mark.parametrize("first", HANDLED)
def test_ctrl_c_after_any_signal_stops_at_once(first: signal.Signals) -> None:
    with Interruption() as interruption:
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert interruption.signal == first


def test_the_former_handlers_come_back_even_after_an_error() -> None:
    seen: list[int] = []
    for number in HANDLED:
        signal.signal(number, lambda number, frame: seen.append(number))
    former = [signal.getsignal(number) for number in HANDLED]
    with pytest.raises(ZeroDivisionError), Interruption():
        assert [signal.getsignal(number) for number in HANDLED] != former
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in HANDLED] == former
    signal.raise_signal(signal.SIGTERM)
    assert seen == [signal.SIGTERM]


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGINT)
        assert interruption.signal is None
        signal.raise_signal(signal.SIGTERM)
        assert interruption.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_one_block_within_another() -> None:
    with Interruption() as outer:
        with Interruption() as inner:
            signal.raise_signal(signal.SIGTERM)
        assert (inner.signal, outer.signal) == (signal.SIGTERM, None)
        signal.raise_signal(signal.SIGTERM)
    assert outer.signal == signal.SIGTERM


def test_in_another_thread_nothing_is_changed() -> None:
    former = [signal.getsignal(number) for number in HANDLED]
    found: list[object] = []

    def run() -> None:
        with Interruption() as interruption:
            found.extend([*(signal.getsignal(number) for number in HANDLED), interruption.signal])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [*former, None]

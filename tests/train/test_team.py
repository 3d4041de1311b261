"""A team's gradient is that of one pass over the whole batch, however it is computed; nothing hangs, and nothing is left behind."""

from __future__ import annotations

import gc
import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from models.cases import head
from support import gradient_errors, gradients_of

import minigrad as mg
from minigrad.backend import random
from minigrad.backend.threads import openblas_libraries
from minigrad.data.loader import Batch
from minigrad.errors import ArgumentError, GraphError, MinigradError, NonFiniteError, ShapeError
from minigrad.models.losses import IGNORED
from minigrad.packing import PackedTokens, pack
from minigrad.train.processes.handler import batch_arrays, batch_of
from minigrad.train.processes.shared import shared_zeros
from minigrad.train.team import Team

LENGTHS = (5, 9, 1, 3, 7, 2, 9)
LARGE = 4200
"""A vocabulary that an optimizer keeps by rows."""

TOLERANCE = {"float32": 1e-6, "float64": 1e-12}
"""Norm of the difference of two gradients, or losses, beside the norm: the same sums in another order and in matrices of other heights,
so rounding only. The largest errors seen are printed with -s."""

SINGLE = {"float32": 4e-6, "float64": 1e-12}
"""The same for the largest entry of each parameter: in float32 even one pass over the whole batch is 1e-6 from float64."""

largest: dict[str, float] = {}


@pytest.fixture(scope="module", autouse=True)
def figures() -> Iterator[None]:
    yield
    print("\nlargest errors:", ", ".join(f"{what} {error:.1e}" for what, error in sorted(largest.items())))


@contextmanager
def deadline(seconds: int = 20) -> Iterator[None]:
    """Fail instead of hanging. That a worker is dead must be noticed within 5 seconds; the other times are generous."""

    def give_up(number: int, frame: Any) -> None:
        raise TimeoutError(f"nothing happened for {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def token_batch(seed: int = 0, vocabulary: int = 30, lengths: tuple[int, ...] = LENGTHS) -> Batch:
    """A third of the labels and the whole third sequence, which is a part of its own where there are many parts, are ignored."""
    generator = np.random.default_rng(seed)
    tokens = PackedTokens.of([generator.integers(1, vocabulary, n) for n in lengths])
    labels = generator.integers(0, 3, tokens.packing.rows)
    labels[generator.random(len(labels)) < 1 / 3] = IGNORED
    a, b = tokens.packing.spans[2]
    labels[a:b] = IGNORED
    return Batch(tokens=tokens, labels=None, token_labels=labels, rows=np.arange(len(lengths)))


def token_loss(model: Any) -> Callable[[Batch, Batch], mg.Tensor]:
    def loss_of(part: Batch, whole: Batch) -> mg.Tensor:
        count = float((whole.token_labels != IGNORED).sum())
        return model(part.tokens, labels=part.token_labels, num_items_in_batch=count).loss

    return loss_of


def tagger(dtype: str = "float64", **changes: Any) -> Any:
    return head("BertForTokenClassification", dtype, dropout=0.2, **changes)


def adamw(model: Any) -> mg.optim.AdamW:
    return mg.optim.AdamW(model.named_parameters(), lr=1e-2, weight_decay=0.1)


def states_equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def distance(ours: dict[str, Any], expected: dict[str, Any]) -> float:
    """|ours - expected| / |expected|, over all parameters together."""
    squares = [(np.sum((ours[name] - g.astype(np.float64)) ** 2), np.sum(g.astype(np.float64) ** 2)) for name, g in expected.items()]
    return float(np.sqrt(sum(d for d, _ in squares) / sum(g for _, g in squares)))


def record(what: str, error: float) -> float:
    largest[what] = max(largest.get(what, 0.0), error)
    return error


# ---------------------------------------------------------------- the same gradient
@pytest.mark.parametrize("vocabulary", [30, LARGE], ids=["arena", "table"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("workers", "parts"), [(1, 2), (1, 3), (1, 4), (1, 5), (2, 1), (3, 1), (2, 2), (3, 3)])
def test_gradient_is_that_of_the_whole_batch(workers: int, parts: int, dtype: str, vocabulary: int) -> None:
    model = tagger(dtype, vocab_size=vocabulary)
    optimizer, batch = adamw(model), token_batch(vocabulary=vocabulary)
    whole = token_loss(model)(batch, batch)  # the draws of step 0 that a plain loop makes
    whole.backward()
    expected = gradients_of(model)
    with Team(token_loss(model), optimizer, workers=workers) as team:
        loss = team.backward(batch, parts)
        ours = gradients_of(model)
    what = f"{'parts' if workers == 1 else 'workers'} {dtype}"
    assert abs(loss - whole.item()) <= TOLERANCE[dtype] * abs(whole.item())
    assert record(what, distance(ours, expected)) < TOLERANCE[dtype]
    assert record(f"{what}, single", max(gradient_errors(ours, expected).values())) < SINGLE[dtype]


def test_a_plain_loop_drops_the_same_units() -> None:
    """One worker, one part: the very numbers of a plain loop."""
    plain, ours = tagger("float32"), tagger("float32")
    optimizer = adamw(plain)
    batches = [token_batch(seed) for seed in range(3)]
    mg.manual_seed(5)
    for batch in batches:
        token_loss(plain)(batch, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
    mg.manual_seed(5)
    team = Team(token_loss(ours), adamw(ours))
    for batch in batches:
        team.backward(batch)
        team.step()
    assert states_equal(plain.state_dict(), ours.state_dict())


def trained(workers: int, parts: int, steps: int, dtype: str = "float64", kind: str = "BertForTokenClassification") -> Any:
    """(losses, state) after some clipped AdamW steps; the vocabulary is a table whose untouched rows owe decay."""
    model = head(kind, dtype, dropout=0.2, vocab_size=LARGE)
    optimizer = adamw(model)
    mg.manual_seed(3)
    losses = []
    with Team(token_loss(model), optimizer, workers=workers) as team:
        for step in range(steps):
            losses.append(team.backward(token_batch(step, vocabulary=LARGE if step % 2 else 60), parts))
            mg.optim.clip_grad_norm(model.parameters(), 0.5)
            team.step()
    return losses, model.state_dict()


@pytest.mark.parametrize("kind", ["BertForTokenClassification", "BertForMaskedLM"])  # the second reads its whole table
@pytest.mark.parametrize(("workers", "parts"), [(1, 3), (2, 1), (3, 2)])
def test_twenty_steps_end_at_the_same_weights(workers: int, parts: int, kind: str) -> None:
    """Key biases left out: their gradient is zero and what is computed is rounding noise, which AdamW enlarges."""
    losses, state = trained(1, 1, 20, kind=kind)
    other_losses, other_state = trained(workers, parts, 20, kind=kind)
    assert np.allclose(losses, other_losses, rtol=TOLERANCE["float64"], atol=0)
    error = max(float(np.abs(state[name] - other_state[name]).max()) for name in state if not name.endswith("key.bias"))
    assert record("20 steps float64", error) < TOLERANCE["float64"]  # weights are about 1


@pytest.mark.parametrize("reads", ["batch", "rows", "all"])
@pytest.mark.parametrize("workers", [1, 3])
def test_rows_are_paid_for_before_they_are_read(workers: int, reads: str) -> None:
    """What a batch reads is settled and the rest stays owed; but where workers read more of a table, all of it gets settled."""
    ours, plain = tagger(vocab_size=LARGE), tagger(vocab_size=LARGE)

    def loss_of(part: Batch, whole: Batch, model: Any = ours) -> mg.Tensor:
        loss, table = token_loss(model)(part, whole), model.bert.embeddings.word_embeddings.weight
        if reads == "batch" or 2 not in part.rows:  # one worker reads it, not the parent, which would pay
            return loss
        return loss + (table.detach().numpy() if reads == "all" else table.array_for_rows(np.arange(2000, 2100))[2000:2100]).mean()

    optimizer, expected = adamw(ours), adamw(plain)
    with Team(loss_of, optimizer, workers=workers) as team:
        for step in range(4):
            batch = token_batch(step, vocabulary=LARGE)
            assert workers == 1 or 2 not in batch.split(workers)[0].rows
            with random.at(random.current().seed, random.current().step):  # the same draws, and a step that only counts in here
                loss = loss_of(batch, batch, plain)
                loss.backward()
                expected.step()
                expected.zero_grad()
            assert team.backward(batch) == pytest.approx(loss.item(), rel=TOLERANCE["float64"])
            settled = reads == "all" or (workers > 1 and reads == "rows")
            assert bool(next(iter(optimizer.tables.values())).debt.factors) == (step > 0 and not settled)
            team.step()


@pytest.mark.parametrize("max_norm", [None, 0.5, math.inf])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_clipping_is_that_of_clip_grad_norm(workers: int, max_norm: float | None) -> None:
    """On an arena and a table; what is measured is the norm before, and the gradients in between are those before."""
    ours, plain = tagger(vocab_size=LARGE), tagger(vocab_size=LARGE)
    expected = adamw(plain)
    with Team(token_loss(ours), adamw(ours), workers=workers, max_norm=max_norm) as team:
        for step in range(3):
            batch = token_batch(step, vocabulary=LARGE)
            with random.at(random.current().seed, random.current().step):
                token_loss(plain)(batch, batch).backward()
                before = gradients_of_all(plain)
                norm = mg.optim.clip_grad_norm(plain.parameters(), math.inf if max_norm is None else max_norm)
                expected.step()
                expected.zero_grad()
            team.backward(batch)
            assert team.grad_norm == (None if max_norm is None else pytest.approx(norm, rel=TOLERANCE["float64"]))
            assert max_norm != 0.5 or norm > 0.5
            assert distance(gradients_of_all(ours), before) < TOLERANCE["float64"]
            team.step()
    # twenty steps are compared above; key biases have no gradient but noise
    error = max(float(np.abs(a - ours.state_dict()[name]).max()) for name, a in plain.state_dict().items() if not name.endswith("key.bias"))
    assert error < TOLERANCE["float64"]


def gradients_of_all(model: Any) -> dict[str, Any]:
    """Every gradient, which stays."""
    return {name: p.grad.numpy().copy() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("max_norm", [-1.0, float("nan"), "1", True])
def test_impossible_norms(max_norm: Any) -> None:
    model = tagger()
    with pytest.raises(ArgumentError, match="max_norm must be a number >= 0"):
        Team(token_loss(model), adamw(model), max_norm=max_norm)


def restored(optimizer: mg.optim.AdamW) -> None:
    optimizer.load_state_dict(optimizer.state_dict())


def other_rule(optimizer: mg.optim.AdamW) -> None:
    optimizer.param_groups[0]["amsgrad"] = True


@pytest.mark.parametrize("change", [restored, other_rule])
@pytest.mark.parametrize("when", ["before backward", "before step"])
def test_an_optimizer_with_other_moments_goes_on(change: Callable[[mg.optim.AdamW], None], when: str) -> None:
    states = []
    for workers in (1, 2):
        model = tagger(vocab_size=LARGE)
        optimizer = adamw(model)
        mg.manual_seed(0)
        with Team(token_loss(model), optimizer, workers=workers) as team:
            for step in range(4):
                if step == 2 and when == "before backward":
                    change(optimizer)
                team.backward(token_batch(step, vocabulary=LARGE))
                if step == 2 and when == "before step":
                    change(optimizer)
                team.step()
        states.append({name: a for name, a in model.state_dict().items() if not name.endswith("key.bias")})
    assert distance(states[1], states[0]) < TOLERANCE["float64"]


def test_a_worker_that_dies_before_the_update_is_not_missed() -> None:
    expected, model = tagger(), tagger()
    states = []
    for killed, one in ((False, expected), (True, model)):
        mg.manual_seed(0)
        with Team(token_loss(one), adamw(one), workers=2) as team, deadline(5):
            for step in range(2):
                team.backward(token_batch(step))
                if killed:
                    os.kill(team._pool.workers[0].pid, signal.SIGKILL)
                    os.waitid(os.P_PID, team._pool.workers[0].pid, os.WEXITED | os.WNOWAIT)
                team.step()
        states.append(one.state_dict())
    assert states_equal(*states)


def test_a_worker_that_dies_in_the_update_leaves_no_step_that_looks_whole() -> None:
    model, batch = tagger(), token_batch()
    optimizer, parent = adamw(model), os.getpid()
    apply = optimizer.apply

    def deadly(update: Any, scale: float) -> None:
        apply(update, scale)
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    optimizer.arena.block = 64  # so that there is something for everybody
    optimizer.apply = deadly
    with Team(token_loss(model), optimizer, workers=2) as team, deadline(5):
        team.backward(batch)
        with pytest.raises(MinigradError, match="SIGKILL") as caught:
            team.step()
        assert caught.value.code == "worker-died"
        for whatever in (lambda: team.backward(batch), team.step):
            with pytest.raises(MinigradError, match="broken off") as caught:
                whatever()
            assert caught.value.code == "half-step"


@pytest.mark.parametrize("workers", [2, 3])
def test_the_same_run_gives_the_same_bits(workers: int) -> None:
    losses, state = trained(workers, 2, 4, "float32")
    again_losses, again_state = trained(workers, 2, 4, "float32")
    assert losses == again_losses
    assert states_equal(state, again_state)


def test_more_workers_than_sequences() -> None:
    model, batch = tagger(), token_batch(lengths=(4, 6, 2))
    with Team(token_loss(model), adamw(model), workers=3) as team:
        assert team.backward(batch, 3) == pytest.approx(team.backward(batch), rel=TOLERANCE["float64"])
        assert np.isfinite(team.backward(batch.split(3)[0]))  # one sequence: the workers have nothing to do


def test_ordinals_are_fresh_each_time() -> None:
    model, batch = tagger(), token_batch()
    team = Team(token_loss(model), adamw(model))
    first = team.backward(batch)
    assert team.backward(batch) == first
    team.step()
    assert team.backward(batch) != first


def test_gradients_that_were_there_are_forgotten() -> None:
    model, batch = tagger(), token_batch()
    for workers in (1, 2):
        with Team(token_loss(model), adamw(model), workers=workers) as team:
            team.backward(batch)
            once = {name: p.grad.numpy().copy() for name, p in model.named_parameters()}
            team.backward(batch)
            assert states_equal(once, {name: p.grad.numpy() for name, p in model.named_parameters()})


def test_what_gets_no_gradient_has_none() -> None:
    """Frozen, used by nobody, and used by one worker's sequences only."""
    model = tagger()
    unused, rare = mg.Parameter(np.ones(3)), mg.Parameter(np.ones(()))
    optimizer = mg.optim.AdamW([*model.named_parameters(), ("unused", unused), ("rare", rare)], lr=1e-2)
    model.freeze("bert.embeddings")
    inner = token_loss(model)

    def loss_of(part: Batch, whole: Batch) -> mg.Tensor:
        loss = inner(part, whole)
        return loss * rare if 2 in part.rows else loss

    batch = token_batch()
    with Team(loss_of, optimizer, workers=3) as team:
        pieces = batch.split(3)
        assert 2 not in pieces[0].rows  # so that the gradient comes from a worker alone
        team.backward(batch)
        assert unused.grad is None
        assert rare.grad is not None
        for name, p in model.named_parameters():
            assert (p.grad is None) == name.startswith("bert.embeddings"), name


# ---------------------------------------------------------------- changes after the fork
def changed_eval(model: Any, other: Any, scale: Any) -> None:
    model.eval()


def changed_frozen(model: Any, other: Any, scale: Any) -> None:
    model.freeze("bert.encoder.layer.0")


def changed_rate(model: Any, other: Any, scale: Any) -> None:
    for _, module in model.named_modules():
        if hasattr(module, "p"):
            module.p = 0.5


def changed_weights(model: Any, other: Any, scale: Any) -> None:
    model.load_state_dict({name: 0.9 * value for name, value in model.state_dict().items()})


def changed_other(model: Any, other: Any, scale: Any) -> None:
    other.assign(np.array(2.0))


def changed_layer(model: Any, other: Any, scale: Any) -> None:
    model.classifier = mg.nn.Linear(12, 3)
    for p in model.classifier.parameters():
        p.requires_grad_(False)


def changed_buffer(model: Any, other: Any, scale: Any) -> None:
    scale.assign(np.array(3.0))


def changed_seed(model: Any, other: Any, scale: Any) -> None:
    mg.manual_seed(11)


@pytest.mark.parametrize(
    "change", [changed_eval, changed_frozen, changed_rate, changed_layer, changed_weights, changed_other, changed_buffer, changed_seed]
)
def test_what_changes_after_the_fork_reaches_the_workers(change: Callable[[Any, Any, Any], None]) -> None:
    found = []
    for workers in (1, 2):
        mg.manual_seed(0)
        model, batch = tagger(), token_batch()
        other, scale = mg.Parameter(np.array(1.5), requires_grad=False), mg.parameter.Buffer(np.array(1.0))
        inner = token_loss(model)

        def loss_of(part: Batch, whole: Batch, inner: Any = inner, other: Any = other, scale: Any = scale) -> mg.Tensor:
            return inner(part, whole) * other * scale

        with Team(loss_of, adamw(model), workers=workers) as team:
            before = team.backward(batch)
            change(model, other, scale)
            found.append((team.backward(batch), gradients_of(model)))  # new layers draw the same weights both times
            assert change is changed_frozen or found[-1][0] != pytest.approx(before)
    assert found[1][0] == pytest.approx(found[0][0], rel=TOLERANCE["float64"])
    assert max(gradient_errors(found[1][1], found[0][1]).values()) < TOLERANCE["float64"]


def test_workers_stay_the_same_where_nothing_changes() -> None:
    model, batch = tagger(), token_batch()
    with Team(token_loss(model), adamw(model), workers=2) as team:
        team.backward(batch)
        before = [worker.pid for worker in team._pool.workers]
        team.step()
        with model.evaluating(), mg.no_grad():
            model(batch.tokens)
        model.load_state_dict(model.state_dict())
        team.backward(batch)
        assert [worker.pid for worker in team._pool.workers] == before


def test_anomaly_mode_holds_in_the_workers() -> None:
    model, batch = tagger(), token_batch()

    def loss_of(part: Batch, whole: Batch) -> mg.Tensor:
        loss = token_loss(model)(part, whole)
        return loss if os.getpid() == here else loss + np.inf

    here = os.getpid()
    with Team(loss_of, adamw(model), workers=2) as team:
        assert not np.isfinite(team.backward(batch))
        with mg.detect_anomaly(), pytest.raises(NonFiniteError):
            team.backward(batch)
        assert not np.isfinite(team.backward(batch))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_loss_that_is_no_number_is_returned_and_a_loop_may_leave_the_step_out(workers: int) -> None:
    model, sound = tagger(), token_batch()
    bad = token_batch(seed=1)
    optimizer = adamw(model)

    def loss_of(part: Batch, whole: Batch) -> mg.Tensor:
        loss = token_loss(model)(part, whole)
        return loss * math.nan if whole.token_labels[0] == bad.token_labels[0] else loss

    assert sound.token_labels is not None and bad.token_labels is not None and sound.token_labels[0] != bad.token_labels[0]
    with Team(loss_of, optimizer, workers=workers, max_norm=1.0) as team:
        team.backward(sound)
        team.step()
        before = {name: array.copy() for name, array in model.state_dict().items()}
        assert math.isnan(team.backward(bad)) and team.grad_norm is not None and math.isnan(team.grad_norm)
        assert math.isfinite(team.backward(sound)) and math.isfinite(team.grad_norm), "what was not used is dropped"
        (left_out,) = team.steps([bad], check=lambda _, loss: math.isfinite(loss))
        assert not left_out.applied and states_equal(before, model.state_dict())
        team.backward(bad)
        team.step()
        assert any(np.isnan(array).any() for array in model.state_dict().values()), "nobody asked"


def test_a_gradient_that_nobody_would_see_is_an_error() -> None:
    model = tagger()
    optimizer = mg.optim.AdamW([(name, p) for name, p in model.named_parameters() if name.startswith("classifier")], lr=1e-2)
    with Team(token_loss(model), optimizer, workers=2) as team:
        with pytest.raises(ArgumentError, match="freeze it"):
            team.backward(token_batch())
        model.freeze("bert")
        team.backward(token_batch())


# ---------------------------------------------------------------- failures
def failing(model: Any, failure: Callable[[], object], in_worker: bool = True) -> tuple[Any, dict[str, bool]]:
    """A loss function that fails, while the switch is on, in a worker (or in the parent)."""
    here, inner, switch = os.getpid(), token_loss(model), shared_zeros((1,), np.int64)

    def loss_of(part: Batch, whole: Batch) -> mg.Tensor:
        loss = inner(part, whole)
        if switch[0] and (os.getpid() != here) == in_worker:
            failure()
        return loss

    return loss_of, switch


def raising(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize("in_worker", [True, False], ids=["worker", "parent"])
@pytest.mark.parametrize(
    ("failure", "expected", "message"),
    [
        (raising(ShapeError("two shapes", code="odd")), ShapeError, "two shapes"),
        (raising(ZeroDivisionError("by nothing")), (MinigradError, ZeroDivisionError), "by nothing"),
        (raising(SystemExit(3)), (MinigradError, SystemExit), "3"),
        (raising(MemoryError("no room")), MemoryError, "no room"),
    ],
    ids=["family", "foreign", "exit", "memory"],
)
def test_an_error_leaves_everything_as_it_was(failure: Any, expected: Any, message: str, in_worker: bool) -> None:
    model, batch = tagger(), token_batch()
    optimizer = adamw(model)
    loss_of, switch = failing(model, failure, in_worker)
    with Team(loss_of, optimizer, workers=2) as team, deadline():
        right = team.backward(batch)
        before = model.state_dict()
        switch[0] = 1
        with pytest.raises(expected, match=message) as caught:
            team.backward(batch)
        if in_worker:
            assert "in fail" in caught.value.__notes__[0]  # the worker's traceback
            assert isinstance(caught.value, MinigradError | MemoryError)
            assert expected is not ShapeError or (str(caught.value), caught.value.code) == ("two shapes", "odd")
        assert all(p.grad is None for p in model.parameters())
        assert states_equal(before, model.state_dict())
        switch[0] = 0
        assert team.backward(batch, 1) == right
        assert team.backward(batch, 2) == pytest.approx(right, rel=1e-12)


def test_a_worker_that_is_killed_at_work() -> None:
    model, batch = tagger(), token_batch()
    loss_of, switch = failing(model, lambda: os.kill(os.getpid(), signal.SIGKILL))
    with Team(loss_of, adamw(model), workers=3) as team:
        right = team.backward(batch)
        before = model.state_dict()
        switch[0] = 1
        with deadline(5), pytest.raises(MinigradError, match=r"worker 1 .* killed by SIGKILL.*memory") as caught:
            team.backward(batch)
        assert caught.value.code == "worker-died"
        assert states_equal(before, model.state_dict())
        assert not team._pool.workers
        switch[0] = 0
        assert team.backward(batch) == right


def test_a_worker_that_is_killed_between_steps() -> None:
    model, batch = tagger(), token_batch()
    with Team(token_loss(model), adamw(model), workers=2) as team:
        right = team.backward(batch)
        os.kill(team._pool.workers[0].pid, signal.SIGKILL)
        with deadline(5), pytest.raises(MinigradError, match="SIGKILL"):
            team.backward(batch)
        assert team.backward(batch) == right


def test_a_death_is_noticed_when_somebody_else_holds_the_socket() -> None:
    """A process that a worker started outlives it and keeps its end of the socket open, which so never closes."""
    model, batch = tagger(), token_batch()
    theirs, ours = os.pipe()

    def die() -> None:
        if os.fork() == 0:
            os.close(ours)
            os.read(theirs, 1)  # until the test is over
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

    loss_of, switch = failing(model, die)
    switch[0] = 1
    try:
        with Team(loss_of, adamw(model), workers=2) as team, deadline(5), pytest.raises(MinigradError, match="SIGKILL"):
            team.backward(batch)
    finally:
        os.close(ours)
        os.close(theirs)


def ended(pid: int) -> bool:
    """Whether a child of ours has gone for good, waited for and all."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_close_and_forgetting_end_the_workers() -> None:
    model, batch = tagger(), token_batch()
    for forget in (False, True):
        team = Team(token_loss(model), adamw(model), workers=3)
        team.backward(batch)
        pids = [worker.pid for worker in team._pool.workers]
        assert not any(map(ended, pids))
        if forget:
            del team
            gc.collect()
        else:
            team.close()
            team.close()
            with pytest.raises(ArgumentError, match="closed"):
                team.backward(batch)
        assert all(map(ended, pids))


@contextmanager
def process(work: Callable[[], None]) -> Iterator[tuple[int, int]]:
    """`work` in a process (and process group) of its own: its number, and a pipe from what it and its children write to standard error.

    The pipe ends when all of them have ended.
    """
    theirs, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            os.close(theirs)
            os.dup2(ours, 2)
            os.close(ours)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            work()
        finally:
            os._exit(0)
    os.close(ours)
    try:
        yield pid, theirs
    finally:
        os.close(theirs)
        os.waitpid(pid, 0)


def everything(descriptor: int) -> bytes:
    found = b""
    while piece := os.read(descriptor, 4096):
        found += piece
    return found


def endless_team(report: bytes) -> Callable[[], None]:
    def work() -> None:
        model, batch = tagger(), token_batch()
        team = Team(token_loss(model), adamw(model), workers=3)
        team.backward(batch)
        os.write(2, report)
        try:
            while True:
                team.backward(batch)
        except KeyboardInterrupt:
            team.close()

    return work


def test_ctrl_c_ends_all_without_a_word_from_the_workers() -> None:
    with deadline(), process(endless_team(b"ready")) as (pid, pipe):
        assert os.read(pipe, 5) == b"ready"
        os.killpg(pid, signal.SIGINT)
        assert everything(pipe) == b""


def test_the_death_of_the_parent_ends_the_workers() -> None:
    with deadline(), process(endless_team(b"ready")) as (pid, pipe):
        assert os.read(pipe, 5) == b"ready"
        os.kill(pid, signal.SIGKILL)
        assert everything(pipe) == b""


def test_workers_leave_sigterm_to_the_parent() -> None:
    model, batch = tagger(), token_batch()
    with Team(token_loss(model), adamw(model), workers=2) as team, deadline():
        right = team.backward(batch)
        os.kill(team._pool.workers[0].pid, signal.SIGTERM)
        assert team.backward(batch) == right


# ---------------------------------------------------------------- threads and memory
def test_each_process_computes_with_one_blas_thread() -> None:
    if not openblas_libraries():
        pytest.skip("this NumPy was not built with OpenBLAS")
    model, batch, seen = tagger(), token_batch(), shared_zeros((2,), np.int64)
    here, library = os.getpid(), openblas_libraries()[0]
    inner = token_loss(model)

    def loss_of(part: Batch, whole: Batch) -> mg.Tensor:
        seen[int(os.getpid() == here)] = library.get()
        return inner(part, whole)

    outside = library.get()
    library.set(2)
    try:
        with Team(loss_of, adamw(model), workers=2) as team:
            team.backward(batch)
            assert seen.tolist() == [1, 1]
            assert library.get() == 2
    finally:
        library.set(outside)


def test_a_fork_beside_busy_threads() -> None:
    model, batch, stop = tagger(), token_batch(), threading.Event()

    def busy() -> None:
        while not stop.wait(0.001):
            np.ones((80, 80)) @ np.ones((80, 80))

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        with Team(token_loss(model), adamw(model), workers=3) as team, deadline():
            for _ in range(5):
                assert np.isfinite(team.backward(batch))
                model.train(not model.training)  # new workers each time
    finally:
        stop.set()
        thread.join()


def test_parameters_are_private_again_after_close() -> None:
    model, batch = tagger(vocab_size=LARGE), token_batch()
    optimizer = adamw(model)
    team = Team(token_loss(model), optimizer, workers=2)
    team.backward(batch)
    team.step()
    team.close()
    before = model.state_dict()
    pid = os.fork()
    if pid == 0:
        optimizer.arena.data.fill(7)
        for p in model.parameters():
            p.array[...] = 7
        os._exit(0)
    os.waitpid(pid, 0)
    assert states_equal(before, model.state_dict())
    token_loss(model)(batch, batch).backward()
    optimizer.step()
    assert not states_equal(before, model.state_dict())  # the optimizer and the model still mean the same memory


def test_parameters_taken_over_by_another_optimizer() -> None:
    model, batch = tagger(vocab_size=LARGE), token_batch()
    with Team(token_loss(model), adamw(model), workers=2) as team:
        team.backward(batch)
        later = adamw(model)
        with pytest.raises(GraphError, match="another optimizer"):
            team.backward(batch)
        before = model.state_dict()
    assert states_equal(before, model.state_dict())
    assert all(p.owner is later.arena for p in model.parameters())


# ---------------------------------------------------------------- messages, arguments
def test_a_batch_crosses_unchanged() -> None:
    ids, mask = np.array([[0, 4, 5, 0], [3, 2, 0, 0]]), np.array([[0, 1, 1, 0], [1, 1, 0, 0]])
    padded = pack(ids, mask, numbers=[6, 2])
    tokens = Batch(tokens=padded, labels=np.array([0.5, -1.0], np.float32), token_labels=None, rows=np.array([9, 4]))
    for batch in (tokens, token_batch()):
        again = batch_of({name: array.copy() for name, array in batch_arrays(batch).items()})
        assert batch_arrays(again).keys() == batch_arrays(batch).keys()
        for name, array in batch_arrays(batch).items():
            other = batch_arrays(again)[name]
            assert np.array_equal(array, other) and array.dtype == other.dtype, name


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "all", None])
def test_impossible_numbers_of_workers(workers: Any) -> None:
    model = tagger()
    with pytest.raises(ArgumentError, match="workers"):
        Team(token_loss(model), adamw(model), workers=workers)


@pytest.mark.parametrize("batches", [5, None])
def test_steps_of_what_gives_no_batches(batches: Any) -> None:
    model = tagger()
    team = Team(token_loss(model), adamw(model))
    with pytest.raises(ArgumentError, match=f"takes batches, as loader.epoch.. gives them, and not {batches}"):
        team.steps(batches)  # and not when the first of them is asked for
    with pytest.raises(ArgumentError, match="parts must be an integer of at least 1, got 0"):
        team.steps([], parts=0)
    assert list(team.steps([])) == []


def test_impossible_parts_and_losses() -> None:
    model = tagger()
    with pytest.raises(ArgumentError, match="parts"):
        Team(token_loss(model), adamw(model)).backward(token_batch(), 0)
    with pytest.raises(ArgumentError, match="must return a Tensor"):
        Team(lambda part, whole: 1.0, adamw(model)).backward(token_batch())  # type: ignore[arg-type, return-value]


def test_without_fork_one_process_computes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    model = tagger()
    assert Team(token_loss(model), adamw(model), workers="auto").workers == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "fork")
    with caplog.at_level(logging.INFO, "minigrad"):
        assert Team(token_loss(model), adamw(model), workers="auto").workers == 1
    assert [r.getMessage() for r in caplog.records] == ['workers="auto": this system has no os.fork, so one process computes']
    with pytest.raises(ArgumentError, match=r"os\.fork"):
        Team(token_loss(model), adamw(model), workers=2)


def test_a_system_that_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tagger()

    def refuse() -> int:
        raise BlockingIOError("Resource temporarily unavailable")

    with Team(token_loss(model), adamw(model), workers=2) as team:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fork", refuse)
            with pytest.raises(MinigradError, match="could not be started") as caught:
                team.backward(token_batch())
        assert caught.value.code == "worker-fork"
        assert np.isfinite(team.backward(token_batch()))


def test_random_numbers_outside_go_on_as_without_a_team() -> None:
    model = tagger()
    before = random.current().step
    team = Team(token_loss(model), adamw(model))
    team.backward(token_batch())
    assert random.current().step == before
    team.step()
    assert random.current().step == before + 1


# ---------------------------------------------------------------- what a team is given
def test_a_team_of_other_things_is_refused() -> None:
    layer = mg.nn.Linear(2, 1)
    with pytest.raises(ArgumentError, match=r"Team takes an optimizer after loss_of, .* got Linear"):
        Team(lambda part, whole: layer(mg.tensor([[1.0, 2.0]])).sum(), layer)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"Team takes a function loss_of\(part, whole\)"):
        Team(5, mg.optim.SGD(layer.parameters(), lr=0.1))  # type: ignore[arg-type]

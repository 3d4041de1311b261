"""Behaviour common to all optimizers: arguments, which parameters are updated, staleness, saving and resuming."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from optim.reference import CASES, Case, adam, feed, feed_rows, relative_error

import minigrad as mg
from minigrad.backend.random import at, current
from minigrad.errors import ArgumentError, GraphError, StateDictError
from minigrad.optim.arena import TABLE_ROWS

ADAMW = Case(mg.optim.AdamW, {})


def one() -> mg.Parameter:
    return mg.Parameter(np.ones(2))


# ---------------------------------------------------------------- arguments
SAME = one()


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: mg.optim.SGD([], lr=0.1), "no parameters"),
        (lambda: mg.optim.SGD([{"params": []}], lr=0.1), "parameter group 0 is empty"),
        (lambda: mg.optim.SGD(one(), lr=0.1), "cannot take parameters from Parameter"),
        (lambda: mg.optim.SGD(mg.nn.Linear(2, 2), lr=0.1), "cannot take parameters from Linear"),
        (lambda: mg.optim.SGD({"weight": one()}, lr=0.1), "cannot take parameters from dict"),
        (lambda: mg.optim.SGD(3, lr=0.1), "cannot take parameters from int"),
        (lambda: mg.optim.SGD([np.ones(2)], lr=0.1), "number 0 of the parameters is a ndarray"),
        (lambda: mg.optim.SGD([one(), mg.tensor([1.0])], lr=0.1), "number 1 of the parameters is a Tensor"),
        (lambda: mg.optim.SGD([("w", SAME), ("again", SAME)], lr=0.1), "again is given twice"),
        (lambda: mg.optim.SGD([{"params": [SAME]}, {"params": [SAME]}], lr=0.1), "given twice"),
        (lambda: mg.optim.SGD([{"params": [one()], "learning_rate": 1}], lr=0.1), "unknown option 'learning_rate'"),
        (lambda: mg.optim.SGD([{"params": [one()]}, one()], lr=0.1), "parameter group 1"),
        (lambda: mg.optim.SGD([{"lr": 0.1}], lr=0.1), "parameter group 0"),
        (lambda: mg.optim.SGD([one()], lr=-0.1), "lr must be a number >= 0, got -0.1"),
        (lambda: mg.optim.SGD([one()], lr=float("nan")), "lr must be a number >= 0, got nan"),
        (lambda: mg.optim.SGD([one()], lr="fast"), "lr must be a number >= 0, got 'fast'"),
        (lambda: mg.optim.SGD([{"params": [one()], "lr": -1}], lr=0.1), "lr must be a number >= 0, got -1"),
        (lambda: mg.optim.SGD([one()], lr=0.1, momentum=-1), "momentum"),
        (lambda: mg.optim.SGD([one()], lr=0.1, dampening=-1), "dampening"),
        (lambda: mg.optim.SGD([one()], lr=0.1, weight_decay=-1), "weight_decay"),
        (lambda: mg.optim.SGD([one()], lr=0.1, nesterov=True), "nesterov needs a momentum"),
        (lambda: mg.optim.SGD([one()], lr=0.1, momentum=0.9, dampening=0.1, nesterov=True), "nesterov needs a momentum"),
        (lambda: mg.optim.SGD([one()], lr=0.1, nesterov="yes"), "nesterov must be True or False, got 'yes'"),
        (lambda: mg.optim.Adam([one()], betas=(0.9, 1.0)), r"betas\[1\] must be below 1, got 1.0"),
        (lambda: mg.optim.Adam([one()], betas=(-0.1, 0.9)), r"betas\[0\] must be a number >= 0"),
        (lambda: mg.optim.Adam([one()], betas=0.9), "betas must be two numbers"),
        (lambda: mg.optim.AdamW([one()], eps=-1e-8), "eps"),
        (lambda: mg.optim.AdamW([one()], weight_decay=-1), "weight_decay"),
    ],
)
def test_wrong_arguments_are_named(build: Callable[[], object], says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        build()


def test_parameters_may_come_from_a_generator_and_with_names() -> None:
    layer = mg.nn.Linear(2, 3)
    optimizer = mg.optim.SGD((pair for pair in layer.named_parameters()), lr=0.1)
    assert optimizer.state_dict()["param_groups"][0]["params"] == [name for name, _ in layer.named_parameters()]
    assert mg.optim.SGD(layer.parameters(), lr=0.1).param_groups[0]["params"] == layer.parameters()


def test_decay_groups() -> None:
    named = [
        ("dense.weight", mg.Parameter(np.ones((2, 2)))),
        ("dense.bias", one()),
        ("LayerNorm.weight", one()),
        ("norm.weight", one()),  # one dimension is enough
        ("odd.bias", mg.Parameter(np.ones((2, 2)))),  # so is the name
        ("head.weight", mg.Parameter(np.ones((2, 2)))),
    ]
    decayed, others = mg.optim.decay_groups(iter(named), 0.1)
    assert [name for name, _ in decayed["params"]] == ["dense.weight", "head.weight"]
    assert decayed["weight_decay"] == 0.1
    assert [name for name, _ in others["params"]] == ["dense.bias", "LayerNorm.weight", "norm.weight", "odd.bias"]
    assert others["weight_decay"] == 0.0
    optimizer = mg.optim.AdamW([decayed, others], lr=0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]
    (only,) = mg.optim.decay_groups(named, 0.1, no_decay=["weight", "bias"])
    assert only["weight_decay"] == 0.0
    with pytest.raises(ArgumentError, match="named_parameters"):
        mg.optim.decay_groups([p for _, p in named], 0.1)  # type: ignore[misc]


# ---------------------------------------------------------------- who is updated
@pytest.mark.parametrize("gathered", [False, True])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_without_a_gradient_nothing_happens_to_a_parameter(case: Case, gathered: bool) -> None:
    used, idle = one(), mg.Parameter(np.ones((TABLE_ROWS, 2)), gathered=gathered)
    optimizer = case.optimizer([used, idle], lr=0.1, **case.options)
    feed(used, np.ones(2))
    optimizer.step()
    np.testing.assert_array_equal(idle.numpy(), 1.0)
    assert optimizer.steps[idle] == 0
    assert optimizer.steps[used] == 1
    assert used.tolist() != [1.0, 1.0]


def test_a_frozen_parameter_is_left_alone_and_counts_from_where_it_stood() -> None:
    generator = np.random.default_rng(0)
    start = generator.standard_normal((2, 4))
    a, b = mg.Parameter(start[0]), mg.Parameter(start[1])
    optimizer = mg.optim.Adam([a, b], lr=0.1)
    gradients: list[list[np.ndarray | None]] = [[], []]
    for step in range(12):
        b.requires_grad_(not 3 <= step < 8)
        for p, seen in zip((a, b), gradients, strict=True):
            g = generator.standard_normal(4)
            ((p * g).sum() + (a * 0.0).sum()).backward()
            seen.append(g if p.requires_grad else None)
        optimizer.step()
        optimizer.zero_grad()
    assert optimizer.steps == {a: 12, b: 7}
    for p, first, seen in zip((a, b), start, gradients, strict=True):
        assert relative_error(p.numpy(), adam(first, seen, [0.1] * 12)) < 1e-13  # rounding of 12 updates


def test_a_leftover_gradient_of_a_frozen_parameter_is_ignored() -> None:
    p, q = one(), one()
    optimizer = mg.optim.AdamW([p, q], lr=0.1)
    for parameter in (p, q):
        feed(parameter, np.ones(2))
    p.requires_grad_(False)
    optimizer.step()
    assert p.tolist() == [1.0, 1.0]
    assert q.tolist() != [1.0, 1.0]


def test_neighbours_with_equal_counts_are_one_stretch() -> None:
    a, b, c, d = (mg.Parameter(np.ones(3)) for _ in range(4))
    optimizer = mg.optim.Adam([{"params": [a, b, c]}, {"params": [d], "lr": 0.5}], lr=0.1)

    def runs(*due: mg.Parameter) -> list[tuple[int, int]]:
        for p in due:
            feed(p, np.ones(3))
        found = [(update.start, update.stop) for update in optimizer.begin_step()]
        optimizer.end_step()
        optimizer.zero_grad()
        return found

    assert runs(a, b, c, d) == [(0, 9), (9, 12)]
    assert runs(a, c) == [(0, 3), (6, 9)]
    assert runs(a, b, c) == [(0, 3), (3, 6), (6, 9)]
    assert runs(b) == [(3, 6)]
    assert runs(a, b) == [(0, 6)]  # b has caught up


@pytest.mark.parametrize("scale", [lambda: 1.0, -1.0, float("nan"), None], ids=["closure", "negative", "nan", "none"])
def test_a_scale_that_is_none_changes_nothing(scale: Any) -> None:
    p = mg.Parameter(np.ones(2))
    optimizer = mg.optim.SGD([p], lr=0.1)
    feed(p, np.ones(2))
    with pytest.raises(ArgumentError, match="scale must be a number >= 0"):
        optimizer.step(scale)
    assert p.tolist() == [1.0, 1.0] and optimizer.steps[p] == 0


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_optimizer_is_kept_by_its_state(copied: Callable[[Any], Any]) -> None:
    with pytest.raises(ArgumentError, match=r"SGD is not copied or pickled.*keep its state_dict\(\)"):
        copied(mg.optim.SGD([mg.Parameter(np.ones(2))], lr=0.1))


@pytest.mark.parametrize("shape", [(2, 3), (TABLE_ROWS, 2)], ids=["arena", "table"])
def test_a_scale_is_that_of_the_gradient(shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    start, gradient = generator.standard_normal(shape), generator.standard_normal(shape)
    results = []
    for factor, scale in ((0.25, 1.0), (1.0, 0.25)):
        p = mg.Parameter(start, gathered=True)
        optimizer = mg.optim.SGD([p], lr=0.1, momentum=0.9)
        feed(p, gradient * factor)
        given = p.grad
        optimizer.step(scale)
        assert p.grad is not None
        assert given is not None
        np.testing.assert_array_equal(p.grad.numpy(), gradient * factor)  # itself it stays as it was
        results.append(p.numpy().copy())
    np.testing.assert_array_equal(*results)
    assert not np.array_equal(results[0], start)


def test_step_makes_older_graphs_stale() -> None:
    for p in (one(), mg.Parameter(np.ones((TABLE_ROWS, 2)), gathered=True)):
        optimizer = mg.optim.SGD([p], lr=0.1)
        loss = (p * p).sum()
        loss.backward(retain_graph=True)
        optimizer.step()
        with pytest.raises(GraphError) as caught:
            loss.backward()
        assert caught.value.code == "graph-stale"


def test_step_begins_the_next_step_of_the_random_numbers() -> None:
    with at(seed=3, step=7):
        optimizer = mg.optim.SGD([one()], lr=0.1)
        optimizer.step()
        assert current().step == 8


# ---------------------------------------------------------------- groups that were changed
CHANGES: list[tuple[Callable[[mg.optim.Optimizer], object], str]] = [
    (lambda o: o.param_groups[1].update(lr=float("nan")), "parameter group 1: lr must be a number >= 0, got nan"),
    (lambda o: o.param_groups[1].update(lr=-1.0), "parameter group 1: lr must be"),
    (lambda o: o.param_groups[1].update(lr="x"), "parameter group 1: lr must be"),
    (lambda o: o.param_groups[1].update(betas=(0.9, 2)), r"parameter group 1: betas\[1\] must be below 1"),
    (lambda o: o.param_groups[1].pop("eps"), "parameter group 1: the option 'eps' is missing"),
    (lambda o: o.param_groups[1].update(learning_rate=1), "parameter group 1: unknown option 'learning_rate'; the options are lr, betas"),
    (lambda o: o.param_groups[1].pop("params"), "parameter group 1 no longer holds the parameters"),
    (lambda o: o.param_groups[1]["params"].append(one()), "parameter group 1 no longer holds the parameters"),
    (lambda o: o.param_groups[1]["params"].clear(), "parameter group 1 no longer holds the parameters"),
    (lambda o: o.param_groups.__setitem__(1, None), "parameter group 1 no longer holds the parameters"),
    (lambda o: o.param_groups.append({"params": [one()], "lr": 0.1}), "there were 2 parameter groups, now there are 3"),
    (lambda o: o.param_groups.pop(), "there were 2 parameter groups, now there are 1"),
]


@pytest.mark.parametrize(("change", "says"), CHANGES)
def test_step_finds_changed_groups_before_anything_changes(change: Callable[[mg.optim.Optimizer], object], says: str) -> None:
    parameters, optimizer = training(ADAMW)
    train(parameters, optimizer, range(2))
    for p in parameters:
        feed(p, np.ones(p.shape, np.float32))
    before, counts, versions = [np.array(p.numpy()) for p in parameters], dict(optimizer.steps), [p.leaf.version for p in parameters]
    change(optimizer)
    with at(seed=3, step=7):
        with pytest.raises(ArgumentError, match=says):
            optimizer.step()
        assert current().step == 7
    assert (optimizer.steps, [p.leaf.version for p in parameters]) == (counts, versions)
    for p, numbers in zip(parameters, before, strict=True):
        np.testing.assert_array_equal(p.numpy(), numbers)


def test_saving_and_loading_find_changed_groups() -> None:
    _, optimizer = training(ADAMW)
    state = optimizer.state_dict()
    optimizer.param_groups[0]["params"].append(one())
    with pytest.raises(ArgumentError, match="parameter group 0 no longer holds"):
        optimizer.state_dict()
    with pytest.raises(ArgumentError, match="parameter group 0 no longer holds"):
        optimizer.load_state_dict(state)


# ---------------------------------------------------------------- saving and resuming
def training(case: Case) -> tuple[list[mg.Parameter], mg.optim.Optimizer]:
    generator = np.random.default_rng(8)
    parameters = [mg.Parameter(generator.standard_normal(shape).astype(np.float32)) for shape in [(4, 3), (3,), (2, 2)]]
    table = mg.Parameter(generator.standard_normal((TABLE_ROWS, 3)).astype(np.float32), gathered=True)
    named = [(f"p{i}", p) for i, p in enumerate([*parameters, table])]
    return [*parameters, table], case.optimizer([{"params": named[:2]}, {"params": named[2:], "lr": 0.02}], lr=0.05, **case.options)


def train(parameters: list[mg.Parameter], optimizer: mg.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = np.random.default_rng(step)
        for number, p in enumerate(parameters[:-1]):
            if (step + number) % 3:
                feed(p, generator.standard_normal(p.shape).astype(np.float32))
        feed_rows(parameters[-1], generator.integers(0, 60, 5), generator.standard_normal((5, 3)).astype(np.float32))
        optimizer.step()
        optimizer.zero_grad()


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    """Arrays apart, the state survives JSON: what a checkpoint without pickle needs."""
    arrays: list[np.ndarray] = []

    def strip(value: object) -> int:
        assert isinstance(value, np.ndarray)
        arrays.append(value)
        return len(arrays) - 1

    plain = json.loads(json.dumps(state, default=lambda value: {"array": strip(value)}))
    plain["state"] = [{k: arrays[v["array"]] if isinstance(v, dict) else v for k, v in entry.items()} for entry in plain["state"]]
    return plain


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_resumed_run_continues_to_the_last_bit(case: Case) -> None:
    straight, optimizer = training(case)
    train(straight, optimizer, range(8))
    optimizer.param_groups[1]["lr"] = 0.03
    train(straight, optimizer, range(8, 14))
    stopped, optimizer = training(case)
    train(stopped, optimizer, range(8))
    optimizer.param_groups[1]["lr"] = 0.03  # a live option, saved with the rest
    state = copy.deepcopy(through_json(optimizer.state_dict()))
    weights = [np.array(p.numpy()) for p in stopped]
    resumed, optimizer = training(case)
    train(resumed, optimizer, range(20, 40))  # whatever it did before is forgotten
    for p, w in zip(resumed, weights, strict=True):
        p.assign(w)
    optimizer.load_state_dict(state)
    train(resumed, optimizer, range(8, 14))
    for a, b in zip(straight, resumed, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_moments_that_the_loaded_state_does_not_have_are_forgotten() -> None:
    results = []
    for before in (range(0), range(20, 25)):
        parameters, optimizer = training(Case(mg.optim.SGD, {"momentum": 0.9}))
        train(parameters, optimizer, before)
        plain, source = training(Case(mg.optim.SGD, {}))
        train(plain, source, range(2))
        for p, q in zip(parameters, plain, strict=True):
            p.assign(q)
        optimizer.load_state_dict(source.state_dict())
        for group in optimizer.param_groups:
            group["momentum"] = 0.9
        train(parameters, optimizer, range(2, 4))
        results.append([np.array(p.numpy()) for p in parameters])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_state_is_a_copy() -> None:
    parameters, optimizer = training(ADAMW)
    train(parameters, optimizer, range(3))
    state = optimizer.state_dict()
    kept = copy.deepcopy(state)
    train(parameters, optimizer, range(3, 5))
    for before, after in zip(kept["state"], state["state"], strict=True):
        for name in before:
            np.testing.assert_array_equal(before[name], after[name])


def broken(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def apply(state: dict[str, Any]) -> dict[str, Any]:
        change(state)
        return state

    return apply


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: [], "what state_dict returned"),
        (lambda state: None, "what state_dict returned"),
        (broken(lambda s: s.pop("state")), "what state_dict returned"),
        (broken(lambda s: s.update(optimizer=3)), "state of 3, not of AdamW"),
        (broken(lambda s: s.update(param_groups=5)), '"param_groups" must be a list, got int'),
        (broken(lambda s: s.update(param_groups={0: 1, 1: 2})), '"param_groups" must be a list, got dict'),
        (broken(lambda s: s.update(state=None)), '"state" must be a list, got NoneType'),
        (broken(lambda s: s.update(state=dict(enumerate(s["state"])))), '"state" must be a list, got dict'),
        (broken(lambda s: s["param_groups"].__setitem__(0, "lr")), "parameter group 0 must be a dict"),
        (broken(lambda s: s["param_groups"][0].pop("params")), 'parameter group 0 must be a dict with "params"'),
        (broken(lambda s: s["param_groups"][0].update(params=3)), 'parameter group 0 must be a dict with "params"'),
        (broken(lambda s: s["param_groups"][0].update(params=[1, 2])), "saved for 1, 2, it now holds p0, p1"),
        (broken(lambda s: s["param_groups"][0].update({7: 1})), "needs exactly the options"),
        (broken(lambda s: s["param_groups"][0].update(lr=None)), "parameter group 0: lr must be"),
        (broken(lambda s: s["param_groups"][0].update(lr=[0.1])), "parameter group 0: lr must be"),
        (broken(lambda s: s["param_groups"][0].update(betas=0.9)), "parameter group 0: betas must be two numbers"),
        (broken(lambda s: s["state"][1].update(step="3")), 'p1: it is no dict whose "step"'),
        (broken(lambda s: s["state"][1].update(step=True)), 'p1: it is no dict whose "step"'),
        (broken(lambda s: s["state"][1].update({7: 1, "other": 2})), "p1: unknown 'other', 7"),
        (broken(lambda s: s["state"][1].update(exp_avg=[[1.0], [1.0, 2.0]])), r"p1: exp_avg is object of shape \(\)"),
        (broken(lambda s: s["state"][1].update(exp_avg=None)), "p1: exp_avg is object"),
        (broken(lambda s: s["state"][3].update(rows=[[1], [2, 3]])), "p3: rows must be a list of integers"),
        (broken(lambda s: s["state"][3].update(rows=None)), "p3: rows must be a list of integers"),
        (broken(lambda s: s.update(optimizer="SGD")), "state of SGD, not of AdamW"),
        (broken(lambda s: s["param_groups"].pop()), "1 parameter groups"),
        (broken(lambda s: s["param_groups"][0].update(params=["p0", "other"])), "saved for p0, other, it now holds p0, p1"),
        (broken(lambda s: s["param_groups"][0].pop("eps")), "needs exactly the options"),
        (broken(lambda s: s["param_groups"][0].update(lr=-1.0)), "lr must be"),
        (broken(lambda s: s["state"].pop()), "entries for 3 parameters"),
        (broken(lambda s: s["state"].__setitem__(1, 5)), 'p1: it is no dict whose "step"'),
        (broken(lambda s: s["state"][1].update(step=-1)), 'p1: it is no dict whose "step"'),
        (broken(lambda s: s["state"][1].pop("exp_avg")), "p1: exp_avg is missing"),
        (broken(lambda s: s["state"][1].update(exp_avg=np.zeros(7))), r"p1: exp_avg is float64 of shape \(7,\)"),
        (broken(lambda s: s["state"][1].update(exp_avg=np.zeros(3, bool))), "p1: exp_avg is bool"),
        (broken(lambda s: s["state"][1].update(other=np.zeros(3))), "p1: unknown 'other'"),
        (broken(lambda s: s["state"][1].update(rows=np.zeros(3))), 'p1: "rows" was not expected'),
        (broken(lambda s: s["state"][3].pop("rows")), rf"p3: exp_avg is float32 of shape .*, needed are floats of shape \({TABLE_ROWS}"),
        (broken(lambda s: s["state"][3]["rows"].__setitem__(0, TABLE_ROWS)), "p3: rows must lie in"),
        (broken(lambda s: s["state"][3]["rows"].__setitem__(0, s["state"][3]["rows"][1])), "p3: rows names a row twice"),
        (broken(lambda s: s["state"][3].update(rows=s["state"][3]["rows"] * 1.0)), "p3: rows must be a list of integers"),
        (broken(lambda s: s["state"][3].update(rows=s["state"][3]["rows"][1:])), "p3: exp_avg is float32 of shape"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change: Callable[[dict[str, Any]], Any], says: str) -> None:
    parameters, optimizer = training(ADAMW)
    train(parameters, optimizer, range(3))
    before = optimizer.state_dict()
    with pytest.raises(StateDictError, match=says):
        optimizer.load_state_dict(change(copy.deepcopy(before)))
    after = optimizer.state_dict()
    assert before["param_groups"] == after["param_groups"]
    for a, b in zip(before["state"], after["state"], strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])

"""The optimizers, clipping and the schedules equal PyTorch's and transformers' over 50 steps in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from optim.curves import CURVES, Curve
from optim.reference import CASES as ALL_CASES
from optim.reference import Case
from oracle.agreement import agree, summary

import minigrad as mg
import minigrad.functional as F
from minigrad.optim.arena import TABLE_ROWS

torch = pytest.importorskip("torch", reason="needs PyTorch, the `oracle` extra")
transformers = pytest.importorskip("transformers", reason="needs transformers, the `oracle` extra")
pytestmark = pytest.mark.oracle

STEPS = 50
SHAPES = {"table": (TABLE_ROWS, 2), "weight": (6, 5), "bias": (5,), "scale": (), "rare": (4, 3), "never": (3,)}

NOT_IN_TORCH = {mg.optim.Lion: "PyTorch has no Lion; the paper's algorithm is written out in tests/optim/reference.py"}
CASES = [case for case in ALL_CASES if case.optimizer not in NOT_IN_TORCH]


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    yield
    print(f"\nagreement with PyTorch {torch.__version__} and transformers {transformers.__version__}:\n{summary()}")


@pytest.mark.parametrize("clipped", [False, True], ids=["", "clipped"])
@pytest.mark.parametrize("grouped", [False, True], ids=["", "grouped"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_fifty_steps_equal_torch(case: Case, grouped: bool, clipped: bool) -> None:
    """With tables and arenas, under a schedule, through saving and loading in the middle."""
    name, options = case.optimizer.__name__, case.options
    generator = np.random.default_rng(11)
    starts = {key: generator.standard_normal(shape) for key, shape in SHAPES.items()}
    ours = {key: mg.Parameter(start, gathered=key == "table") for key, start in starts.items()}
    theirs = {key: torch.nn.Parameter(torch.tensor(start)) for key, start in starts.items()}

    def groups(parameters: dict[str, Any]) -> list[Any]:
        if not grouped:
            return list(parameters.values())
        matrices = {"params": [p for p in parameters.values() if p.ndim >= 2]}
        return [matrices, {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0, "lr": 0.01}]

    optimizer = case.optimizer(groups(ours), lr=0.05, **options)
    reference = getattr(torch.optim, name)(groups(theirs), lr=0.05, **options)
    schedule = mg.optim.LinearSchedule(optimizer, 10, STEPS + 3)
    reference_schedule = transformers.get_linear_schedule_with_warmup(reference, 10, STEPS + 3)
    assert ours["table"] in optimizer.tables
    for step in range(STEPS):
        if step == STEPS // 2:
            saved, at = optimizer.state_dict(), schedule.state_dict()
            optimizer = case.optimizer(groups(ours), lr=0.05, **options)
            optimizer.load_state_dict(saved)
            schedule = mg.optim.LinearSchedule(optimizer, 0, 1)
            schedule.load_state_dict(at)
        assert [group["lr"] for group in optimizer.param_groups] == [group["lr"] for group in reference.param_groups]
        ids, values = generator.integers(0, 30 + 5 * step, 20) % TABLE_ROWS, generator.standard_normal((20, 2))
        (F.embedding(mg.tensor(ids), ours["table"]) * values).sum().backward()
        (torch.nn.functional.embedding(torch.tensor(ids), theirs["table"]) * torch.tensor(values)).sum().backward()
        for key in ("weight", "bias", "scale", *(["rare"] if step % 4 == 2 else [])):
            g = generator.standard_normal(SHAPES[key])
            (ours[key] * g).sum().backward()
            (theirs[key] * torch.tensor(g)).sum().backward()
        if clipped:
            norm = mg.optim.clip_grad_norm(ours.values(), 1.5)
            assert norm > 1.5
            # Tolerance: two orders of adding up 80 squares.
            assert norm == pytest.approx(float(torch.nn.utils.clip_grad_norm_(theirs.values(), 1.5)), rel=1e-14)
        for stepper in (optimizer, schedule, reference, reference_schedule):
            stepper.step()
        optimizer.zero_grad()
        reference.zero_grad()
    for key, parameter in ours.items():
        expected = theirs[key].detach().numpy()
        # Tolerance: the rounding of 50 updates, relative to the parameter's largest number.
        agree(f"{name}, 50 steps", parameter.numpy(), expected, 1e-12, scale=float(np.max(np.abs(expected))))
        assert optimizer.steps[parameter] == {"never": 0, "rare": 12}.get(key, STEPS)


@pytest.mark.parametrize("values", [[np.inf, 1.0], [-np.inf, 0.0], [np.nan, 1.0], [3.0, 4.0]])
@pytest.mark.parametrize("bound", [0.0, 1.0, 5.0, np.inf])
def test_clipping_treats_every_norm_as_torch_does(values: list[float], bound: float) -> None:
    p, q = mg.Parameter(np.ones(2)), torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    (p * np.array(values)).sum().backward()
    q.grad = torch.tensor(values, dtype=torch.float64)
    assert mg.optim.clip_grad_norm([p], bound) == pytest.approx(float(torch.nn.utils.clip_grad_norm_([q], bound)), rel=1e-15, nan_ok=True)
    assert p.grad is not None
    np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-15)  # one rounding


# ---------------------------------------------------------------- schedules
def linear(optimizer: Any, warmup_steps: int, total_steps: int) -> Any:
    return transformers.get_linear_schedule_with_warmup(optimizer, warmup_steps, total_steps)


def cosine(optimizer: Any, warmup_steps: int, total_steps: int, num_cycles: float = 0.5, floor: float = 0.0) -> Any:
    return transformers.get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, warmup_steps, total_steps, num_cycles=num_cycles, min_lr_rate=floor
    )


def polynomial(optimizer: Any, warmup_steps: int, total_steps: int, power: float = 1.0, floor: float = 0.0) -> Any:
    end = floor * optimizer.defaults["lr"]
    return transformers.get_polynomial_decay_schedule_with_warmup(optimizer, warmup_steps, total_steps, lr_end=end, power=power)


def constant(optimizer: Any, warmup_steps: int = 0) -> Any:
    return transformers.get_constant_schedule_with_warmup(optimizer, warmup_steps)


def one_cycle(optimizer: Any, total_steps: int, anneal: str = "cosine", **options: Any) -> Any:
    peaks = [group["lr"] for group in optimizer.param_groups]
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peaks, total_steps, anneal_strategy=anneal.removesuffix("ine"), cycle_momentum=False, **options
    )


ORIGINALS: dict[type[mg.optim.Schedule], Callable[..., Any]] = {
    mg.optim.LinearSchedule: linear,
    mg.optim.CosineSchedule: cosine,
    mg.optim.PolynomialSchedule: polynomial,
    mg.optim.ConstantSchedule: constant,
    mg.optim.OneCycleSchedule: one_cycle,
}

POINTS = [
    *CURVES,
    *(Curve(mg.optim.LinearSchedule, {"warmup_steps": w, "total_steps": t}) for w, t in [(0, 7), (3, 7), (7, 7), (1, 1)]),
    Curve(mg.optim.OneCycleSchedule, {"total_steps": 2}),  # a way up of less than one step
    Curve(mg.optim.OneCycleSchedule, {"total_steps": 30, "pct_start": 0.5, "three_phase": True}),
    Curve(mg.optim.CosineSchedule, {"warmup_steps": 5, "total_steps": 60, "num_cycles": 0.25}),
]


def last_common_step(curve: Curve) -> int:
    """Beyond the end a schedule stays where it is. transformers' cosine rises again there and PyTorch's cycle raises an error (at its very
    end, step total_steps, it extrapolates), so that there is nothing to compare."""
    total = curve.options.get("total_steps", 30)
    return {mg.optim.CosineSchedule: total, mg.optim.OneCycleSchedule: total - 1}.get(curve.schedule, total + 3)


@pytest.mark.parametrize("curve", POINTS, ids=str)
def test_a_schedule_equals_its_original_step_by_step(curve: Curve) -> None:
    rates = [0.3, 1e-5]
    optimizer = mg.optim.SGD([{"params": [mg.Parameter(np.ones(1))], "lr": lr} for lr in rates], lr=rates[0])
    reference = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in rates], lr=rates[0])
    pair = curve.schedule(optimizer, **curve.options), ORIGINALS[curve.schedule](reference, **curve.options)
    for step in range(last_common_step(curve) + 1):
        ours, theirs = ([group["lr"] for group in either.param_groups] for either in (optimizer, reference))
        if curve.schedule is mg.optim.LinearSchedule:
            assert ours == theirs
        for peak, a, b in zip(rates, ours, theirs, strict=True):
            # Tolerance: a few roundings, relative to the peak.
            agree(f"{curve.schedule.__name__}, step by step", np.array(a), np.array(b), 1e-15, scale=peak)
        if step < last_common_step(curve):
            for stepper in (optimizer, reference, *pair):
                stepper.step()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": "max", "factor": 0.5, "patience": 2},
        {"patience": 0, "cooldown": 3, "factor": 0.7},
        {"patience": 1, "threshold": 0.2, "min_lr": 0.01},
        {"patience": 1, "threshold": 0.2, "threshold_mode": "abs", "factor": 0.3},
        {"mode": "max", "patience": 1, "threshold": 0.2, "threshold_mode": "abs", "cooldown": 1, "factor": 0.8},
    ],
    ids=str,
)
def test_reduce_on_plateau_equals_torch(options: dict[str, Any]) -> None:
    generator = np.random.default_rng(4)
    optimizer = mg.optim.SGD([{"params": [mg.Parameter(np.ones(1))], "lr": lr} for lr in (0.3, 0.005)])
    reference = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))], "lr": lr} for lr in (0.3, 0.005)])
    ours = mg.optim.ReduceOnPlateau(optimizer, **options)
    # eps 0: PyTorch leaves out reductions by less than 1e-8 unless told otherwise.
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(reference, eps=0.0, **options)
    # Positive metrics: around a negative best PyTorch's relative margin points the wrong way.
    metrics = np.exp(np.cumsum(generator.normal(-0.01, 0.2, 300)))
    metrics[[40, 41, 200]] = np.nan
    changes = 0
    for metric in metrics:
        before = optimizer.param_groups[0]["lr"]
        ours.step(float(metric))
        theirs.step(float(metric))
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == [group["lr"] for group in reference.param_groups]
        changes += rates[0] != before
    assert changes >= 2

"""The optimizers, clipping and the linear schedule equal PyTorch's and transformers' over 50 steps in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad.optim.arena import TABLE_ROWS

torch = pytest.importorskip("torch", reason="needs PyTorch, the `oracle` extra")
transformers = pytest.importorskip("transformers", reason="needs transformers, the `oracle` extra")
pytestmark = pytest.mark.oracle

STEPS = 50
SHAPES = {"table": (TABLE_ROWS, 2), "weight": (6, 5), "bias": (5,), "scale": (), "rare": (4, 3), "never": (3,)}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "dampening": 0.4}),
    ("SGD", {"momentum": 0.9, "dampening": 0.4, "weight_decay": 0.1}),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"betas": (0.7, 0.97), "eps": 1e-3}),
    ("Adam", {"weight_decay": 0.1}),
    ("AdamW", {}),
    ("AdamW", {"betas": (0.7, 0.97), "eps": 1e-3, "weight_decay": 0.3}),
]


@pytest.mark.parametrize("clipped", [False, True], ids=["", "clipped"])
@pytest.mark.parametrize("grouped", [False, True], ids=["", "grouped"])
@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n}-{'-'.join(o)}" for n, o in CASES])
def test_fifty_steps_equal_torch(name: str, options: dict[str, Any], grouped: bool, clipped: bool) -> None:
    generator = np.random.default_rng(11)
    starts = {key: generator.standard_normal(shape) for key, shape in SHAPES.items()}
    ours = {key: mg.Parameter(start, gathered=key == "table") for key, start in starts.items()}
    theirs = {key: torch.nn.Parameter(torch.tensor(start)) for key, start in starts.items()}

    def groups(parameters: dict[str, Any]) -> list[Any]:
        if not grouped:
            return list(parameters.values())
        matrices = {"params": [p for p in parameters.values() if p.ndim >= 2]}
        return [matrices, {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0, "lr": 0.01}]

    optimizer = getattr(mg.optim, name)(groups(ours), lr=0.05, **options)
    reference = getattr(torch.optim, name)(groups(theirs), lr=0.05, **options)
    schedule = mg.optim.LinearSchedule(optimizer, 10, STEPS + 3)
    reference_schedule = transformers.get_linear_schedule_with_warmup(reference, 10, STEPS + 3)
    assert ours["table"] in optimizer.tables
    for step in range(STEPS):
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
        assert np.max(np.abs(parameter.numpy() - expected)) <= 1e-12 * np.max(np.abs(expected)), key
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


@pytest.mark.parametrize(("warmup", "total"), [(0, 7), (3, 7), (7, 7), (1, 1)])
def test_schedule_equals_transformers(warmup: int, total: int) -> None:
    optimizer = mg.optim.SGD([mg.Parameter(np.ones(1))], lr=0.3)
    reference = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3)
    pair = mg.optim.LinearSchedule(optimizer, warmup, total), transformers.get_linear_schedule_with_warmup(reference, warmup, total)
    for _ in range(total + 3):
        assert optimizer.param_groups[0]["lr"] == reference.param_groups[0]["lr"]
        for stepper in (optimizer, reference, *pair):
            stepper.step()

"""PyTorch's own list of optimizer configurations (`optim_db`), run on both sides: 20 steps in float64, in each implementation PyTorch has.

What is left out has its reason in one of the tables below, is counted, and is printed at the end; a configuration or a wrong input that can
neither be compared nor explained fails. The list is an internal module of PyTorch and changes from release to release: an entry that is new
there fails here until somebody has looked at it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from inspect import signature
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from optim.reference import RULES
from oracle.agreement import agree, summary

import minigrad as mg
import minigrad.functional as F
from minigrad.errors import ArgumentError
from minigrad.optim.arena import TABLE_ROWS

torch = pytest.importorskip("torch", reason="needs PyTorch, the `oracle` extra")
# PyTorch's list imports expecttest (for comparing printed text, which nobody does here), and the wheel does not bring it.
sys.modules.setdefault("expecttest", SimpleNamespace(TestCase=object, ACCEPT=False))  # type: ignore[arg-type]
common = pytest.importorskip("torch.testing._internal.common_optimizers", reason="an internal module, not in every build of PyTorch")
pytestmark = pytest.mark.oracle

STEPS = 20
SHAPES = {"table": (TABLE_ROWS, 2), "weight": (6, 5), "bias": (5,), "scale": (), "rare": (4, 3)}

ABSENT = {
    "Adadelta": "replaced by Adam in practice: not offered",
    "Adafactor": "stores factored moments of whole matrices: no rule on flat blocks",
    "Adamax": "a variant of Adam that is rarely used: not offered",
    "ASGD": "averages parameters over the run: not offered",
    "LBFGS": "calls the model several times in a step: no rule on flat blocks",
    "Muon": "orthogonalises whole matrices: no rule on flat blocks",
    "NAdam": "a variant of Adam that is rarely used: not offered",
    "RAdam": "a variant of Adam that is rarely used: not offered",
    "Rprop": "for full batches only: not offered",
    "SparseAdam": "lets the moments of untouched rows stand still; minigrad's tables follow the dense rule",
}
"""Entries of the list that minigrad does not have."""

NO_OPTION = {
    "capturable": "the option capturable is for CUDA graphs",
    "maximize": "there is no option maximize: negate the loss",
    "foreach": "the option foreach chooses an implementation; there is one",
    "fused": "the option fused chooses an implementation; there is one",
    "differentiable": "there is no gradient through an update",
}
"""PyTorch's options that minigrad does not have."""

TENSORS = "options are numbers, not tensors"

NOT_WRONG = {
    "all optimizer params should be with/without names": "names may be mixed: a parameter without one goes by its place",
    "all optimizer param groups should be with/without names.": "names may be mixed: a parameter without one goes by its place",
}
"""Inputs that PyTorch refuses and minigrad takes."""

counted: dict[str, Counter[str]] = {"entries": Counter(), "configurations": Counter(), "runs": Counter(), "wrong inputs": Counter()}
COMPARED = "compared"


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    yield
    print(f"\nPyTorch {torch.__version__}, optim_db:\n{summary()}")
    for what, counts in counted.items():
        print(f"  {sum(counts.values())} {what}: {counts[COMPARED]} {COMPARED}, {sum(counts.values()) - counts[COMPARED]} skipped")
        for reason, number in sorted(counts.items()):
            if reason != COMPARED:
                print(f"    {number} × {reason}")


def why_not(options: dict[str, Any], kind: type[mg.optim.Optimizer]) -> str | None:
    """Why `kind` cannot be built with these options; None if it can. An option that nobody knows has no reason, and then fails."""
    for option in options:
        if option not in signature(kind).parameters and option in NO_OPTION:
            return NO_OPTION[option]
    tensors = any(isinstance(part, torch.Tensor) for value in options.values() for part in (value if isinstance(value, tuple) else [value]))
    return TENSORS if tensors else None


def implementations(info: Any) -> list[dict[str, bool]]:
    """The ways in which PyTorch can compute one and the same update on a CPU."""
    plain = {"foreach": False} if "foreach" in info.supported_impls else {}
    return [plain, *({flag: True} for flag in ("foreach", "fused") if flag in info.supported_impls)]


def compare(kind: type[mg.optim.Optimizer], optim_cls: Any, options: dict[str, Any], implementation: dict[str, bool]) -> None:
    generator = np.random.default_rng(21)
    starts = {key: generator.standard_normal(shape) for key, shape in SHAPES.items()}
    ours = {key: mg.Parameter(start, gathered=key == "table") for key, start in starts.items()}
    theirs = {key: torch.nn.Parameter(torch.tensor(start)) for key, start in starts.items()}
    optimizer = kind(list(ours.values()), **options)
    reference = optim_cls(list(theirs.values()), **options, **implementation)
    assert list(optimizer.tables) == [ours["table"]]
    for step in range(STEPS):
        ids, values = generator.integers(0, 30 + 5 * step, 20), generator.standard_normal((20, 2))
        (F.embedding(mg.tensor(ids), ours["table"]) * values).sum().backward()
        (torch.nn.functional.embedding(torch.tensor(ids), theirs["table"]) * torch.tensor(values)).sum().backward()
        # From the first step on: PyTorch's fused SGD cannot take a parameter that gets its first gradient later.
        for key in ("weight", "bias", "scale", *(["rare"] if step % 4 == 0 else [])):
            g = generator.standard_normal(SHAPES[key])
            (ours[key] * g).sum().backward()
            (theirs[key] * torch.tensor(g)).sum().backward()
        for either in (optimizer, reference):
            either.step()
            either.zero_grad()
    for key, parameter in ours.items():
        expected = theirs[key].detach().numpy()
        # Tolerance: the rounding of 20 updates, relative to the parameter's largest number.
        agree(f"{kind.__name__}, {STEPS} steps", parameter.numpy(), expected, 1e-12, scale=float(np.max(np.abs(expected))))


ENTRIES = {info.name: info for info in common.optim_db}


def test_every_optimizer_that_pytorch_has_too_is_in_the_list() -> None:
    ours = {kind.__name__ for kind in RULES}
    assert ours - ENTRIES.keys() == {"Lion"}


@pytest.mark.parametrize("name", ENTRIES)
def test_every_configuration_is_compared_or_explained(name: str) -> None:
    info = ENTRIES[name]
    kind = getattr(mg.optim, name, None)
    if kind is None:
        counted["entries"][ABSENT[name]] += 1  # a KeyError: a new entry, neither here nor explained
        return
    assert name not in ABSENT, "explained although it is here"
    counted["entries"][COMPARED] += 1
    # The list for a GPU, of which that for a CPU is a part: it is about options, no tensor is made there.
    for configuration in info.optim_inputs_func(device="cuda"):
        reason = why_not(configuration.kwargs, kind)
        counted["configurations"][reason or COMPARED] += 1
        if reason is None:
            for implementation in implementations(info):
                compare(kind, info.optim_cls, configuration.kwargs, implementation)
                counted["runs"][COMPARED] += 1


def translated(given: Any, made: dict[Any, mg.Parameter]) -> Any:
    """PyTorch's parameters as minigrad's, one for one, wherever they stand in lists, pairs and groups."""
    if isinstance(given, torch.Tensor):
        return made.setdefault(given, mg.Parameter(given.detach().numpy()))
    if isinstance(given, dict):
        return {key: translated(value, made) for key, value in given.items()}
    return type(given)(translated(value, made) for value in given) if isinstance(given, list | tuple) else given


@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in ABSENT])
def test_every_wrong_input_is_refused_or_explained(name: str) -> None:
    kind = getattr(mg.optim, name)
    for wrong in ENTRIES[name].optim_error_inputs_func(device="cpu", dtype=torch.float64):
        given = wrong.optimizer_error_input
        unknown = [option for option in given.kwargs if option not in signature(kind).parameters]
        reason = NOT_WRONG.get(given.desc) or (NO_OPTION[unknown[0]] if unknown else None)
        counted["wrong inputs"][reason or COMPARED] += 1
        params = [mg.Parameter(np.ones((1, 1)))] if given.params is None else translated(given.params, {})
        if given.desc in NOT_WRONG:
            kind(params, **given.kwargs)  # it is indeed taken
        elif reason is None:
            with pytest.raises(ArgumentError):
                kind(params, **given.kwargs)
        else:
            with pytest.raises(TypeError, match=unknown[0]):  # Python's own error for an argument that does not exist
                kind(params, **given.kwargs)


def test_an_unknown_option_is_not_explained() -> None:
    assert why_not({"lr": 0.1, "new_option": True}, mg.optim.SGD) is None
    with pytest.raises(TypeError, match="new_option"):
        compare(mg.optim.SGD, torch.optim.SGD, {"new_option": True}, {})


def test_a_wrong_rule_is_found() -> None:
    """The comparison can fail: a learning rate that is 1e-10 off is beyond the tolerance."""

    class Off(mg.optim.SGD):
        def constants(self, options: Any, step: int) -> dict[str, Any]:
            constants = super().constants(options, step)
            return constants | {"lr": constants["lr"] * (1 + 1e-10)}

    with pytest.raises(AssertionError):
        compare(Off, torch.optim.SGD, {"lr": 0.1}, {})

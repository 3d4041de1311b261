"""Runs one entry: PyTorch's function and the adapter on the same samples, contiguous and not, in float64 and float32."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from oracle.op_db.pytorch import op_db, silent, toleranceOverride, torch
from oracle.op_db.vocabulary import Accepted, Adapter, NotCompared, NotOffered, NotThere

import minigrad as mg
from minigrad.errors import MinigradError
from minigrad.tensor import Tensor

FLOAT64 = (1e-11, 1e-11)
"""(rtol, atol). torch.testing.assert_close grants 1e-7; 3e-13 is the largest that was ever seen."""

FLOAT32 = (1.3e-6, 1e-5)
"""The same in float32; entries that have tolerances of their own in op_db are held to those."""


@dataclass(frozen=True)
class Book:
    """The adapters and what is known to differ, by entry ("name" or "name:variant")."""

    adapters: dict[str, Adapter] = field(default_factory=dict)
    accepted: Accepted = field(default_factory=dict)
    dtypes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Entries that minigrad has for these dtypes only. Others run in float64 and float32, or int64 and bool if PyTorch has no floats."""
    float32: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Entries whose float32 tolerances (rtol, atol) are wider than op_db's; the reason stands beside each."""

    def __or__(self, other: Book) -> Book:
        parts = {name: getattr(self, name) | getattr(other, name) for name in self.__dataclass_fields__}
        assert len(parts["adapters"]) == len(self.adapters) + len(other.adapters), "an entry has two adapters"
        return Book(**parts)


@dataclass
class Pass:
    """One entry in one dtype."""

    samples: int = 0
    forward: float = 0.0
    gradient: float = 0.0
    skips: Counter[str] = field(default_factory=Counter)
    partial: Counter[str] = field(default_factory=Counter)
    """Why one of a sample's outputs was left out of the comparison."""


@dataclass
class Report:
    """What was found for one entry."""

    key: str
    passes: dict[str, Pass] = field(default_factory=dict)
    errors_raised: int = 0
    error_skips: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    missing: str = ""


OPINFOS: dict[str, Any] = {f"{op.name}:{op.variant_test_name}".rstrip(":"): op for op in op_db}


def converted(value: Any, memo: dict[int, Tensor]) -> Any:
    """PyTorch's arguments as minigrad's. Tensors share memory and strides; one that stands in two places is one tensor here too."""
    if isinstance(value, torch.Tensor):
        if value.is_complex():
            raise NotCompared("complex numbers")
        if value.layout != torch.strided or value.dtype in (torch.bfloat16, torch.float16):
            raise NotCompared(f"{value.layout} {value.dtype}")
        if value.ndim > 64:
            raise NotCompared("more than 64 dimensions: NumPy's arrays have no more")
        if id(value) not in memo:
            memo[id(value)] = Tensor.wrap(value.detach().numpy()).requires_grad_(value.requires_grad)
        return memo[id(value)]
    if isinstance(value, complex):
        raise NotCompared("complex numbers")
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, dict):
        return {key: converted(v, memo) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return (tuple if isinstance(value, tuple) else list)(converted(v, memo) for v in value)
    return value


def tensors_in(value: Any) -> Iterator[Any]:
    """The tensors in nested arguments or outputs, in order, and what stands in their place."""
    if isinstance(value, torch.Tensor | Tensor | NotOffered):
        yield value
    elif isinstance(value, list | tuple):
        yield from chain.from_iterable(tensors_in(v) for v in value)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def options(sample: Any) -> dict[str, Any]:
    """The keyword arguments that have a meaning for minigrad."""
    kwargs = dict(sample.kwargs)
    if kwargs.get("out") is not None:
        raise NotCompared("out= variant: tensors cannot be changed")
    if kwargs.get("device", "cpu") != "cpu":
        raise NotCompared(f"device {kwargs['device']}")
    dtype = kwargs.pop("dtype", None) if isinstance(sample.input, torch.Tensor) else None
    if dtype is not None and dtype != sample.input.dtype:
        raise NotCompared("dtype= argument that promotes")
    if kwargs.pop("memory_format", torch.preserve_format) not in (torch.preserve_format, torch.contiguous_format):
        raise NotCompared("memory_format= that orders the axes in memory")
    return {key: value for key, value in kwargs.items() if key not in ("device", "out")}


def difference(ours: np.ndarray, theirs: np.ndarray, tolerance: tuple[float, float]) -> tuple[float, bool]:
    """The largest |ours - theirs| / (1 + |theirs|), and whether |ours - theirs| <= atol + rtol |theirs| everywhere. NaN equals NaN."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        distance = np.where(same, 0.0, np.abs(a - b))
        size = np.where(same, 0.0, np.abs(b))
        relative = np.where(np.isnan(distance / (1.0 + size)), np.inf, distance / (1.0 + size))
        fine = bool(np.all(distance <= tolerance[1] + tolerance[0] * size))
    return float(np.max(relative, initial=0.0)), fine


def compare(opinfo: Any, adapter: Adapter, sample: Any, tolerance: tuple[float, float], result: Pass) -> list[str]:
    """Compare one sample; returns what is wrong with it. Raises: NotCompared, NotThere."""
    memo: dict[int, Tensor] = {}
    arguments = converted((sample.input, *sample.args), memo)
    keywords = converted(options(sample), memo)
    leaves = {id(t): t for t in tensors_in([sample.input, *sample.args, sample.kwargs]) if t.requires_grad}
    problems: list[str] = []
    with silent():
        expected = list(tensors_in(opinfo(sample.input, *sample.args, **sample.kwargs)))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = list(tensors_in(adapter(*arguments, **keywords)))
    if len(found) != len(expected):
        return [f"{len(found)} outputs, expected {len(expected)}"]
    for y in found:
        if isinstance(y, NotOffered):
            result.partial[y.reason] += 1
    expected = [e for y, e in zip(found, expected, strict=True) if not isinstance(y, NotOffered)]
    found = [y for y in found if not isinstance(y, NotOffered)]
    finite = True
    for y, e in zip(found, expected, strict=True):
        theirs = e.detach().numpy()
        if y.shape != theirs.shape or y.dtype != theirs.dtype:
            return [f"{y.dtype}{list(y.shape)}, expected {theirs.dtype}{list(theirs.shape)}"]
        error, fine = difference(y.numpy(), theirs, tolerance)
        result.forward = max(result.forward, error)
        finite = finite and bool(np.all(np.isfinite(theirs)))
        if not fine:
            problems.append(f"values differ by {error:.1e}")
    if leaves:
        finite = gradients_agree(found, expected, leaves, memo, tolerance, result, problems, seen) and finite
    if seen and finite:
        problems.append(f"warning although everything is finite: {seen[0].message}")
    return problems


def gradients_agree(
    found: list[Any], expected: list[Any], leaves: dict[int, Any], memo: Any, tolerance: Any, result: Pass, problems: list[str], seen: Any
) -> bool:
    """Compare the gradients of every leaf for one random cotangent an output; returns whether PyTorch's are finite."""
    cotangents = {i: torch.randn_like(e, memory_format=torch.contiguous_format) for i, e in enumerate(expected) if e.requires_grad}
    theirs: Any = [None] * len(leaves)
    if cotangents:
        theirs = torch.autograd.grad([expected[i] for i in cotangents], list(leaves.values()), list(cotangents.values()), allow_unused=True)
    mine = [memo[key] for key in leaves]
    ours: Any = [None] * len(leaves)
    with warnings.catch_warnings(record=True) as during:
        warnings.simplefilter("always")
        recorded = [(found[i], cotangent.numpy()) for i, cotangent in cotangents.items() if found[i].requires_grad]
        if len(recorded) == 1:
            ours = mg.grad(recorded[0][0], mine, recorded[0][1])
        elif recorded:
            parts = [(y * cotangent).sum() for y, cotangent in recorded]
            ours = mg.grad(sum(parts[1:], parts[0]), mine)
    seen.extend(during)
    finite = True
    for place, (leaf, g, e) in enumerate(zip(mine, ours, theirs, strict=True)):
        wanted = np.zeros(leaf.shape, leaf.dtype) if e is None else e.numpy()
        got = np.zeros(leaf.shape, leaf.dtype) if g is None else g.numpy()
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            problems.append(f"gradient {place} is {got.dtype}{list(got.shape)}, expected {wanted.dtype}{list(wanted.shape)}")
            continue
        error, fine = difference(got, wanted, tolerance)
        result.gradient = max(result.gradient, error)
        finite = finite and bool(np.all(np.isfinite(wanted)))
        if not fine:
            problems.append(f"gradient {place} differs by {error:.1e}")
    return finite


def float32_tolerance(opinfo: Any) -> tuple[float, float]:
    """assert_close's default, or the widest that op_db itself grants the entry on the CPU."""
    granted = [
        override.d[torch.float32]
        for info in opinfo.decorators
        for override in getattr(info, "decorators", [info])
        if isinstance(override, toleranceOverride) and torch.float32 in override.d and getattr(info, "device_type", None) in (None, "cpu")
    ]
    return max([FLOAT32[0], *(t.rtol for t in granted)]), max([FLOAT32[1], *(t.atol for t in granted)])


def described(sample: Any) -> str:
    def short(x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            return f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}"
        return type(x)(map(short, x)) if type(x) in (list, tuple) else x

    return f"{short([sample.input, *sample.args])} { {k: short(v) for k, v in sample.kwargs.items()} }"[:300]


def run(key: str, book: Book) -> Report:
    """Everything about one entry."""
    report, opinfo, adapter = Report(key), OPINFOS[key], book.adapters[key]
    usual = ("float64", "float32") if torch.float64 in opinfo.dtypes else ("int64", "bool")
    for name in book.dtypes.get(key, usual):
        dtype = getattr(torch, name)
        if dtype not in opinfo.dtypes:
            continue
        result = report.passes[name] = Pass()
        tolerance = book.float32.get(key, float32_tolerance(opinfo)) if dtype is torch.float32 else FLOAT64
        torch.manual_seed(0)
        for sample in opinfo.sample_inputs("cpu", dtype, requires_grad=dtype.is_floating_point and opinfo.supports_autograd):
            try:
                for layout in (sample, sample.noncontiguous()):
                    problems = compare(opinfo, adapter, layout, tolerance, result)
                    kind = "" if layout is sample else ", not contiguous"
                    report.failures += [f"{name}{kind}: {described(layout)}: {problem}" for problem in problems]
                result.samples += 1
            except NotCompared as reason:
                result.skips[str(reason)] += 1
            except NotThere as what:
                report.missing = str(what)
                return report
            except Exception as error:
                report.failures.append(f"{name}: {described(sample)}: {type(error).__name__}: {error}")
    if opinfo.error_inputs_func is not None:
        torch.manual_seed(0)
        for case in opinfo.error_inputs("cpu"):
            check_error(case, adapter, book.accepted.get(key, {}), report)
    return report


def check_error(case: Any, adapter: Adapter, accepted: dict[str, str], report: Report) -> None:
    """What PyTorch refuses, minigrad refuses with an error of its family, unless a rule says why it does not."""
    sample = case.sample_input
    try:
        memo: dict[int, Tensor] = {}
        arguments, keywords = converted((sample.input, *sample.args), memo), converted(options(sample), memo)
        with np.errstate(all="ignore"):
            adapter(*arguments, **keywords)
    except NotCompared as reason:
        report.error_skips[str(reason)] += 1
    except MinigradError:
        report.errors_raised += 1
    except Exception as error:
        report.failures.append(f"error input {described(sample)}: {type(error).__name__}: {error} (theirs: {case.error_regex})")
    else:
        why = [reason for part, reason in accepted.items() if (part in case.error_regex if part else not case.error_regex)]
        if why:
            report.error_skips[why[0]] += 1
            return
        report.failures.append(f"error input {described(sample)}: no error (theirs: {case.error_regex})")

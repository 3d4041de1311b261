"""Whether CuPy has every word that the package's arithmetic uses, read from the source: a name on `xp`, a keyword, a method of an array.

A body is written once and runs on NumPy every day. Where CuPy lacks a function or one of its keywords, that would show on a GPU only.
This needs an installed CuPy, no GPU. It sees words, not meanings: what a function computes is compared in tests/gpu.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from minigrad.backend import numpy as numpy_namespace
from minigrad.tensor import Tensor, is_on_gpu

cupy = pytest.importorskip("cupy", reason="CuPy is not installed (the `gpu` extra)")

from minigrad.backend import cupy as cupy_namespace  # noqa: E402 - needs CuPy

PACKAGE = Path(__file__).resolve().parents[2] / "minigrad"
ONLY_NUMPY = {"backend/numpy.py", "backend/erf.py", "kernels/cpu.py", "kernels/passes.py", "kernels/compiled.py"}
"""What computes on a CPU and nowhere else."""

SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if str(path.relative_to(PACKAGE)) not in ONLY_NUMPY]
BODIES = [path for path in SOURCES if path.relative_to(PACKAGE).parts[0] in ("ops", "optim", "tape.py", "autograd.py", "tensor.py")]
"""Where most things with methods are arrays of either library."""

UFUNC_KEYWORDS = {"out", "dtype", "casting"}
"""What `cupy.ufunc.__call__` takes; Cython gives it no signature."""

HOST_ONLY = {
    "setflags": "gradients of NumPy are made read-only; CuPy has no read-only arrays",
    "writeable": "as above",
}
"""Methods and attributes that are used on NumPy's arrays alone, behind an `isinstance`, and why."""


class Use(NamedTuple):
    """One use of a name: how many arguments by position (None if it is not called, or with *args), and which by keyword."""

    name: str
    positional: int | None
    keywords: tuple[str, ...]


def is_namespace(node: ast.AST) -> bool:
    """xp, self.xp, namespace_of(x)."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "namespace_of"
    return (node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else "") == "xp"


def name_on_namespace(node: ast.AST) -> str | None:
    """`linalg.qr` for xp.linalg.qr."""
    names: list[str] = []
    while isinstance(node, ast.Attribute) and not is_namespace(node):
        names.append(node.attr)
        node = node.value
    return ".".join(reversed(names)) if names and is_namespace(node) else None


def use(name: str, call: ast.Call) -> Use:
    starred = any(isinstance(a, ast.Starred) for a in call.args)
    return Use(name, None if starred else len(call.args), tuple(k.arg for k in call.keywords if k.arg))


def functions_used(tree: ast.AST) -> Iterator[Use]:
    """Names on a namespace, and those that `without_gradient` and its like look up there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := name_on_namespace(node.func)):
            yield use(name, node)
        elif isinstance(node, ast.Attribute) and (name := name_on_namespace(node)):
            yield Use(name, None, ())
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("without_gradient", "ops.without_gradient", "_comparison"):
            yield from (Use(name.value, None, ()) for name in node.args[:1] if isinstance(name, ast.Constant))


def methods_used(tree: ast.AST) -> Iterator[Use]:
    """Methods and attributes that NumPy's arrays have too, on anything but a namespace."""
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call)
        attribute = node.func if isinstance(node, ast.Call) else node
        if isinstance(attribute, ast.Attribute) and not is_namespace(attribute.value) and name_on_namespace(attribute) is None:
            if isinstance(attribute.value, ast.Name) and attribute.value.id in ("np", "ops", "F"):
                continue
            if hasattr(np.ndarray, attribute.attr) or attribute.attr in HOST_ONLY:
                yield use(attribute.attr, node) if called else Use(attribute.attr, None, ())  # type: ignore[arg-type]


def parameters_of(function: Any) -> inspect.Signature | None:
    """The signature; for functions of Cython from the first line of their description. None where neither says anything."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        pass
    described = re.match(r"\w+\.\w+\((?:self(?:, )?)?(.*)\)", (function.__doc__ or "").partition("\n")[0])
    if described is None:
        return None
    plain = re.sub(r"\b(?:int|Py_ssize_t|_ndarray_base)\s+(\w+)", r"\1", described[1])
    return inspect.Signature(_parameters(ast.parse(f"def f({plain}): ...").body[0]))


def _parameters(function: Any) -> list[inspect.Parameter]:
    arguments, kind = function.args, inspect.Parameter
    without = len(arguments.args) - len(arguments.defaults)
    found = [
        kind(a.arg, kind.POSITIONAL_OR_KEYWORD, default=kind.empty if i < without or arguments.vararg else None)
        for i, a in enumerate(arguments.args)
    ]
    if arguments.vararg:
        found.append(kind(arguments.vararg.arg, kind.VAR_POSITIONAL))
    return found + [kind(a.arg, kind.KEYWORD_ONLY, default=None) for a in arguments.kwonlyargs]


def complaint(owner: Any, wanted: Use) -> str | None:
    """What is wrong with a use, or None."""
    found = owner
    for part in wanted.name.split("."):
        if not hasattr(found, part):
            return f"CuPy has no {wanted.name}"
        found = getattr(found, part)
    if wanted.positional is None or not callable(found):
        return None
    if isinstance(found, cupy.ufunc):
        wrong = set(wanted.keywords) - UFUNC_KEYWORDS
        return f"{wanted.name} takes no {sorted(wrong)}" if wrong or wanted.positional > found.nargs else None
    signature = parameters_of(found)
    if signature is None:
        return None
    try:
        signature.bind_partial(*range(wanted.positional), **dict.fromkeys(wanted.keywords))
    except TypeError as error:
        return f"{wanted.name}{signature}: {error}"
    return None


def tree_of(path: Path) -> ast.AST:
    return ast.parse(path.read_text(encoding="utf-8"))


def ids(paths: list[Path]) -> list[Any]:
    return [pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in paths]


@pytest.mark.parametrize("path", ids([path for path in SOURCES if any(functions_used(tree_of(path)))]))
def test_cupy_has_every_function_with_its_keywords(path: Path) -> None:
    assert not sorted({said for used in functions_used(tree_of(path)) if (said := complaint(cupy_namespace, used))})


@pytest.mark.parametrize("path", ids(BODIES))
def test_arrays_of_cupy_have_every_method_with_its_keywords(path: Path) -> None:
    uses = {used for used in methods_used(tree_of(path)) if used.name not in HOST_ONLY}
    assert not sorted({said for used in uses if (said := complaint(MethodsOfAnArray, used))})


def test_functions_that_are_named_by_a_string_are_seen() -> None:
    names = {used.name for used in functions_used(tree_of(PACKAGE / "ops" / "discrete.py"))}
    assert {"sign", "isfinite", "equal", "greater_equal"} <= names


class _Methods(type):
    """cupy.ndarray's attributes as an instance has them, without an instance, which needs a GPU."""

    def __getattr__(cls, name: str) -> Any:
        found = getattr(cupy.ndarray, name)
        signature = parameters_of(found) if callable(found) else None
        if signature is None:
            return found

        def method(*_: Any, **__: Any) -> None: ...

        own = [p for p in signature.parameters.values() if p.name != "self"]
        method.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
        return method


class MethodsOfAnArray(metaclass=_Methods):
    pass


def test_both_namespaces_add_the_same_words() -> None:
    added = {
        name
        for name, value in vars(numpy_namespace).items()
        if inspect.isfunction(value) and not name.startswith("_") and value.__module__ in ("minigrad.backend.numpy", "minigrad.backend.erf")
    }
    assert {"erf", "like", "one_hot", "transfer", "zeros_at"} <= added
    for name in added - {"erf", "erfc"}:  # CuPy's own ufuncs
        ours, theirs = (inspect.signature(getattr(namespace, name)) for namespace in (numpy_namespace, cupy_namespace))
        assert list(ours.parameters) == list(theirs.parameters), name
    assert isinstance(cupy_namespace.erf, cupy.ufunc) and isinstance(cupy_namespace.erfc, cupy.ufunc)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("xp.vecdot(a, b)", "CuPy has no vecdot"),
        ("self.xp.no_such_thing", "CuPy has no no_such_thing"),
        ("namespace_of(x).take(a, i, mode='clip')", "mode"),
        ("xp.add(a, b, where=c)", "takes no ['where']"),
        ("xp.linalg.no_qr(a)", "CuPy has no linalg.no_qr"),
        ("without_gradient('no_such_thing', x)", "CuPy has no no_such_thing"),
        ("x.setfield(v, t)", "CuPy has no setfield"),
        ("x.max(axis=0, initial=1.0)", "initial"),
        ("x.swapaxes(0, 1, 2)", "too many positional arguments"),
    ],
)
def test_what_is_missing_would_be_found(code: str, words: str) -> None:
    tree = ast.parse(code)
    said = [complaint(cupy_namespace, used) for used in functions_used(tree)]
    said += [complaint(MethodsOfAnArray, used) for used in methods_used(tree)]
    assert [s for s in said if s and words in s]


@pytest.mark.parametrize(
    "code", ["xp.sum(x, axis=0)", "xp.add.at(x, k, g)", "x.astype('f', copy=False)", "x.reshape(a, b)", "xp.sqrt(v, out=t)"]
)
def test_what_is_there_is_found(code: str) -> None:
    tree = ast.parse(code)
    uses = [(cupy_namespace, used) for used in functions_used(tree)] + [(MethodsOfAnArray, used) for used in methods_used(tree)]
    assert uses and not [said for owner, used in uses if (said := complaint(owner, used))]


# ---------------------------------------------------------------- arrays
def test_an_array_of_cupy_is_told_from_others() -> None:
    """An index or operand that lies on a GPU is copied there: NumPy's conversion refuses it."""
    host = np.arange(6.0)
    memory = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, device_id=0)  # an array without a GPU, as long as nobody computes
    array = cupy.ndarray((6,), np.float64, memptr=cupy.cuda.MemoryPointer(memory, 0))
    with pytest.raises(TypeError, match="conversion"), pytest.warns(DeprecationWarning):
        np.array(array)
    assert is_on_gpu(array) and is_on_gpu(array[2:])
    assert not any(map(is_on_gpu, (host, host[0], Tensor(host), [1, 2], {"get": 1}, "cuda")))

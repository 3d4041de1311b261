"""Write docs/ops.md: every operation, what the fused ones keep for the backward pass, and every convention at kinks and edges.

    python tests/make_ops_page.py

The table comes from the registry, memory is measured, and each convention is the docstring of the test that checks it (`test_e01_…`).
A test fails while the page is stale.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from oracle.edge_cases.table import TORCH

import minigrad as mg
from minigrad import ops
from minigrad.backend import numpy as numpy_namespace
from minigrad.backend.gradients import LAZY
from minigrad.backend.random import Draw
from minigrad.kernels import register_cuda
from minigrad.op import COMPOSITES, REGISTRY, Op
from minigrad.packing import Packing

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "ops.md"

CASES = 55
"""How many edge cases there are."""

INTRODUCTION = """# Operations

Written by `python tests/make_ops_page.py` from the registry and the tests; do not edit.

Shapes are written as in NumPy's gufunc signatures: `*s` stands for any axes (those of several arguments broadcast together), `*b` for
leading axes, `name:int` for integers. An operation has a pullback of its own; a composite is composed of operations. Each is checked by
`minigrad.check_op`: first and second derivatives against central differences in float64, inputs not written to, float32 stays float32,
any memory layout.

```python
import numpy as np
import minigrad as mg
from minigrad import functional as F

assert mg.check_op(F.logsumexp, [np.linspace(-2.0, 2.0, 6).reshape(2, 3)])
```
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, *_tables(), _without_gradient(), _kept_table(), _conventions()]
    return "\n".join(parts)


# ---------------------------------------------------------------- the table of operations
def _module(entry: Any) -> str:
    function = entry.body if isinstance(entry, Op) else entry.function
    return str(function.__module__)


def _tables() -> Iterator[str]:
    register_cuda()  # they register themselves when a GPU is first used
    everything = {**REGISTRY, **COMPOSITES}
    modules = sorted({_module(entry) for entry in everything.values()})
    yield f"{len(REGISTRY)} operations and {len(COMPOSITES)} composites.\n"
    for module in modules:
        yield f"## {module.removeprefix('minigrad.ops.')}\n"
        yield "| name | shapes | meaning | kind |\n|---|---|---|---|"
        for name, entry in sorted(everything.items()):
            if _module(entry) == module:
                kind = "operation" if isinstance(entry, Op) else "composite"
                kind += ", fast version: " + ", ".join(sorted(entry.overrides)) if isinstance(entry, Op) and entry.overrides else ""
                yield f"| `{name}` | `{_cell(entry.spec)}` | {_cell(_first_sentence(entry.__doc__))} | {kind} |"
        yield ""


def _first_sentence(text: str | None) -> str:
    paragraph = " ".join((text or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.;:]) (?=[A-ZÀ-Þ])", paragraph)[0].rstrip(";:")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _without_gradient() -> str:
    names = ", ".join(f"`{name}`" for name in sorted(ops.NON_DIFFERENTIABLE))
    return f"## Functions without a gradient\n\nThe results of these never require one: {names}.\n"


# ---------------------------------------------------------------- what fused operations keep
ROWS, WIDTH, HEADS = 64, 32, 4


def _numbers(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def _calls() -> dict[str, tuple[tuple[Any, ...], dict[str, Any]]]:
    """A call of each fused operation on 64 float32 rows of width 32 (or the nearest equivalent)."""
    packing = Packing([ROWS // 4] * 4)
    row = _numbers(WIDTH)
    square = _numbers(WIDTH, WIDTH)
    x = _numbers(ROWS, WIDTH)
    images = _numbers(2, 4, 16, 16)
    return {
        "softmax": ((x, None), {}),
        "log_softmax": ((x,), {}),
        "cross_entropy": ((x, np.arange(ROWS) % WIDTH), {}),
        "layer_norm": ((x, row, row), {}),
        "rms_norm": ((x, row), {}),
        "gelu": ((x,), {}),
        "linear": ((x, square, row), {}),
        "linears": ((x, square, square, row, row), {}),
        "dense_gelu": ((x, square, row), {}),
        "dense_tanh": ((x, square, row), {}),
        "dense_add_norm": ((x, square, row, x, row, row), {"draw": Draw("page", 0.1, packing, WIDTH)}),
        "dropout": ((x,), {"draw": Draw("page", 0.1, packing, WIDTH)}),
        "attention": (
            (None, _numbers(ROWS, 3 * WIDTH)),
            {"packing": packing, "heads": HEADS, "draw": Draw("page", 0.1, packing, HEADS, packing)},
        ),
        "conv": ((images, _numbers(4, 4, 3, 3), _numbers(4)), {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}),
        "lstm": ((x, _numbers(4 * WIDTH, WIDTH), _numbers(4 * WIDTH, WIDTH), None, None, None, None), {"packing": packing}),
        "gru": ((x, _numbers(3 * WIDTH, WIDTH), _numbers(3 * WIDTH, WIDTH), None, None, None), {"packing": packing}),
    }


def kept(pullback: Any) -> list[np.ndarray[Any, Any]]:
    """The arrays that a pullback keeps alive, each buffer once: found through closures, tuples, lists and dicts."""
    found: dict[int, np.ndarray[Any, Any]] = {}
    seen: set[int] = set()
    stack = [pullback]
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            while isinstance(value.base, np.ndarray):
                value = value.base
            found[id(value)] = value
        elif isinstance(value, FunctionType):
            stack.extend(cell.cell_contents for cell in value.__closure__ or ())
        elif isinstance(value, tuple | list):
            stack.extend(value)
        elif isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, LAZY):
            stack.extend(getattr(value, slot) for slot in value.__slots__)
    return list(found.values())


def _kept_table() -> str:
    lines = [
        "## What fused operations keep for the backward pass",
        "",
        f"Measured on float32 calls with {ROWS} rows of width {WIDTH} (convolution: 2 images of 4×16×16): which inputs the pullback keeps,",
        "whether it keeps the output, and the bytes of its own arrays. Dropout masks (`dropout`, `dense_add_norm`) take a byte per unit.",
        "",
        "| operation | inputs kept | keeps its output | own bytes | relative to the output |",
        "|---|---|---|---|---|",
    ]
    for name, (args, constants) in _calls().items():
        output, pullback = REGISTRY[name].run(numpy_namespace, list(args), constants, keep=True)
        outputs = output if isinstance(output, tuple) else (output,)
        given = [a for a in args if isinstance(a, np.ndarray)]
        held = kept(pullback)
        inputs = sum(any(np.shares_memory(a, h) for h in held) for a in given)
        own = [h for h in held if not any(np.shares_memory(h, a) for a in (*given, *outputs))]
        has_output = any(np.shares_memory(h, outputs[0]) for h in held)
        size = sum(h.nbytes for h in own)
        lines.append(
            f"| `{name}` | {inputs} of {len(given)} | {'yes' if has_output else 'no'} | {size:,} | {size / outputs[0].nbytes:.2f} |"
        )
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- conventions
@cache
def conventions() -> dict[int, list[tuple[str, str]]]:
    """For each edge case the (test, docstring) pairs: there should be exactly one."""
    found: dict[int, list[tuple[str, str]]] = {number: [] for number in range(1, CASES + 1)}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            number = re.match(r"test_e(\d\d)_", node.name) if isinstance(node, ast.FunctionDef) else None
            if number and isinstance(node, ast.FunctionDef):
                text = " ".join((ast.get_docstring(node) or "").split())
                found[int(number[1])].append((f"{path.relative_to(TESTS.parent)}::{node.name}", text))
    return found


def _conventions() -> str:
    lines = [
        "## Conventions at kinks, ties and edges",
        "",
        "Each has a numbered test (`pytest -k test_e01`). The last column says whether PyTorch 2.13 meets the convention, fails it or",
        "differs, if it applies there; `tests/oracle/test_edge_cases_oracle.py` checks that, too.",
    ]
    heading = ""
    for number, tests in conventions().items():
        place, text = tests[0]
        file = place.partition("::")[0]
        if file != heading:
            heading = file
            subject = ast.get_docstring(ast.parse((TESTS.parent / file).read_text(encoding="utf-8"))) or ""
            lines += ["", f"### {_first_sentence(subject).rstrip('.')}", "", f"`{file}`", "", "| | convention | PyTorch |", "|---|---|---|"]
        lines += [f"| E{number:02d} | {_cell(text)} | {_cell(TORCH[number])} |"]
    return "\n".join(lines) + "\n"


def main(write: Callable[[str], Any] = PAGE.write_text) -> None:
    mg.manual_seed(0)
    write(page())


if __name__ == "__main__":
    main()

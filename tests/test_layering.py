"""Which module may import which, and which names are forbidden where, checked on the source code."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import minigrad as mg

PACKAGE = Path(__file__).resolve().parents[1] / "minigrad"
SOURCES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    {"errors", "_version", "files"},
    {"packing", "hooks", "modes", "plots"},
    {"backend"},
    {"anomaly"},
    {"tape"},
    {"autograd"},
    {"tensor"},
    {"parameter"},
    {"op"},
    {"ops"},
    {"functional", "interpreter", "kernels", "gradcheck", "contract", "derivatives", "recompute", "creation"},
    {"nn", "data", "io", "workers"},
    {"optim", "audit", "audit_report"},
    {"models"},
    {"train", "pipeline"},
    {"serve", "cli", "__main__"},
]
"""From low to high. A module or subpackage imports from its own row and lower ones only. The package's __init__ is above all."""

LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

PAIR = ("tensor", "ops")
"""The documented exception: Tensor's operators are operations, and operations return Tensors."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module_of(path: Path) -> str:
    return ".".join(("minigrad", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(dotted name, whether it is imported at module level) of every import statement outside of `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) for n in ast.walk(f)}
    typing_only = {
        id(n)
        for i in ast.walk(tree)
        if isinstance(i, ast.If) and "TYPE_CHECKING" in ast.dump(i.test)
        for stmt in i.body
        for n in ast.walk(stmt)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in inner
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module), id(node) not in inner
            for alias in node.names:  # `from minigrad import ops` names a module, `from minigrad.tensor import Tensor` a thing in one
                yield f"{node.module}.{alias.name}", id(node) not in inner


def rooms_imported(path: Path) -> Iterator[str]:
    for name, _ in imports(path):
        if name.startswith("minigrad."):
            yield name.split(".")[1]


OPTIONAL = {"cupy", "cupyx", "huggingface_hub", "numba", "tensorboardX", "threadpoolctl", "tokenizers", "tqdm"}
"""Packages besides NumPy: imported only inside the functions that need them (most may be absent)."""
BEHIND = ("backend/cupy.py", "kernels/jit.py")
"""Modules that may import such a package at module level, because they are themselves imported only if it is needed."""

BARE = {"eval", "exec"}
FORBIDDEN = BARE | {
    "pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "builtins", "__import__", "as_strided", "allow_pickle",
}  # fmt: skip
MAY_START_PROCESSES = ("io/_download.py",)
"""It runs pip to fetch a published package of weights."""


def named(path: Path) -> set[str]:
    """Every identifier, attribute, keyword and imported name in the code; comments and strings do not count.

    A call of a method `eval` (a model's) is not a call of Python's eval, which is always a bare name.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(f".{node.attr}" if node.attr in BARE else node.attr)
        elif isinstance(node, ast.keyword) and node.arg:
            names.add(node.arg)
    return names | {part for name, _ in imports(path) for part in name.split(".")}


inside = [pytest.param(path, id=str(path.relative_to(PACKAGE))) for path in SOURCES]


def test_there_is_something_to_read() -> None:
    assert {"autograd.py", "tensor.py", "op.py"} <= {path.name for path in SOURCES}


@pytest.mark.parametrize("path", [p for p in inside if p.id != "__init__.py"])
def test_imports_run_downwards(path: Path) -> None:
    room = room_of(path)
    assert room in LEVEL, f"{room} has no row in LAYERS"
    upwards = {other for other in rooms_imported(path) if LEVEL.get(other, 0) > LEVEL[room] and (room, other) != PAIR}
    assert not upwards, f"{module_of(path)} imports {sorted(upwards)} from above"


def test_backend_numpy_reaches_its_package_only_when_called() -> None:
    at_import = {name for name, immediately in imports(PACKAGE / "backend" / "numpy.py") if immediately}
    assert "minigrad.backend" not in at_import
    assert "minigrad.backend" in {name for name, _ in imports(PACKAGE / "backend" / "numpy.py")}  # needed by `transfer`


@pytest.mark.parametrize("path", inside)
def test_cupy_is_named_only_in_backend_and_kernels(path: Path) -> None:
    if room_of(path) not in ("backend", "kernels"):
        assert not {"cupy", "cupyx"} & {name.split(".")[0] for name, _ in imports(path)}


@pytest.mark.parametrize("path", inside)
def test_nothing_is_needed_but_numpy_and_no_framework_is_imported(path: Path) -> None:
    own = sys.stdlib_module_names | {"minigrad", "numpy"}
    others = {(root, immediately) for name, immediately in imports(path) if (root := name.split(".")[0]) not in own}
    assert {root for root, _ in others} <= OPTIONAL
    assert str(path.relative_to(PACKAGE)) in BEHIND or not any(immediately for _, immediately in others)


@pytest.mark.parametrize("path", [p for p in inside if p.id.split("/")[0] in ("ops", "nn", "models")])
def test_numpy_is_not_imported_where_meaning_is_stated(path: Path) -> None:
    assert "numpy" not in {name.split(".")[0] for name, _ in imports(path)}


@pytest.mark.parametrize("path", inside)
def test_nothing_that_could_run_foreign_code_or_read_foreign_memory(path: Path) -> None:
    assert not FORBIDDEN & named(path)


@pytest.mark.parametrize("path", [p for p in inside if p.id not in MAY_START_PROCESSES])
def test_no_process_is_started(path: Path) -> None:
    assert not {"subprocess", "system", "popen"} & named(path)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from numpy.lib.stride_tricks import as_strided",
        "eval('1')",
        "np.load(f, allow_pickle=True)",
        "import marshal as m",
    ],
)
def test_what_is_forbidden_would_be_found(code: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(code, encoding="utf-8")
    assert FORBIDDEN & named(path)
    path.write_text("model.eval()", encoding="utf-8")
    assert not FORBIDDEN & named(path)


FETCHING = {"item", "tolist", "to_number", "to_numpy", "to_host", "asnumpy"}

FETCHES = {
    "nn/normalisation.py": {"_observe"},  # the count of batches, for a momentum of None
    "ops/index.py": {"_refuse_outside"},  # indices that are on the GPU already
    "ops/losses.py": {"cross_entropy", "nll_loss"},  # the sum of the weights, for a mean
    "ops/padding.py": {"_widths", "_with_constants"},  # paddings that are tensors
    "ops/recurrent.py": {"__init__"},  # lengths, which are on the host
    "optim/clip.py": {"_as_float"},  # the norm, which is returned
    "optim/debt.py": {"_pay"},  # tables exist only on a CPU
    "optim/table.py": {"blocks"},
    "optim/optimizer.py": {"_update", "state_dict"},  # options, which are on the host; saving
}
"""The functions of operations, layers, optimizers and GPU kernels that make Python numbers of elements, which waits for a GPU."""


def fetches(path: Path) -> set[str]:
    """The innermost functions that do."""
    found: set[str] = set()

    def visit(node: ast.AST, function: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call) and getattr(child.func, "attr", getattr(child.func, "id", "")) in FETCHING:
                found.add(function)
            visit(child, child.name if isinstance(child, ast.FunctionDef) else function)

    visit(ast.parse(path.read_text(encoding="utf-8")), "")
    return found


@pytest.mark.parametrize("path", [p for p in inside if p.id.startswith(("ops/", "nn/", "optim/", "kernels/cuda/"))])
def test_only_these_functions_fetch_numbers(path: Path) -> None:
    assert fetches(path) == FETCHES.get(path.relative_to(PACKAGE).as_posix(), set())


def test_a_fetch_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f(x):\n    return x.sum().item()\n\nclass A:\n    def g(self, x):\n        return to_numpy(x)\n", encoding="utf-8")
    assert fetches(path) == {"f", "g"}


def fresh(code: str) -> str:
    """The output of a new interpreter, in which warnings are errors, too."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_minigrad_loads_only_numpy_and_the_standard_library() -> None:
    code = (
        "import sys, numpy; before = set(sys.modules); import minigrad; "
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    loaded = set(fresh(code).split())
    assert "minigrad" in loaded
    assert loaded - {"minigrad", "numpy"} <= sys.stdlib_module_names


LATER = {
    "audit",
    "audit_report",
    "cli",
    "contract",
    "data",
    "files",
    "gradcheck",
    "io",
    "models",
    "nn",
    "optim",
    "pipeline",
    "plots",
    "train",
    "workers",
}
"""Modules that `import minigrad` must not load: it may take no longer than tensors and operations need."""


def test_importing_minigrad_loads_none_of_the_rooms_built_on_operations() -> None:
    loaded = set(fresh("import sys, minigrad; print(*{m.split('.')[1] for m in sys.modules if m.startswith('minigrad.')})").split())
    assert {"tensor", "ops", "kernels", "interpreter", "derivatives"} <= loaded
    assert not LATER & loaded


def test_every_public_name_is_there() -> None:
    assert set(mg.__all__) <= set(dir(mg))
    assert all(getattr(mg, name) is not None for name in mg.__all__)


@pytest.mark.parametrize("name", [*sorted(LATER & set(mg.__all__)), "check_op"])
def test_what_is_loaded_later_is_found_by_its_name_alone(name: str) -> None:
    """In a new interpreter: in this one other tests have loaded most modules."""
    assert fresh(f"import minigrad as mg; first = mg.{name}; from minigrad import {name}; print(first is {name} is mg.{name})") == "True\n"


@pytest.mark.parametrize("name", ["audit", "gradcheck", "pipeline"])
def test_a_function_keeps_its_place_when_the_module_of_its_name_is_imported(name: str) -> None:
    code = (
        f"import minigrad.{name}; from minigrad.{name} import {name}; import minigrad as mg; print(mg.{name} is {name}, callable({name}))"
    )
    assert fresh(code).split() == ["True", "True"]


def test_a_name_that_minigrad_has_not_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'minigrad' has no attribute 'Tensr'"):
        mg.Tensr  # type: ignore[attr-defined]  # noqa: B018 - looking it up is the test


@pytest.mark.parametrize(("arguments", "absent"), [(["--help"], LATER - {"cli"}), (["info", "--help"], {"train", "pipeline", "plots"})])
def test_a_command_loads_what_it_works_with(arguments: list[str], absent: set[str]) -> None:
    code = (
        "import contextlib, io, sys; from minigrad.cli import main\n"
        f"with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main({arguments})\n"
        "print(*{m.split('.')[1] for m in sys.modules if m.startswith('minigrad.')})"
    )
    loaded = set(fresh(code).split())
    assert "cli" in loaded and not absent & loaded


@pytest.mark.parametrize("path", inside)
def test_modules_open_by_saying_why_they_exist(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.name != "_version.py" and tree.body:
        assert ast.get_docstring(tree), f"{path} does not say why it exists"

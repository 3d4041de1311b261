"""Module: a tree of layers whose parameters are found by walking attributes.

There is no registry and no `super().__init__()` to forget: layers and parameters are found in attributes, directly or inside lists,
tuples and dicts, and their path is the name under which they are saved, frozen and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from reprlib import recursive_repr
from typing import Any, NamedTuple, Self

from minigrad.backend import FLOAT_DTYPES, Array, check_device, names_device
from minigrad.backend.dtypes import as_dtype
from minigrad.backend.layout import neighbours, runs
from minigrad.errors import ArgumentError, DTypeError, GraphError, StateDictError
from minigrad.hooks import HookHandle, Hooks
from minigrad.parameter import Buffer, Parameter, array_for, lay_out
from minigrad.tape import Leaf
from minigrad.tensor import Tensor


class Unmatched(NamedTuple):
    """The names that `Module.load_state_dict` found only in the module, and only in the given state."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """Base of all layers and models: subclasses set attributes in `__init__` and compute in `forward`."""

    training: bool = True
    """Whether the module is in training mode, in which dropout is active. Switched by `train()` and `eval()`."""

    path: str = ""
    """The module's path in its model, set by the first walk from (or call of) the model's root; dropout draws by it.
    A layer that is added to the model later gets it at the next walk (`train`, `parameters`, …)."""

    _has_paths: bool = False
    """Whether a walk has set the paths of this module and those below it."""

    _forward_hooks: Hooks | None = None
    _forward_pre_hooks: Hooks | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Raises: StateDictError if a number, array or bare Tensor would replace a parameter or buffer: it would silently not be trained.

        To compute with other numbers temporarily, as derivatives with respect to a parameter do, write to `vars(module)`.
        """
        held = vars(self).get(name)
        if isinstance(held, Parameter | Buffer) and not (value is None or isinstance(value, Parameter | Buffer | Module)):
            kind = type(held).__name__
            raise StateDictError(
                f"{type(self).__name__}.{name} is a {kind}, and a {type(value).__name__} in its place would be neither trained nor saved: "
                f"write .{name}.assign(numbers), or pass a {kind}"
            )
        super().__setattr__(name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The computation of the module; call the module itself. Raises: ArgumentError in a class that defines none."""
        raise ArgumentError(f"{type(self).__name__} defines no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._has_paths:
            self._set_paths()
        for before in self._forward_pre_hooks or ():
            changed = before(self, args)
            if changed is not None:
                args = changed if isinstance(changed, tuple) else (changed,)
        output = self.forward(*args, **kwargs)
        for after in self._forward_hooks or ():
            changed = after(self, args, output)
            if changed is not None:
                output = changed
        return output

    # ---------------------------------------------------------------- hooks
    def register_forward_hook(self, function: Callable[[Any, tuple[Any, ...], Any], Any]) -> HookHandle:
        """Call `function(module, args, output)` after each call of this module; its result, if not None, replaces the output.

        `args` are the positional arguments. The handle's `remove()`, or the end of `with module.register_forward_hook(f):`, removes it.
        A copy of the module has the same hooks; they are not saved. A layer that its owner fuses with its neighbours (the linear layers
        inside BERT's attention and feed-forward blocks) is not called itself: hook the owner.

        Raises: ArgumentError if `function` cannot be called.
        """
        if self._forward_hooks is None:
            self._forward_hooks = Hooks()
        return self._forward_hooks.add(function)

    def register_forward_pre_hook(self, function: Callable[[Any, tuple[Any, ...]], Any]) -> HookHandle:
        """Call `function(module, args)` before each call; its result, if not None, replaces the positional arguments.

        A tuple replaces them all, anything else is taken as the only one. Otherwise as `register_forward_hook`.
        """
        if self._forward_pre_hooks is None:
            self._forward_pre_hooks = Hooks()
        return self._forward_pre_hooks.add(function)

    # ---------------------------------------------------------------- the walk
    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """(path, module) for this module ("") and every module below it, each once, in attribute order."""
        return ((path, value) for path, value in self._walk() if isinstance(value, Module))

    def named_parameters(self) -> list[tuple[str, Parameter]]:
        """(path, parameter) of every parameter, in attribute order; a shared one appears once, under its first path.

        Raises: StateDictError for two parameters under one path (a file would keep only one), a dict key with a dot in it, a list that
        holds itself, a set of layers, or a bare Tensor that requires a gradient, which no optimizer would train.
        """
        return [(path, value) for path, value in self._named_state() if isinstance(value, Parameter)]

    def named_buffers(self) -> list[tuple[str, Buffer]]:
        """(path, buffer) of every buffer, in the order and with the errors of `named_parameters`. Buffers are saved but not trained."""
        return [(path, value) for path, value in self._named_state() if isinstance(value, Buffer)]

    def _named_state(self) -> list[tuple[str, Parameter | Buffer]]:
        """(path, parameter or buffer) of everything that is saved, in attribute order, each once. Raises: as `named_parameters`."""
        found: dict[int, tuple[str, Parameter | Buffer]] = {}
        for path, value in self._walk():
            if isinstance(value, Tensor) and not isinstance(value, Parameter) and isinstance(value.node, Leaf):
                raise StateDictError(f"{path} is a Tensor that requires a gradient, which no optimizer would train: make it a Parameter")
            if isinstance(value, Parameter | Buffer):
                found.setdefault(id(value), (path, value))
        self._set_paths()
        return list(found.values())

    def parameters(self) -> list[Parameter]:
        """Every parameter once."""
        return [parameter for _, parameter in self.named_parameters()]

    def num_parameters(self) -> int:
        """The total number of elements of the parameters."""
        return sum(p.size for p in self.parameters())

    def _walk(self) -> Iterator[tuple[str, Any]]:
        """This module and all modules, parameters and tensors below it with their paths; each module once, under its first path.

        Depth first, with a stack of its own: models may be nested deeper than Python recurses.
        """
        seen: set[int] = set()
        holders: dict[str, Any] = {}
        stack: list[tuple[str, Any]] = [("", self)]
        while stack:
            path, value = stack.pop()
            if id(value) in seen:
                continue
            if holders.setdefault(path, value) is not value:
                raise StateDictError(f"{path} names a {type(holders[path]).__name__} and a {type(value).__name__}: rename one of them")
            yield path, value
            if isinstance(value, Module):
                seen.add(id(value))
                inner = [pair for name, held in vars(value).items() for pair in _contents(f"{path}.{name}" if path else name, held)]
                stack.extend(reversed(inner))

    def _set_paths(self) -> None:
        """Set the paths of modules and parameters to their first ones. The longer path, of a walk from further out, is kept."""
        named: set[int] = set()
        for path, value in self._walk():
            if isinstance(value, Module):
                value._has_paths = True
                if len(path) >= len(value.path):
                    value.path = path
            elif isinstance(value, Parameter) and id(value) not in named:
                named.add(id(value))
                if len(path) >= len(value.leaf.name):
                    value.leaf.name = path

    # ---------------------------------------------------------------- modes
    def train(self, mode: bool = True) -> Self:
        """Put this module and all below it into training mode (dropout on), or with False into eval mode; returns the module."""
        self._set_paths()
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Put this module and all below it into eval mode (dropout off); the same as `train(False)`."""
        return self.train(False)

    @contextmanager
    def evaluating(self) -> Iterator[Self]:
        """A context manager for eval mode. At its end, also by an exception, every module returns to its old mode."""
        modes = [(module, module.training) for _, module in self.named_modules()]
        self.eval()
        try:
            yield self
        finally:
            for module, training in modes:
                module.training = training

    def freeze(self, *patterns: str) -> list[str]:
        """Stop training the parameters whose path starts with, or matches as a shell pattern, one of `patterns` (all if none is given).

        Returns their paths. Raises: ArgumentError for a pattern that fits no parameter.
        """
        return self._set_trainable(patterns, False)

    def unfreeze(self, *patterns: str) -> list[str]:
        """The opposite of `freeze`."""
        return self._set_trainable(patterns, True)

    def _set_trainable(self, patterns: tuple[str, ...], trainable: bool) -> list[str]:
        if not all(isinstance(pattern, str) for pattern in patterns):
            raise ArgumentError(
                f"freeze and unfreeze take paths or shell patterns such as 'encoder.layer.0' or '*.bias', got {patterns!r:.80}"
            )
        named = self.named_parameters()
        chosen: dict[str, Parameter] = {} if patterns else dict(named)
        for pattern in patterns:
            fitting = {n: p for n, p in named if n == pattern or n.startswith(pattern.rstrip(".") + ".") or fnmatchcase(n, pattern)}
            if not fitting:
                raise ArgumentError(
                    f"no parameter's path starts with or matches {pattern!r}; paths look like {named[0][0]!r}" if named else "no parameters"
                )
            chosen.update(fitting)
        for parameter in chosen.values():
            parameter.requires_grad_(trainable)
        return list(chosen)

    def zero_grad(self) -> None:
        """Clear every parameter's gradient."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def to(self, target: Any) -> Self:
        """Convert every parameter to a dtype ("float32", "float64") or move it to a device ("cpu", "cuda", "auto"), in place; returns self.

        Floating buffers are converted too, and all buffers are moved. A parameter that is converted or moved loses its gradient.
        Raises: GraphError if an optimizer holds a parameter that would have to change: convert first, then build the optimizer; to another
        device, move the optimizer first (`Optimizer.to`). DTypeError for another dtype; ArgumentError for anything else; DeviceError for
        an absent device.
        """
        if target is None:
            raise ArgumentError("to(None): pass a dtype (float32, float64) or a device (cpu, cuda, auto)")
        if names_device(target):
            target = check_device(target)
        elif as_dtype(target).name not in FLOAT_DTYPES:
            raise DTypeError(f"parameters are {' or '.join(FLOAT_DTYPES)}, they cannot become {as_dtype(target)}")
        parameters = []
        for name, parameter in self.named_parameters():
            if parameter.owner is None:
                parameters.append(parameter)
            elif target not in (parameter.device, parameter.dtype):
                way = f"move that first (optimizer.to({target!r}))" if names_device(target) else "convert before you build it"
                raise GraphError(f"{name} belongs to an optimizer: {way}", code="graph-owner")
        for run in runs([p.array for p in parameters]):  # neighbours in memory stay neighbours, so that they can still be read as one
            together = [parameters[i] for i in run]
            flat = neighbours([p.array.reshape(-1) for p in together]) if len(run) > 1 else together[0].array.reshape(-1)
            lay_out(Tensor.wrap(flat).to(target).array, together)
        for _, buffer in self.named_buffers():
            if buffer.dtype.kind == "f" or names_device(target):
                buffer.replace_storage(Tensor.wrap(buffer.array).to(target).array)
        return self

    # ---------------------------------------------------------------- state
    def state_dict(self) -> dict[str, Array]:
        """A copy of every parameter and buffer as a NumPy array, by path; shared ones under their first path.

        Raises: StateDictError for an attribute that is a bare Tensor, which would silently not be saved.
        """
        for path, value in self._walk():
            if isinstance(value, Tensor) and not isinstance(value, Parameter | Buffer):
                raise StateDictError(
                    f"{path} is a Tensor, which is not saved: make it Parameter(..., requires_grad=False) or a Buffer to save it, "
                    "or a NumPy array"
                )
        return {name: value.numpy().copy() for name, value in self._named_state()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Unmatched:
        """Copy arrays into the parameters and buffers, in place, by path. Nothing is changed unless everything fits.

        strict: also refuse missing and unexpected names; without it they are left alone and returned.
        Raises: StateDictError naming every entry that is missing, unexpected, mis-shaped or not an array of numbers, and if no name fits.
        """
        if not isinstance(state, Mapping):
            raise StateDictError(f"{type(self).__name__}.load_state_dict takes a dict of arrays by path, got {type(state).__name__}")
        named = dict(self._named_state())
        given: dict[str, Any] = {}
        groups: dict[str, list[str]] = {"no array of numbers": [], "mis-shaped": [], "missing": [], "unexpected": []}
        for name, own in named.items():
            if name not in state:
                groups["missing"].append(name)
                continue
            try:
                given[name] = array = array_for(own, state[name])
            except DTypeError as error:
                groups["no array of numbers"].append(f"{name}: {error}")
                continue
            if tuple(array.shape) != own.shape:
                groups["mis-shaped"].append(f"{name}: {tuple(array.shape)} given, {own.shape} needed")
        groups["unexpected"] += [str(name) for name in state if name not in named]
        unmatched = Unmatched(groups["missing"], groups["unexpected"])
        if not strict and (len(unmatched.missing_keys) < len(named) or not state):
            del groups["missing"], groups["unexpected"]
        explained = ("no array of numbers", "mis-shaped")
        problems = [f"{what}: {('; ' if what in explained else ', ').join(entries)}" for what, entries in groups.items() if entries]
        if problems:
            raise StateDictError(f"{type(self).__name__}.load_state_dict: " + " | ".join(problems))
        for name, array in given.items():
            named[name].assign(array)
        return unmatched

    # ---------------------------------------------------------------- printing
    def extra_repr(self) -> str:
        """A layer's options, for the brackets of its repr."""
        return ""

    @recursive_repr("...")
    def __repr__(self) -> str:
        lines = []
        for name, value in vars(self).items():
            for path, child in _contents(name, value):
                if isinstance(child, Module):
                    lines.append(f"({path}): {child!r}".replace("\n", "\n  "))
        inner = self.extra_repr() if not lines else "\n  " + "\n  ".join(lines) + "\n"
        return f"{type(self).__name__}({inner})"


def _contents(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The modules and tensors that an attribute is or holds, with their paths.

    Raises: StateDictError for a set of layers, a list that holds itself, or a key with a dot on the way to a layer or tensor.
    """
    stack: list[tuple[str, Any, tuple[int, ...], str]] = [(path, value, (), "")]
    while stack:
        path, value, around, dotted = stack.pop()
        if isinstance(value, Module | Tensor):
            if dotted:
                raise StateDictError(f"{dotted} is a dict's key with a dot in it, and dots separate the parts of a path: rename the key")
            yield path, value
        elif isinstance(value, list | tuple | dict):
            if id(value) in around:
                raise StateDictError(f"{path} is a {type(value).__name__} that holds itself, so its layers have no paths")
            inside = (*around, id(value))
            items = list(value.items() if isinstance(value, dict) else enumerate(value))
            for key, item in reversed(items):
                place = f"{path}.{key}"
                stack.append((place, item, inside, place if "." in str(key) else dotted))
        elif isinstance(value, set | frozenset) and any(isinstance(item, Module | Parameter | Buffer) for item in value):
            raise StateDictError(f"{path} is a set of layers or parameters: a set has no order to name them by; use a list")

"""Parameter groups: which parameters an optimizer changes, and with which options.

All mistakes in the first argument of an optimizer are found here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from minigrad.errors import ArgumentError
from minigrad.parameter import Parameter
from minigrad.tensor import Tensor

Group: TypeAlias = dict[str, Any]
"""{"params": [Parameter, ...], "lr": ..., and the optimizer's other options}."""

HOW = 'pass model.named_parameters(), a list of Parameters, or a list of groups {"params": [...], "lr": ...}'


def read_groups(params: Any, defaults: Mapping[str, Any]) -> tuple[list[Group], dict[Parameter, str]]:
    """The groups, each with every option, and a name for every parameter (its own, or its position).

    Raises: ArgumentError for anything that is not a parameter, a parameter given twice, an empty list, an unknown option.
    """
    entries = _listed(params, HOW)
    if not entries:
        raise ArgumentError(f"there are no parameters in this list: {HOW}")
    given = entries if any(isinstance(entry, Mapping) for entry in entries) else [{"params": entries}]
    groups: list[Group] = []
    names: dict[Parameter, str] = {}
    for number, entry in enumerate(given):
        if not isinstance(entry, Mapping) or "params" not in entry:
            raise ArgumentError(f'parameter group {number} is no dict with "params": {HOW}')
        unknown = [key for key in entry if key != "params" and key not in defaults]
        if unknown:
            raise ArgumentError(f"parameter group {number}: unknown option {unknown[0]!r}; the options are {', '.join(defaults)}")
        group: Group = {"params": [], **defaults, **entry}
        group["params"] = []
        for name, parameter in named(entry["params"], HOW, len(names)):
            if parameter in names:
                raise ArgumentError(f"{name} is given twice: each parameter belongs to one group once")
            names[parameter] = name
            group["params"].append(parameter)
        if not group["params"]:
            raise ArgumentError(f"parameter group {number} is empty: {HOW}")
        groups.append(group)
    return groups, names


def decay_groups(
    named_parameters: Iterable[tuple[str, Parameter]], weight_decay: float, no_decay: Sequence[str] = ("bias", "LayerNorm")
) -> list[Group]:
    """Two groups for an optimizer: weights with `weight_decay`, and biases and normalisation weights with decay 0.

    The second group takes parameters with fewer than two dimensions, or with a name that contains a word of `no_decay` (the rule of
    Devlin et al., "BERT", 2019, and of Hugging Face's examples). A group that would be empty is left out.
    """
    decayed: Group = {"params": [], "weight_decay": weight_decay}
    others: Group = {"params": [], "weight_decay": 0.0}
    for name, parameter in named_only(named_parameters, "decay_groups"):
        group = others if parameter.ndim < 2 or any(word in name for word in no_decay) else decayed
        group["params"].append((name, parameter))
    return [group for group in (decayed, others) if group["params"]]


def named_only(params: Any, function: str) -> list[tuple[str, Parameter]]:
    """The (name, parameter) pairs. Raises: ArgumentError, naming `function`, for parameters without names, and as `named`."""
    members = _listed(params, HOW)
    if not all(isinstance(member, tuple | list) for member in members):
        raise ArgumentError(f"{function} goes by names: pass model.named_parameters()")
    return named(members, HOW)


def named(params: Any, how: str, first: int = 0) -> list[tuple[str, Parameter]]:
    """(name, parameter) of every member of a list of parameters or pairs; one without a name gets its position, counted from `first`.

    how: what to pass, for the message. Raises: ArgumentError for anything else.
    """
    return [_named(member, number, how) for number, member in enumerate(_listed(params, how), first)]


def _listed(params: Any, how: str) -> list[Any]:
    if isinstance(params, Tensor | Mapping | str) or not hasattr(params, "__iter__"):
        raise ArgumentError(f"cannot take parameters from {type(params).__name__}: {how}")
    return list(params)


def _named(member: Any, number: int, how: str) -> tuple[str, Parameter]:
    name = None
    if isinstance(member, tuple | list) and len(member) == 2 and isinstance(member[0], str):
        name, member = member
    if not isinstance(member, Parameter):
        raise ArgumentError(f"number {number} of the parameters is a {type(member).__name__}, not a Parameter: {how}")
    return name or member.name or f"parameter {number}", member

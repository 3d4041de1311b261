"""Layer-wise learning rates: layers closer to the input have learned more general features, and should change less."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from minigrad.errors import ArgumentError
from minigrad.optim.checks import check_number
from minigrad.optim.groups import Group, decay_groups, named_only
from minigrad.parameter import Parameter


def layer_groups(
    named_parameters: Iterable[tuple[str, Parameter]],
    lr: float,
    decay: float,
    weight_decay: float = 0.0,
    no_decay: Sequence[str] = ("bias", "LayerNorm"),
    layers: str | None = None,
) -> list[Group]:
    """Parameter groups with a learning rate for each layer, and within each the two groups of `decay_groups`.

    Layers are recognised by the number in parameter paths such as encoder.layer.3.output.dense.weight; `layers` is the part before the
    number ("encoder.layer"), and can be omitted if there is only one. Of n layers the last one gets `lr`, each one below it `decay` times
    the rate of the one above; parameters listed before the layers (embeddings) get lr·decayⁿ, those listed after them (pooler,
    classifier) `lr`.

    Source: Howard & Ruder, "Universal language model fine-tuning for text classification", 2018 (discriminative fine-tuning, decay
    1/2.6); Sun et al., "How to fine-tune BERT for text classification?", 2019 (0.95).
    Raises: ArgumentError unless 0 < decay <= 1, and if there are no layers, or several candidates and `layers` does not choose one.
    """
    check_number("lr", lr)
    check_number("decay", decay, above=0, most=1)
    check_number("weight_decay", weight_decay)
    members = named_only(named_parameters, "layer_groups")
    numbered = [_numbered(name) for name, _ in members]
    place = _chosen(layers, sorted({found[0] for found in numbered if found}))
    numbers = [found[1] if found and found[0] == place else None for found in numbered]
    order = sorted({number for number in numbers if number is not None})
    first = next(at for at, number in enumerate(numbers) if number is not None)
    levels: list[list[tuple[str, Parameter]]] = [[] for _ in range(len(order) + 2)]  # below the layers, each layer, above the layers
    for at, (member, number) in enumerate(zip(members, numbers, strict=True)):
        outside = 0 if at < first else len(order) + 1
        levels[outside if number is None else order.index(number) + 1].append(member)
    groups: list[Group] = []
    for level, inside in enumerate(levels):
        rate = lr * decay ** max(0, len(order) - level)
        groups += [{**group, "lr": rate} for group in decay_groups(inside, weight_decay, no_decay)]
    return groups


def _numbered(name: str) -> tuple[str, int] | None:
    """The part of a path before its first number, and the number; None without one."""
    parts = name.split(".")
    for at, part in enumerate(parts):
        if part.isdecimal():
            return ".".join(parts[:at]), int(part)
    return None


def _chosen(layers: str | None, places: Sequence[str]) -> str:
    """The path of the numbered layers. Raises: ArgumentError if there is none, or more than one to choose from."""
    listed = ", ".join(repr(place) for place in places)
    if not places:
        raise ArgumentError("no parameter lies in a numbered layer, such as 'encoder.layer.0.output.dense.weight': use decay_groups")
    if layers is None and len(places) > 1:
        raise ArgumentError(f"there are several places with numbered layers: choose with layers= one of {listed}")
    if layers is not None and layers not in places:
        raise ArgumentError(f"there are no numbered layers under {layers!r:.80}, but under {listed}")
    return places[0] if layers is None else layers

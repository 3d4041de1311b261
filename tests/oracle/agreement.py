"""How closely we agree with another library: the largest error of each kind and how many comparisons stand behind it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

import numpy as np

_largest: dict[str, float] = defaultdict(float)
_count: dict[str, int] = defaultdict(int)


def agree(kind: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float, scale: float = 1.0) -> float:
    """Assert that max |ours - theirs| / scale lies below `tolerance`, and take note of it. NaN never agrees. Gives the error."""
    assert ours.shape == theirs.shape, (kind, ours.shape, theirs.shape)
    error = float(np.max(np.abs(ours - theirs), initial=0.0)) / scale
    assert error < tolerance, (kind, error)
    _largest[kind] = max(_largest[kind], error)
    _count[kind] += ours.size
    return error


def agree_on_gradients(
    kind: str, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], tolerance: float, unseen: Collection[str] = ()
) -> float:
    """Each parameter's gradient relative to its largest entry (or to 1e-6 of the largest of all, where that is more).

    The gradient of a key's bias is zero but for rounding (softmax does not see it): it must be small, its digits are noise. So are those
    of the parameters `unseen`. Gives the largest error.
    """
    assert ours.keys() == theirs.keys()
    largest, error = max(float(np.abs(g).max(initial=0.0)) for g in theirs.values()), 0.0
    for name, gradient in theirs.items():
        if name.endswith("key.bias") or name in unseen:
            assert np.abs(ours[name]).max() < 1e-6 * max(1.0, largest), name
        else:
            scale = max(float(np.abs(gradient).max(initial=0.0)), 1e-6 * largest, 1e-300)
            error = max(error, agree(kind, ours[name], gradient, tolerance, scale))
    return error


def summary() -> str:
    """What was noted since the last summary, for the end of a module's tests."""
    lines = [f"  {kind}: largest error {_largest[kind]:.1e} in {_count[kind]} numbers" for kind in sorted(_count)]
    lines.append(f"  {sum(_count.values())} comparisons in all")
    _largest.clear()
    _count.clear()
    return "\n".join(lines)

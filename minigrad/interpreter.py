"""The third interpreter: the namespace that operation bodies receive as `xp` when they run on Tensors, for second derivatives.

Functions of constants return plain arrays, functions of Tensors return Tensors. It has those names of `backend.numpy` that bodies use;
a body that needs another one raises AttributeError.
"""

from __future__ import annotations

from typing import Any

from minigrad import ops
from minigrad.backend import Array, namespace_of, register_namespace
from minigrad.tensor import Tensor


class _TensorNamespace:
    NAME = "tensor"
    DEVICE = "any"
    inf = float("inf")

    exp, log, sqrt, tanh, erf, erfc = (staticmethod(f) for f in (ops.exp, ops.log, ops.sqrt, ops.tanh, ops.erf, ops.erfc))
    expm1, log1p, sin, cos, ldexp = (staticmethod(f) for f in (ops.expm1, ops.log1p, ops.sin, ops.cos, ops.ldexp))
    maximum, minimum, where = (staticmethod(f) for f in (ops.maximum, ops.minimum, ops.where))

    broadcast_to = staticmethod(lambda x, shape: ops.broadcast_to(x, shape=tuple(shape)))
    concatenate = staticmethod(lambda xs, axis=0: ops.concatenate(*xs, axis=axis))
    ascontiguousarray = staticmethod(lambda x: x)

    @staticmethod
    def constant(x: Any) -> Array:
        return x.array if isinstance(x, Tensor) else x

    @staticmethod
    def like(host: Array, x: Any) -> Array:
        return namespace_of(_TensorNamespace.constant(x)).like(host, x)

    @staticmethod
    def zeros_like(x: Any, shape: tuple[int, ...]) -> Array:
        array = _TensorNamespace.constant(x)
        return namespace_of(array).zeros_like(array, shape=shape)

    @staticmethod
    def sum(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
        return ops.sum(x, axis=axis, keepdims=keepdims)

    cumsum = staticmethod(lambda x, axis: ops.cumsum(x, axis=axis))

    @staticmethod
    def zeros_at(g: Tensor, key: Any, shape: tuple[int, ...]) -> Tensor:
        return ops.zeros_at(g, key=key, shape=tuple(shape))

    @staticmethod
    def sum_at(parts: list[Tensor], keys: list[Any], shape: tuple[int, ...]) -> Tensor:
        total, *others = [_TensorNamespace.zeros_at(part, key, shape) for part, key in zip(parts, keys, strict=True)]
        for other in others:
            total = total + other
        return total

    @staticmethod
    def put_rows(g: Tensor, ids: Array, shape: tuple[int, ...]) -> Tensor:
        return ops.put_rows(g, ids, count=shape[0])

    @staticmethod
    def rows(ids: Array, g: Tensor, shape: tuple[int, ...]) -> Tensor:
        return ops.zeros_at(g, key=ids, shape=tuple(shape))

    matmul = product = staticmethod(ops.matmul)

    @staticmethod
    def transfer(x: Tensor, device: str) -> Tensor:
        return x.to(device)

    def __getattr__(self, name: str) -> Any:
        """Functions of constants only (sign, isfinite, one_hot) come from the array's namespace."""
        if name not in ("sign", "isfinite", "one_hot"):
            raise AttributeError(f"operation bodies may not use xp.{name} on Tensors: add it to interpreter.py")
        return lambda x, *rest: getattr(namespace_of(x), name)(x, *rest)


register_namespace(Tensor, _TensorNamespace())

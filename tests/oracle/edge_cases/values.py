"""E01-E30: ties, reductions, softmax and normalisation."""

from __future__ import annotations

from math import inf, isnan

import numpy as np
import pytest
import torch
from oracle.edge_cases.base import asks, grad, leaf, same

TF = torch.nn.functional


# ---------------------------------------------------------------- ties and kinks
@asks(1)
def _() -> bool:
    x = leaf([2.0, 2.0, 1.0])
    assert same(grad(x.max(dim=0).values, x), [1, 0, 0])
    return same(grad(x.amax(), x), [0.5, 0.5, 0])


@asks(2)
def _() -> bool:
    x = leaf([[1.0, 1.0, 0.0], [inf, inf, -0.0]])
    return all(grad(out, x).sum() == out.numel() for out in (x.amax(), x.max(), x.amax(dim=1), x.amin(dim=1), x.max(dim=0).values))


@asks(3)
def _() -> bool:
    x = leaf([1.0, 2.0])
    return same(grad(torch.maximum(x, torch.ones(2, dtype=torch.float64)), x), [0.5, 1])


@asks(4)
def _() -> bool:
    x = torch.ones(70_000, dtype=torch.float16, requires_grad=True)
    return bool((grad(x.amax() * 60_000.0, x) > 0).all() and (grad(x.max() * 60_000.0, x) > 0).all())


@asks(5)
def _() -> bool:
    x = leaf([1.0, 3.0, 2.0])
    return same(grad(x.max() + x, x), [1, 4, 1])


@asks(6)
def _() -> bool:
    x = leaf([0.0, -0.0, 1.0, -1.0])
    return same(grad(torch.relu(x), x), [0, 0, 1, 0]) and same(grad(x.abs(), x), [0, 0, 1, -1]) and same(grad(x.clamp(-1, 1), x), [1] * 4)


@asks(7)
def _() -> bool:
    x = leaf([0.0])
    return same(grad(TF.binary_cross_entropy_with_logits(x, torch.zeros(1, dtype=torch.float64)), x), [0.5])


# ---------------------------------------------------------------- reductions
@asks(8)
def _() -> bool:
    x, y = leaf([0.0, 2.0, 3.0]), leaf([0.0, 0.0, 3.0])
    return same(grad(x.prod(), x), [6, 0, 0]) and same(grad(y.prod(), y), [0, 0, 0])


@asks(9)
def _() -> bool:
    x = leaf([[0.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    return same(grad(x.prod(dim=1), x), [[6, 0, 0], [30, 24, 20]]) and same(grad(x.prod(dim=0, keepdim=True), x), [[4, 5, 6], [0, 2, 3]])


@asks(10)
def _() -> bool:
    factors = np.full((40, 40), 1e13)
    factors[0, 0] = 0.0
    x = leaf(factors)
    assert isnan(x.prod().item()) and np.isnan(grad(x.prod(), x)).any()
    return not np.isnan(grad(x.prod(), x)).any()


@asks(11)
def _() -> bool:
    x = leaf([0.1] * 5)
    return same(grad(x.std(), x), [0.0] * 5) and same(grad(x.std(correction=0), x), [0.0] * 5)


@asks(12)
def _() -> bool:
    x = leaf([[3.0], [4.0]])
    return all(same(f(dim=1).detach(), [np.nan] * 2) and same(grad(f(dim=1), x), [[np.nan]] * 2) for f in (x.var, x.std))


@asks(13)
def _() -> bool:
    column, bias = torch.full((200_000, 2), 0.1), torch.zeros(2, requires_grad=True)
    exact = column.numpy().astype(np.float64).sum(axis=0)
    by_bias = grad((torch.zeros(200_000, 2) + bias) * column, bias)
    return all(np.allclose(found, exact, rtol=5e-6, atol=0.0) for found in (column.sum(dim=0).numpy(), by_bias))


@asks(14)
def _() -> bool:
    ones = torch.ones(20_000_000)
    return ones.mean().item() == 1.0 and ones.reshape(-1, 1).mean(dim=0).item() == 1.0


@asks(15)
def _() -> bool:
    return bool((torch.tensor([100.0, -100.0]).expand(1_000_000, 2).std(dim=0) < 1e-4).all())


@asks(16)
def _() -> bool:
    x = leaf([])
    return x.sum().item() == 0 and grad(x.sum(), x).shape == (0,) and isnan(x.mean().item()) and grad(x.mean(), x).shape == (0,)


@asks(17)
def _() -> bool:
    x = torch.zeros(0, 4)
    assert x.amax(dim=1).shape == x.max(dim=1).values.shape == (0,)
    with pytest.raises(Exception, match="non-zero size") as error:
        x.amax(dim=0)
    assert error.type is IndexError and "4" not in str(error.value)
    return isinstance(error.value, ValueError)


@asks(18)
def _() -> bool:
    x, y = leaf(np.ones((4, 0))), leaf(np.ones((4, 1)))
    return same(grad(x + y, y), np.zeros((4, 1)))


# ---------------------------------------------------------------- softmax and its kin
@asks(19)
def _() -> bool:
    q, k, v = (torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    mask = torch.ones(2, 3, 3, dtype=torch.bool)
    mask[1, 2] = False
    layer = torch.nn.MultiheadAttention(4, 1, batch_first=True).double()
    assert torch.isnan(layer(q, k, v, attn_mask=~mask)[0][1, 2]).all()
    out = TF.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return same(out[1, 2].detach(), [0.0] * 4) and all(np.isfinite(grad(out, x)).all() for x in (q, k, v))


@asks(20)
def _() -> bool:
    x = leaf([-inf, -inf])
    assert x.logsumexp(0).item() == -inf and np.isnan(grad(x.logsumexp(0), x)).all()
    return same(grad(x.logsumexp(0), x), [0, 0])


@asks(21)
def _() -> bool:
    x = leaf([1.0, inf])
    assert x.logsumexp(0).item() == inf and same(grad(x.logsumexp(0), x), [0, np.nan])
    return same(grad(x.logsumexp(0), x), [0, 1])


@asks(22)
def _() -> bool:
    x = leaf([1e4, 0.0])
    out = TF.log_softmax(x, 0)
    return same(out.detach(), [0, -1e4]) and same(grad(out * torch.tensor([0.5, 2.0]), x), [-2, 2])


@asks(23)
def _() -> bool:
    x, mask = leaf([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[False, False], [True, True]])
    hidden = x.masked_fill(~mask, -inf)
    found = [TF.softmax(hidden, -1), TF.log_softmax(hidden, -1)]
    found += [f(x, -1, mask=mask) for f in (torch.masked.softmax, torch.masked.log_softmax)]
    assert all(torch.isnan(out[0]).all() for out in found)
    return not any(torch.isnan(out).any() for out in found)


@asks(24)
def _() -> bool:
    layer = torch.nn.MultiheadAttention(4, 1, batch_first=True).double()
    x = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    padding, later = torch.zeros(2, 4, dtype=torch.bool), torch.ones(4, 4, dtype=torch.bool).triu(1)
    padding[1, 0] = True  # so that with causality the first query of the second sequence has no key
    out = layer(x, x, x, key_padding_mask=padding, attn_mask=later)[0]
    assert torch.isnan(out[1, 0]).all() and not torch.isnan(out[0]).any() and not torch.isnan(out[1, 1:]).any()
    assert np.isnan(grad(out[1, 1:], x)[1]).all()
    return not torch.isnan(out).any()


@asks(25)
def _() -> bool:
    q, k, v = torch.tensor([[[1e4], [-1e4]]]), torch.tensor([[[-1e4], [1e4]]]), torch.tensor([[[1.0], [2.0]]])
    causal = TF.scaled_dot_product_attention(q, k, v, is_causal=True)
    return same(causal, [[[1], [1]]]) and same(TF.scaled_dot_product_attention(q, k, v, attn_mask=torch.tensor([True, False])), causal)


@asks(26)
def _() -> bool:
    sizes = [(scale, width) for scale in (1.0, 1e4, 1e30) for width in (1, 2, 17)]
    return all(bool(((TF.softmax((torch.rand(50, n) * 2 - 1) * s, -1).sum(-1) - 1).abs() < 1e-6).all()) for s, n in sizes)


# ---------------------------------------------------------------- normalisation
@asks(27)
def _() -> bool:
    errors = []
    for mean in (0.0, 100.0, 1e3, 1e4):
        rows = (mean + np.arange(768) * 1e-3 + np.zeros((4, 1))).astype(np.float32)
        centred = rows.astype(np.float64) - rows.astype(np.float64).mean(axis=-1, keepdims=True)
        exact = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        errors.append(np.abs(TF.layer_norm(torch.from_numpy(rows), (768,), eps=1e-12).numpy() - exact).max())
    assert errors[0] < 1e-5 and all(0.1 < error / stated < 10 for error, stated in zip(errors[1:], (8e-5, 4e-4, 5e-3), strict=True))
    return max(errors) < 1e-5


@asks(28)
def _() -> bool:
    found = TF.layer_norm(torch.tensor([[40000.0, 40001.0, 40002.0, 40003.0]]), (4,)).numpy()
    return np.allclose(found, [[-1.3416, -0.4472, 0.4472, 1.3416]], rtol=0.0, atol=1e-4)


@asks(29)
def _() -> bool:
    x, weight, bias = leaf(np.full((2, 3), 0.1)), leaf([1.0, 2.0, 3.0]), leaf([4.0, 5.0, 6.0])
    out = TF.layer_norm(x, (3,), weight, bias, 1e-12)
    close = np.allclose(out.detach(), [[4, 5, 6]] * 2, rtol=0.0, atol=1e-9)
    return close and all(np.isfinite(grad(out * out, t)).all() for t in (x, weight, bias))


@asks(30)
def _() -> bool:
    return bool((torch.rand(2000, 5) * 2 + 9999).var(-1).min() >= 0) and all(torch.full((n,), 9999.7).var() >= 0 for n in range(2, 2000, 7))

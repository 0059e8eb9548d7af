"""Each loss against plain numpy in fp64, and its gradient against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wake2vec.structure import losses

GROUP = np.array([0, 0, 0, 1, 1, 2, 2, 2])
P, D = len(GROUP), 6


def member() -> torch.Tensor:
    return torch.from_numpy((np.arange(3)[:, None] == GROUP).astype(np.float64))


def vectors(seed: int, rows: int = P) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, D))


WEIGHTS = np.arange(1.0, P + 1) / np.arange(1.0, P + 1).sum()


def plain_others(offsets: np.ndarray) -> np.ndarray:
    return np.array([
        np.mean([offsets[j] for j in range(P) if GROUP[j] == GROUP[i] and j != i], axis=0) for i in range(P)
    ])  # fmt: skip


def cos(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def plain_cosine(d: np.ndarray) -> float:
    return float((WEIGHTS * (1 - cos(d, plain_others(d)))).sum())


def plain_contrast(w: np.ndarray) -> float:
    b = vectors(9)
    logits = cos((b + plain_others(w - b))[:, None], w[None]) / losses.TEMPERATURE
    return float((WEIGHTS * (np.log(np.exp(logits).sum(1)) - np.diag(logits))).sum())


def plain_triplets(a: np.ndarray) -> float:
    return float(np.maximum(0, 0.2 + cos(a, vectors(8)) - cos(a, vectors(7))).mean())


def plain_norm(r: np.ndarray) -> float:
    return float((np.maximum(0, np.abs(np.linalg.norm(r, axis=1) - 1.5) - 0.3) ** 2).mean() / 1.5**2)


def plain_repulsion(r: np.ndarray) -> float:
    return float((np.maximum(0, cos(r, r + 0.1 * vectors(6)) - 0.95) ** 2).mean())


def plain_anchor(r: np.ndarray) -> float:
    start = vectors(5)
    return float((((r - start) ** 2).sum(1) / (start**2).sum(1)).mean())


def t(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values)


W = t(WEIGHTS)
CASES = {
    "cosine": (lambda x: losses.cosine(x, member(), W), plain_cosine),
    "contrast": (lambda x: losses.contrast(x, t(vectors(9)), member(), W), plain_contrast),
    "triplets": (lambda x: losses.triplets(x, t(vectors(7)), t(vectors(8)), 0.2), plain_triplets),
    "anchor": (lambda x: losses.anchor(x, t(vectors(5))), plain_anchor),
    "norm": (lambda x: losses.norm(x, 1.5, 0.3), plain_norm),
    "repulsion": (lambda x: losses.repulsion(x, x + 0.1 * t(vectors(6))), plain_repulsion),
}


@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_its_gradient_are_those_of_plain_numpy(name):
    loss, plain = CASES[name]
    at = vectors(1)
    x = t(at).requires_grad_()

    value = loss(x)
    (gradient,) = torch.autograd.grad(value, x)

    assert value.item() == pytest.approx(plain(at), rel=1e-9)
    for i, j in ((0, 0), (3, 2), (7, 5)):
        step = np.zeros_like(at)
        step[i, j] = 1e-6
        assert gradient[i, j].item() == pytest.approx((plain(at + step) - plain(at - step)) / 2e-6, abs=1e-7, rel=1e-4)


def test_the_offset_loss_does_not_vanish_with_the_size_of_rows():
    d = t(vectors(1))

    assert losses.offset(d, member(), W).item() == pytest.approx(losses.offset(1e-3 * d, member(), W).item(), rel=1e-9)
    squares = ((vectors(1) - plain_others(vectors(1))) ** 2).sum(1)
    assert losses.offset(d, member(), W).item() == pytest.approx(
        (WEIGHTS * squares).sum() / (vectors(1) ** 2).sum(1).mean(), rel=1e-9
    )


def test_chance_of_the_device_loss_is_the_margin():
    rows = torch.randn(3, 20_000, 32, generator=torch.Generator().manual_seed(0))

    assert losses.triplets(*rows, 5.0).item() == pytest.approx(5.0, abs=0.01)


def test_a_pair_without_an_offset_has_a_finite_gradient():
    d = t(vectors(1))
    d[0] = 0
    x = d.requires_grad_()

    (gradient,) = torch.autograd.grad(losses.cosine(x, member(), W), x)

    assert torch.isfinite(gradient).all()

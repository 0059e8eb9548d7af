"""Losses that give rows a structure, pure functions of word vectors in fp32; each is a mean, so sizes do not weigh.

d_i = e(w_i) - e(b_i) is the offset of a pair, m_i the mean offset of the *other* pairs of its group: with the pair
itself in the mean, random rows score 1/sqrt(n) instead of 0. Group sums are products with a 0/1 matrix and never
scattered additions, so that a card adds in one order.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TEMPERATURE = 0.1
CLOSE = 0.95  # cosine above which two rows repel each other


def others_mean(offsets: Tensor, member: Tensor) -> Tensor:
    """m_i, of groups with at least two pairs. offsets [p, d], member [g, p] 0/1 → [p, d]"""
    sums = member.T @ (member @ offsets)  # [p, d] of the whole group
    count = (member.T @ member.sum(dim=1)).unsqueeze(1)  # [p, 1]
    return (sums - offsets) / (count - 1)


def cosine(offsets: Tensor, member: Tensor, weights: Tensor) -> Tensor:
    """1 - cos(d_i, m_i): the direction alone. weights [p], sum 1. Ri et al. 2023 see parallel offsets arise so."""
    return (weights * (1 - F.cosine_similarity(offsets, others_mean(offsets, member), dim=1))).sum()


def offset(offsets: Tensor, member: Tensor, weights: Tensor) -> Tensor:
    """|d_i - m_i|² over the mean |d|², which a mean over dimensions would make vanish (1e-6 on a 7B model)."""
    squares = (offsets - others_mean(offsets, member)).square().sum(dim=1)
    return (weights * squares).sum() / offsets.detach().square().sum(dim=1).mean()


def contrast(words: Tensor, bases: Tensor, member: Tensor, weights: Tensor) -> Tensor:
    """InfoNCE: e(b_i) + m_i must be nearer to w_i than to the other pairs' words. [p, d] each (van den Oord 2018)"""
    predicted = bases + others_mean(words - bases, member)
    logits = F.normalize(predicted, dim=1) @ F.normalize(words, dim=1).T / TEMPERATURE  # [p, p]
    nats = F.cross_entropy(logits, torch.arange(len(words), device=words.device), reduction="none")
    return (weights * nats).sum()


def triplets(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Mean of relu(margin + cos(a, n) - cos(a, p)); exactly the margin where nothing is learnt. [t, d] each

    FaceNet (Schroff et al. 2015), by cosine.
    """
    far, near = F.cosine_similarity(anchor, negative, dim=1), F.cosine_similarity(anchor, positive, dim=1)
    return F.relu(margin + far - near).mean()


def anchor(rows: Tensor, start: Tensor) -> Tensor:
    """Mean of |e - e0|² / |e0|²: near where the row began, as retrofitting holds its words (Faruqui et al. 2015)."""
    return ((rows - start).square().sum(dim=1) / start.square().sum(dim=1).clamp_min(1e-12)).mean()


def norm(rows: Tensor, mean: float, deviation: float) -> Tensor:
    """Mean of relu(| |e| - mean | - deviation)² / mean²: no longer or shorter than published rows are. rows [t, d]"""
    beyond = F.relu((torch.linalg.vector_norm(rows, dim=1) - mean).abs() - deviation)
    return beyond.square().mean() / mean**2


def repulsion(left: Tensor, right: Tensor) -> Tensor:
    """Mean of relu(cos - 0.95)² over drawn pairs of rows, so that none collapse into one. [k, d] each"""
    return F.relu(F.cosine_similarity(left, right, dim=1) - CLOSE).square().mean()

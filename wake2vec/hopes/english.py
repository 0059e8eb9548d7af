"""No forgetting: what ordinary English costs, and how far each prediction of it is from the published model's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from wake2vec.data.blocks import IGNORED
from wake2vec.data.control import WINDOW, Register
from wake2vec.data.control import registers as bundled
from wake2vec.data.corpus import open_corpus
from wake2vec.hopes.context import compared
from wake2vec.hopes.reader import AT_ONCE, Subject
from wake2vec.hopes.resampling import Doubles, ratio_interval
from wake2vec.model.split_vocabulary import SplitHead
from wake2vec.phases.inputs import input_paths
from wake2vec.show.hopes import Figure, Hope

LOGIT_BYTES = 32 << 20  # of one matrix of them
MOST_BYTES = 32 << 10  # of a control that is read
ENOUGH = 30_000  # bytes


def registers(subject: Subject) -> dict[str, Register]:
    """Those that come with the program, and the controls that the job names."""
    roles = [item for item in subject.order.inputs if item.role == "control"]
    paths = input_paths(subject.order, "control")
    own = {item.name: open_corpus([path]).text()[:MOST_BYTES] for item, path in zip(roles, paths, strict=True)}
    return bundled() | {name: Register(text, "named by the job") for name, text in own.items()}


def english(subject: Subject) -> Iterator[Figure | str]:
    length = min(subject.order.training.data.seq_len, WINDOW)
    for name, register in registers(subject).items():
        text = register.text
        found = [reader.over_bytes([text], length) for reader in (subject.trained, subject.untouched)]
        yield compared(Hope.ENGLISH, name, found[0][0], found[1][0], found[0][1] & found[1][1])
        yield from apart(subject, name, text, length)
        yield which(name, register)


def which(name: str, register: Register) -> str:
    """Figures of two jobs are of one text where this is the same."""
    body = register.text.encode()
    few = "" if len(body) >= ENOUGH else ", few for an interval"
    return f"{name}: {register.source}; {len(body):,} bytes{few}, sha256 {hashlib.sha256(body).hexdigest()[:12]}."


def apart(subject: Subject, name: str, text: str, length: int) -> Iterator[Figure]:
    """KL of each token from the published model to the trained one, and how far the body's last states have turned."""
    base, trained = subject.untouched, subject.trained
    cut = base.windows([text], length)
    divergence, to_new, cosine, swapped, size = (list[float]() for _ in range(5))
    many = max(1, AT_ONCE // length)
    for first in range(0, len(cut.inputs), many):
        part = slice(first, first + many)
        asked = torch.from_numpy(cut.targets[part] != IGNORED)
        was, now = (reader.hidden(cut.inputs[part]) for reader in (base, trained))
        kl, new = (sums.view(asked.shape) for sums in divergence_of(was, base.head, now, trained.head))
        near = torch.cosine_similarity(was.float(), now.float(), dim=-1).cpu()
        other = torch.cosine_similarity(was.float(), now.float().roll(1, dims=1), dim=-1).cpu()
        for values, into in ((kl, divergence), (new, to_new), (near, cosine), (other, swapped)):
            into += (values * asked).sum(1).tolist()
        size += asked.sum(1).tolist()
    tokens = np.array(size, dtype=np.float64)

    def one(hope: Hope, key: str, title: str, sums: Sequence[float], null: float, said: str) -> Figure:
        per_window = np.array(sums, dtype=np.float64)
        low, high = ratio_interval(per_window, tokens)
        return Figure(
            hope=hope, key=f"{key}.{name}", name=f"{name}, {title}", value=mean(per_window, tokens), low=low, high=high,
            null=null, of=len(tokens), unit="windows", text=said,
        )  # fmt: skip

    yield one(
        Hope.ENGLISH, "kl", "KL, nats/token", divergence, 0.0, "from the published model, over the whole vocabulary"
    )
    yield one(Hope.ENGLISH, "kl_new", "of it to new words", to_new, 0.0, "what new words take of each probability")
    chance = mean(np.array(swapped), tokens)
    said = "cosine with the published model's for the same token; by chance: for the token before"
    yield one(Hope.GEOMETRY, "states", "last states", cosine, chance, said)


def mean(sums: Doubles, tokens: Doubles) -> float:
    return float(sums.sum() / max(1.0, tokens.sum()))


@torch.no_grad()
def divergence_of(was: Tensor, published: SplitHead, now: Tensor, trained: SplitHead) -> tuple[Tensor, Tensor]:
    """KL of each token, and what of it is probability that went to new ids; [w * L] fp32 on the host each.

    KL(p | q) = KL(p | q over base ids alone) - log(what q leaves to base ids), as p has nothing elsewhere.
    """
    was, now = was.flatten(0, 1), now.flatten(0, 1)
    rows, found = max(1, LOGIT_BYTES // (4 * trained.out_features)), []
    for first in range(0, len(was), rows):
        p = log_probabilities(published, was[first : first + rows])
        q = log_probabilities(trained, now[first : first + rows])[:, : p.shape[1]]
        found.append(torch.stack([(p.exp() * (p - q)).sum(1), -q.logsumexp(1)]).cpu())
    kl, new = torch.cat(found, dim=1)
    return kl, new


def log_probabilities(head: SplitHead, hidden: Tensor) -> Tensor:
    """[tokens, d] -> [tokens, V] fp32"""
    logits = head(hidden).float() * head.factor
    if head.softcap is not None:
        logits = torch.tanh(logits / head.softcap) * head.softcap
    return logits.log_softmax(-1)

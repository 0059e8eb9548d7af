"""Whether ranks that train the same still hold the same."""

from __future__ import annotations

import torch

from wake2vec.contract.errors import RankLost
from wake2vec.phases.base import Prepared
from wake2vec.train.ranks.team import Digest, Team


@torch.no_grad()
def digest(prepared: Prepared) -> list[float]:
    """Sums over what trains: ranks that have drifted apart differ in them."""
    sums = [tensor.detach().double().sum() for _, tensor in sorted(prepared.trainable.items())]
    return list(torch.stack(sums).tolist())


def require_one_state(team: Team, prepared: Prepared, step: int) -> None:
    """Raises RankLost where the ranks have drifted apart: every update is the same on all of them, to the bit."""
    if team.size > 1:
        first, *others = team.do(Digest(), lambda: digest(prepared))
        if any(sums != first for sums in others):
            raise RankLost(f"after step {step} the ranks hold different weights")

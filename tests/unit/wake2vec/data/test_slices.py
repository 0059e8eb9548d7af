"""What of a step goes through the model at once."""

from __future__ import annotations

import torch

from wake2vec.data.slices import pieces


def test_blocks_cut_in_place_keep_every_target_in_order() -> None:
    inputs, targets = torch.arange(24).view(2, 12), torch.arange(1, 25).view(2, 12)

    cut = pieces(inputs, targets, torch.tensor([7, 8]), 3)

    assert torch.equal(torch.cat([piece.targets for piece in cut], dim=1), targets)
    assert [int(piece.offsets[0]) for piece in cut] == [0, 4, 8]
    assert all(piece.samples.tolist() == [7, 8] for piece in cut)

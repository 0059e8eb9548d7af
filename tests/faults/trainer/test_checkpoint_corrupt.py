"""G1, G9: a checkpoint that was cut, flipped, swapped or partly deleted is never loaded; the one before is."""

from tests.faults.apart import run_apart
from tests.faults.protocols.store import budget


def test_every_damage_is_found_named_and_passed_over():
    figures = run_apart("trainer", "damaged_checkpoints", flips=budget(1000, 40), seed=1)

    assert figures["runs"] > 160
    assert (figures["wrong"], figures["unnamed"]) == (0, 0), figures

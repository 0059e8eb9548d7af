"""G1, G10: whatever becomes of a store behind the runner's back, no word about what is safe is false."""

from tests.faults.protocols.claims import store_goes_away
from tests.faults.protocols.store import budget


def test_nothing_is_claimed_that_a_fresh_home_cannot_confirm():
    found = store_goes_away(budget(216, 12), seed=1)

    assert found["claims"] > 0
    assert found["noticed"] > 0
    assert (found["false_claims"], found["unstartable"]) == (0, 0), found["details"]

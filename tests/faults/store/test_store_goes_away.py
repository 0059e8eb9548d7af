"""G1, G10: whatever becomes of a store behind the runner's back, no word about what is safe is false."""

import pytest

from tests.faults.protocols.claims import store_goes_away
from tests.faults.protocols.store import budget


# six runs meet every kind of store, moment and part; all ways of them to come together are a sweep
@pytest.mark.parametrize(
    ("runs", "stride"), [(6, 7), pytest.param(budget(216, 36), 1, marks=pytest.mark.sweep)], ids=["some", "all"]
)
def test_nothing_is_claimed_that_a_fresh_home_cannot_confirm(runs, stride):
    found = store_goes_away(runs, seed=1, stride=stride)

    assert found["claims"] > 0
    assert found["noticed"] > 0
    assert (found["false_claims"], found["unstartable"]) == (0, 0), found["details"]

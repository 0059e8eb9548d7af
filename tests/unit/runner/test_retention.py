"""Which checkpoints may be deleted."""

from hypothesis import given
from hypothesis import strategies as st

from runner.retention import Keep, deletable_here, deletable_in_store, kept_for_good

steps = st.sets(st.integers(1, 40).map(lambda number: number * 10), max_size=20)
keeps = st.builds(
    Keep,
    best=st.none() | st.integers(1, 40).map(lambda number: number * 10),
    sources=st.frozensets(st.integers(1, 40).map(lambda number: number * 10), max_size=3),
    every_steps=st.just(20),
    milestones=st.integers(0, 4),
    last_step=st.none() | st.just(400),
)


@given(steps, keeps)
def test_the_store_never_loses_its_newest_two_nor_what_is_kept_for_good(durable, keep):
    gone = set(deletable_in_store(durable, keep))

    assert gone <= durable
    assert not gone & set(sorted(durable)[-2:])
    assert not any(kept_for_good(step, keep) for step in gone)


@given(steps, steps, keeps)
def test_this_machine_never_loses_its_newest_two_nor_the_newest_durable_nor_the_only_copy_of_what_is_kept(
    saved, durable, keep
):
    gone = set(deletable_here(sorted(saved), durable, keep))

    assert gone <= saved
    assert not gone & set(sorted(saved)[-2:])
    assert max(durable, default=None) not in gone
    assert not any(kept_for_good(step, keep) and step not in durable for step in gone)
    assert keep.best not in gone


def test_every_second_milestone_is_kept_when_asked_for():
    keep = Keep(every_steps=200, milestones=2)

    assert deletable_in_store([200, 250, 400, 600, 800, 950, 1000], keep) == [200, 250, 600]


def test_without_more_the_last_two_and_the_best_are_kept():
    assert deletable_in_store([200, 400, 600, 800], Keep(best=200)) == [400]

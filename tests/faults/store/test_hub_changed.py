"""G1 and G11 with the store on a hub that a person, or the hub itself, changes in the middle of a job.

Whatever was called durable at any moment is found by a home that knows the address alone.
"""

import random
import time

import pytest

from runner.errors import StoreLost
from runner.queue import checkpoints
from runner.store.hub.store import HubStore
from runner.store.publish import fetch_checkpoint
from runner.store.records import is_done, newest_commit
from runner.store.root import jobs, open_job, open_root
from tests.faults.world import World, expected_weights, fake_spec, wait_until
from tests.hub import running_hub

REPO = "me/wake-store"
STEPS = 120  # four seconds: time to strike in the middle, on a machine that does much else
PACE = {"seconds_per_step": 0.035, "save_every": 10}


@pytest.fixture
def hub():
    with running_hub() as hub:
        hub.tokens = dict(MAY)
        yield hub


@pytest.fixture
def world(tmp_path, hub, monkeypatch):
    for name, value in {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_me", "HF_HUB_OFFLINE": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    world = World(tmp_path, url=f"hub:{REPO}")
    yield world
    world.close()


def begun(world, steps=STEPS):
    """A daemon that has something durable."""
    world.add(fake_spec(steps=steps, every=40))
    daemon = world.start(told=PACE)
    wait_until(lambda: world.durable_step() >= 20, what="a durable checkpoint")
    return daemon


def finished(world, hub, daemon):
    assert world.wait(daemon) == 0, world.output()
    assert world.weights() == expected_weights("print-a", STEPS)
    step, is_over = in_the_store(world, hub)
    assert (step, is_over) == (STEPS, True)


def in_the_store(world, hub):
    """What a home finds that knows the address alone: the newest checkpoint, whole, and whether the job is over."""
    store = HubStore(REPO, endpoint=hub.url, token="hf_me")
    root = open_root(store, holder="judge", may_begin=False)
    log = open_job(root, jobs(root.records)["a"])
    newest = newest_commit(log.records)
    fetch_checkpoint(store, newest, world.root / "judged" / f"{time.monotonic()}")
    return newest.commit.step, is_done(log.records)


def trouble(world):
    with world.queue() as queue:
        return checkpoints.log_state(queue, "a").problem


MAY, MAY_READ, MAY_NOT = ({"hf_me": may} for may in ({"read", "write"}, {"read"}, set()))


@pytest.mark.parametrize(
    ("tokens", "refuse", "said"),
    [
        pytest.param(MAY_READ, {}, "may not do that there", marks=pytest.mark.sweep),
        pytest.param(MAY_NOT, {}, "does not know this token", marks=pytest.mark.sweep),
        pytest.param(MAY, {"/preupload/": 403}, "make room on the hub", marks=pytest.mark.sweep),
        (MAY, {"/lfs/objects/batch": 403}, "make room on the hub"),
    ],
    ids=["token may only read", "token revoked", "quota full", "quota full at the bytes"],
)
def test_what_the_hub_refuses_is_waited_for_and_nothing_is_claimed_meanwhile(world, hub, tokens, refuse, said):
    hub.words = "Private repository storage limit reached, please upgrade your plan to increase it."
    daemon = begun(world)
    hub.tokens, hub.refuse = dict(tokens), dict(refuse)

    wait_until(lambda: said in trouble(world), what=f"'{said}' in what status shows")
    claimed = world.durable_step()
    time.sleep(1.0)
    assert world.durable_step() == claimed
    hub.tokens, hub.refuse = dict(MAY), {}

    assert in_the_store(world, hub)[0] >= claimed
    finished(world, hub, daemon)


def test_a_repository_that_is_made_public_gets_nothing_more(world, hub):
    begun(world, steps=4 * STEPS)  # the root is looked at once a minute
    store = hub.stores[REPO]
    store.is_private = False

    wait_until(lambda: "can be read by everybody" in trouble(world), what="a word about it")
    known = len(store.blobs)
    time.sleep(1.0)
    assert len(store.blobs) == known
    store.is_private = True
    wait_until(lambda: trouble(world) == "", what="the end of it")
    assert in_the_store(world, hub)[0] >= world.durable_step() - 10


def test_a_history_that_is_squashed_again_and_again_loses_nothing(world, hub):
    daemon, store = begun(world), hub.stores[REPO]
    draw = random.Random(0)
    while daemon.poll() is None and world.durable_step() < STEPS:
        store.squash()
        time.sleep(draw.random())

    finished(world, hub, daemon)


@pytest.mark.parametrize(
    "kind", ["object", *(pytest.param(one, marks=pytest.mark.sweep) for one in ("head", "gitattributes", "readme"))]
)
def test_files_that_are_deleted_on_the_web_page_are_brought_back_or_not_needed(world, hub, kind):
    daemon, store = begun(world), hub.stores[REPO]
    parts = {"object": "jobs/a/checkpoints/", "head": "head.", "gitattributes": ".gitattributes", "readme": "README"}
    if kind == "readme":
        header = {"key": "header", "value": {"summary": "Create README.md"}}
        store.commit([header, {"key": "file", "value": {"path": "README.md", "content": "aGk="}}])
    for path in sorted(path for path in store.files if parts[kind] in path):
        store.remove(path)

    finished(world, hub, daemon)


def test_a_force_push_of_an_older_state_is_said_and_no_step_of_it_counts(world, hub):
    daemon, store = begun(world), hub.stores[REPO]
    wait_until(lambda: world.durable_step() >= 60, what="more durable checkpoints")
    store.rewind(len(store.commits) // 2)

    assert world.wait(daemon) == StoreLost.exit_code, world.output()
    assert "what is there is older" in world.output() or "gone" in world.output()


def test_an_hour_that_the_hub_asks_for_is_not_waited_out_in_silence(world, hub):
    world.numbers["grace_seconds"] = 2.0  # to leave in, with a hub that takes nothing
    daemon, store = begun(world), hub.stores[REPO]
    store.limit_headers = {"Retry-After": "3600"}
    store.commits_an_hour = 0

    wait_until(lambda: "rate limit for repository commits" in trouble(world), what="a word about it")
    wait_until(lambda: world.step() == STEPS, what="training to its end")
    assert world.durable_step() < STEPS
    daemon.terminate()
    assert world.wait(daemon) != 0
    store.commits_an_hour = None

    daemon = world.start(told=PACE)
    finished(world, hub, daemon)

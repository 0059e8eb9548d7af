"""The store on the Hugging Face Hub: the shared suite on a loopback hub, its limits, and what it refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.errors import RunnerError, SignInNeeded, StoreBusy, StoreFull, StoreLost, StoreUnavailable
from runner.store.hub.store import HubStore, open_hub
from runner.store.lease import Watch, acquire
from runner.store.log import Log
from runner.store.open import open_store
from runner.store.publish import fetch_checkpoint, publish_checkpoint, publish_files
from runner.store.records import Genesis, commits
from runner.store.retry import Backoff, RetryingStore
from runner.store.root import add_job, open_root
from tests.hub import Hub, running_hub
from tests.hub_repository import Repository
from tests.unit.runner.store.suite import NAME, Open, StoreSuite, checkpoint, stored, written
from wake2vec.contract.files import digest_file

REPO = "me/wake-store"
RECORD = "jobs/q/log/000001.*.json"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def reach(hub: Hub) -> Open:
    return lambda: HubStore(REPO, endpoint=hub.url, token="hf_me")


@pytest.fixture
def begun(hub: Hub, reach: Open) -> HubStore:
    store = reach()
    assert isinstance(store, HubStore)
    assert store.create(store.root_id(), b"root", name="log/000000.json")
    return store


@pytest.fixture
def repository(hub: Hub, begun: HubStore) -> Repository:
    return hub.stores[REPO]


class TestHubStore(StoreSuite):
    @pytest.fixture
    def open_store(self, reach: Open, begun: HubStore) -> Open:
        return reach

    @pytest.fixture
    def damage(self, repository: Repository) -> Callable[[str], None]:
        def flip(id: str) -> None:
            sha256 = repository.files[id].sha256
            repository.blobs[sha256] = b"\0" + repository.blobs[sha256][1:]

        return flip


class TestHubStoreInAFolder(TestHubStore):
    @pytest.fixture
    def reach(self, hub: Hub) -> Open:
        return lambda: HubStore(REPO, "deep/down", endpoint=hub.url, token="hf_me")

    @pytest.fixture
    def damage(self, repository: Repository) -> Callable[[str], None]:
        def flip(id: str) -> None:
            sha256 = repository.files[f"deep/down/{id}"].sha256
            repository.blobs[sha256] = b"\0" + repository.blobs[sha256][1:]

        return flip


def test_the_root_record_makes_a_private_repository(begun: HubStore, repository: Repository) -> None:
    assert repository.is_private
    assert "jobs/*/checkpoints/** filter=lfs" in (repository.files[".gitattributes"].body or b"").decode()


def test_nothing_but_the_root_record_makes_it(hub: Hub, reach: Open, tmp_path: Path) -> None:
    store = reach()

    assert store.read(store.root_id()) is None
    assert store.stat(store.root_id()) is None
    assert list(store.find("jobs")) == []
    for write in (
        lambda: stored(store, tmp_path / "in", b"x"),
        lambda: store.create(store.new_ids([RECORD])[0], b"x", name=RECORD),
        lambda: store.delete("jobs/x"),
    ):
        with pytest.raises(StoreLost, match="no such repository"):
            write()
    assert not hub.stores


def test_files_that_belong_together_are_one_commit_and_go_in_one(
    begun: HubStore, repository: Repository, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path, 200)
    paths = {path.name: path for path in folder.iterdir()}
    before = len(repository.commits)

    digests = {name: digest_file(path) for name, path in paths.items()}
    files = publish_files(begun, paths, digests, folder="jobs/q/checkpoints/c", known={}, journal=tmp_path / "journal")

    assert len(files) == len(paths) > 3
    assert len(repository.commits) == before + 1
    begun.delete(*(file.id for file in files.values()))
    assert len(repository.commits) == before + 2
    assert not repository.blobs  # a commit alone would have left them in the history


def test_bytes_that_another_path_needs_stay_and_are_not_sent_twice(
    begun: HubStore, hub: Hub, repository: Repository, tmp_path: Path
) -> None:
    first, digest = stored(begun, tmp_path / "in", b"riverrun")
    second, _ = stored(begun, tmp_path / "in", b"riverrun")
    assert hub.uploads == 1

    begun.delete(first)

    begun.get(second, tmp_path / "out", digest=digest)
    assert (tmp_path / "out").read_bytes() == b"riverrun"


def test_what_was_put_must_be_there_and_not_only_be_named(
    begun: HubStore, repository: Repository, tmp_path: Path
) -> None:
    id, _ = stored(begun, tmp_path / "in", b"riverrun")
    repository.blobs.clear()

    with pytest.raises(RunnerError):
        begun.put(tmp_path / "in", id=id, name=NAME, digest=digest_file(tmp_path / "in"))


def test_a_record_has_one_author_while_others_commit(reach: Open, begun: HubStore, tmp_path: Path) -> None:
    stop = threading.Event()

    def other() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            stored(reach(), tmp_path / "other", b"%d" % number)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        ids = begun.new_ids([f"jobs/q/log/{number:06d}.*.json" for number in range(8)])
        clients = [RetryingStore(reach(), sleep=lambda _: None) for _ in range(2)]
        won = [[client.create(id, b"%d" % number, name=RECORD) for number, client in enumerate(clients)] for id in ids]
    finally:
        stop.set()
        thread.join()
    assert won == [[True, False]] * 8


@pytest.mark.parametrize(("header", "seconds"), [({}, 300), ({"Retry-After": "77"}, 77)])
def test_the_limit_of_commits_an_hour_is_waited_for(
    begun: HubStore, hub: Hub, repository: Repository, header: dict[str, str], seconds: float
) -> None:
    repository.commits_an_hour = len(repository.made_at)
    repository.limit_headers = header

    with pytest.raises(StoreBusy, match="rate limit for repository commits") as found:
        begun.create(begun.new_ids([RECORD])[0], b"x", name=RECORD)

    assert found.value.retry_after_seconds == seconds


def test_whatever_calls_fail_every_checkpoint_counts_once(hub: Hub, begun: HubStore, tmp_path: Path) -> None:
    begun.delete(begun.root_id())
    patient = RetryingStore(begun, backoff=Backoff(give_up_seconds=float("inf")), sleep=lambda _: None)
    hub.rate = 0.2
    log = add_job(open_root(patient, holder="a"), "q", Genesis(fingerprint="f"))
    lease = acquire(log, Watch(), at=0.0)
    for step in range(1, 6):
        folder = checkpoint(tmp_path, step)
        publish_checkpoint(patient, log, folder, epoch=lease.epoch, kind="rolling", journal=tmp_path / "journal")
        lease.beat()
    hub.rate = 0.0

    found = commits(Log.open(begun, log.first_id, holder="judge").records)
    assert [one.commit.step for one in found] == [1, 2, 3, 4, 5]
    fetch_checkpoint(begun, found[-1], tmp_path / "back")
    named = {file.id for one in found for file in one.files.values()}
    assert {stat.id for stat in begun.find("jobs/q/checkpoints")} == named


def test_silence_is_told_by_the_clock_of_the_hub(begun: HubStore) -> None:
    silence = begun.silence(begun.root_id())

    assert silence is not None
    assert -2 < silence < 60


def test_a_repository_that_was_renamed_is_found(hub: Hub, begun: HubStore, tmp_path: Path) -> None:
    hub.stores["me/renamed"] = hub.stores.pop(REPO)
    hub.names[REPO] = "me/renamed"

    id, digest = stored(begun, tmp_path / "in", b"riverrun")
    begun.get(id, tmp_path / "out", digest=digest)

    assert begun.read(begun.root_id()) == b"root"
    assert begun.create(begun.new_ids([RECORD])[0], b"x", name=RECORD)


@pytest.mark.parametrize("what", ["create", "read_head", "swap_head", "delete"])
def test_a_history_that_is_squashed_in_the_middle_of_a_call_is_no_loss(
    begun: HubStore, repository: Repository, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Between the head that was read and what is looked up in it."""
    [head, record] = begun.new_ids(["head.*.json", RECORD])
    assert begun.swap_head(head, b"one", None, name="head")
    body, tag = begun.read_head(head) or pytest.fail("no head")
    whole = begun._repository.head
    squashed: list[str] = []

    def raced() -> str:
        found = whole()
        if not squashed:
            repository.squash()
            squashed.append(found)
        return found

    monkeypatch.setattr(begun._repository, "head", raced)
    store = RetryingStore(begun, sleep=lambda _: None)

    if what == "create":
        assert store.create(record, b"x", name=RECORD)
    elif what == "read_head":
        assert (store.read_head(head) or (b"", ""))[0] == body
    elif what == "swap_head":  # tags move with it: read again, as everywhere
        assert not store.swap_head(head, b"two", tag, name="head")
        assert store.swap_head(head, b"two", (store.read_head(head) or (b"", ""))[1], name="head")
    else:
        store.delete(head)
        assert store.stat(head) is None
    assert squashed


class TestRefusals:
    def test_a_token_that_the_hub_does_not_know(self, hub: Hub, begun: HubStore) -> None:
        hub.tokens["hf_other"] = {"read", "write"}

        with pytest.raises(SignInNeeded, match="set HF_TOKEN"):
            begun.stat(begun.root_id())

    def test_a_token_that_may_only_read(self, hub: Hub, begun: HubStore) -> None:
        hub.tokens["hf_me"] = {"read"}

        assert begun.read(begun.root_id()) == b"root"
        with pytest.raises(SignInNeeded, match="write access"):
            begun.create(begun.new_ids([RECORD])[0], b"x", name=RECORD)

    def test_a_name_that_is_not_ours(self, hub: Hub, reach: Open) -> None:
        hub.tokens["hf_me"] = {"read"}

        with pytest.raises(SignInNeeded, match="rights to create"):
            reach().create("log/000000.json", b"x", name="log/000000.json")

    @pytest.mark.parametrize("said", ["Private repository storage limit reached", "Your storage patterns tripped"])
    def test_a_full_quota(self, hub: Hub, begun: HubStore, tmp_path: Path, said: str) -> None:
        hub.refuse["/preupload/"], hub.words = 403, said

        with pytest.raises(StoreFull, match="make room on the hub"):
            stored(begun, tmp_path / "in", b"x")

    def test_a_repository_that_everybody_can_read(self, hub: Hub, reach: Open) -> None:
        hub.stores[REPO] = Repository(is_private=False)

        with pytest.raises(StoreUnavailable, match="make it private"):
            reach().create("log/000000.json", b"x", name="log/000000.json")

    def test_a_repository_that_was_made_public_since(self, begun: HubStore, repository: Repository) -> None:
        repository.is_private = False

        with pytest.raises(StoreUnavailable, match="make it private"):
            begun.stat(begun.root_id())

    def test_a_repository_that_holds_something_else(self, hub: Hub, begun: HubStore, reach: Open) -> None:
        begun.create("data.csv", b"theirs", name="x")
        begun.delete(begun.root_id())

        with pytest.raises(StoreUnavailable, match=r"holds something else \(data.csv\)"):
            reach().create("log/000000.json", b"x", name="log/000000.json")

    def test_a_repository_that_was_deleted_is_not_made_anew(self, hub: Hub, begun: HubStore, tmp_path: Path) -> None:
        hub.stores.clear()

        assert begun.stat(begun.root_id()) is None
        with pytest.raises(StoreLost, match="no such repository"):
            stored(begun, tmp_path / "in", b"x")

    @pytest.mark.parametrize("rest", ["me", "me/", "me/a b", "/"])
    def test_an_address_that_is_none(self, rest: str) -> None:
        with pytest.raises(RunnerError, match="hub:USER/REPO"):
            open_hub(rest, {})

    def test_a_hub_that_is_away(self, tmp_path: Path) -> None:
        with pytest.raises(StoreBusy):
            HubStore(REPO, endpoint="http://127.0.0.1:9").stat("log/000000.json")


def test_the_address_is_opened(hub: Hub, tmp_path: Path) -> None:
    store = open_store(f"hub:{REPO}", tmp_path, environ={"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_me"})

    assert store.properties.place == f"hub:{REPO}"
    assert store.read(store.root_id()) is None


def test_a_changed_file_is_not_taken_for_the_one_before(begun: HubStore, tmp_path: Path) -> None:
    """An empty file has no LFS blob: git's own hash tells it."""
    source, digest = written(tmp_path / "in", b"")
    [id] = begun.new_ids([NAME])

    for _ in range(2):
        begun.put(source, id=id, name=NAME, digest=digest)

    assert (begun.stat(id) or pytest.fail("not there")).size == 0

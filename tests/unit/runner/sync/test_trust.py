"""A store that is not what this home knows: noticed before anything counts, said once, and put back when agreed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from runner.commands.rebuild import run as rebuild_command
from runner.commands.repair import run as repair_command
from runner.daemon.ending import last_code, unread
from runner.errors import Loss, NotStored, StoreLost
from runner.machine.home import only_daemon
from runner.queue import checkpoints, ledger
from runner.screen.daemon_note import read_lost
from runner.settings import Settings
from runner.store.drive.store import open_drive
from runner.store.drive.transfer import Throttle
from runner.store.known import KnownLogs
from runner.store.log import Log
from runner.store.presence import check_walk, missing
from runner.store.records import commits
from runner.store.root import add_entry, open_root
from runner.store.root import jobs as entries_of
from runner.sync.fetch import fetch_result
from runner.sync.loop import release_all
from runner.sync.mend import repair
from runner.sync.trust import confirm, unconfirmed
from tests.drive_server.server import DriveServer
from tests.simulated import CORPUS, Clock, Home
from tests.unit.runner.conftest import job_spec


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def home(tmp_path, clock, store):
    home = Home.new(tmp_path / "home", store, clock)
    home.add(job_spec("a", steps=60, checkpoint={"every_steps": 20}))
    home.until(lambda: home.trainers.living)
    home.train(10)
    home.rounds(2)
    yield home
    home.queue.close()


def a_minute(home):
    home.rounds(3, seconds=30.0)


def lost_events(home):
    return [event.text for event in ledger.list_events(home.queue, limit=1000) if event.kind == "lost"]


def train_to_the_end(home):
    for _ in range(40):
        if home.trainers.living:
            home.train(20)
        home.rounds(1, seconds=10.0)
        if home.state() == "succeeded" and checkpoints.log_state(home.queue, "a").done_at:
            return
    raise AssertionError(f"{home.state()}: {home.problem()}")


def fresh(home, tmp_path, store):
    return Home.new(tmp_path / "fresh", store, home.clock)


def test_a_deleted_store_is_noticed_within_a_minute_and_never_made_anew(home, store):
    shutil.rmtree(store)
    a_minute(home)
    home.train(10)
    a_minute(home)

    assert home.daemon.lost[""].loss is Loss.GONE
    assert home.durable() == 10
    assert not store.exists()


def test_the_loss_is_said_once_with_what_this_home_holds(home, store):
    shutil.rmtree(store)
    a_minute(home)
    a_minute(home)

    [said] = lost_events(home)
    assert "root record is gone" in said
    assert "`wake2vec-runner repair`" in said
    assert "a at step 10" in said
    assert [note.loss for note in read_lost(home.folder)] == ["gone"]


def test_what_another_home_pruned_behind_its_own_checkpoints_is_not_called_lost(home, store, tmp_path):
    home.end_trainer(None)
    other = fresh(home, tmp_path, store)
    other.daemon.take_over = True
    other.until(lambda: other.trainers.living)
    for _ in range(3):
        other.train(10)
        other.rounds(2)
    [first] = [one for one in commits(home.context.opened["a"].records) if one.commit.step == 10]
    assert missing(other.context.store, first)

    a_minute(home)

    assert lost_events(home) == []
    assert home.durable() == 0  # what it had brought counts no more; the log knows what the other one brought
    other.queue.close()


def test_training_goes_on_while_the_store_is_away(home, store):
    shutil.rmtree(store)
    a_minute(home)
    home.train(10)
    home.rounds(1)

    assert home.trainer.step == 20
    assert home.state() == "running"


def test_a_store_that_comes_back_gets_what_waited(home, store, tmp_path):
    store.rename(tmp_path / "aside")
    store.mkdir()
    a_minute(home)
    home.train(10)
    a_minute(home)
    store.rmdir()
    (tmp_path / "aside").rename(store)
    a_minute(home)

    assert home.daemon.lost == {}
    assert read_lost(home.folder) == []
    assert home.durable() == 20


def test_a_restart_after_the_store_went_away_says_so(home, store):
    home.queue.close()
    shutil.rmtree(store)

    with pytest.raises(StoreLost, match="root record is gone"):
        home.start_daemon()

    assert not store.exists()


def test_an_older_copy_of_the_store_is_not_taken_for_the_store(home, store, tmp_path):
    shutil.copytree(store, tmp_path / "older")
    home.train(10)
    a_minute(home)
    shutil.rmtree(store)
    (tmp_path / "older").rename(store)
    a_minute(home)

    assert home.daemon.lost["a"].loss is Loss.OLDER


def test_another_store_at_the_same_place_is_not_taken_for_it(home, store, tmp_path, clock):
    shutil.rmtree(store)
    Home.new(tmp_path / "stranger", store, clock).queue.close()
    a_minute(home)

    assert home.daemon.lost[""].loss is Loss.OTHER


def test_a_job_whose_folder_was_deleted_is_lost_alone(home, store):
    shutil.rmtree(store / "jobs/a")
    a_minute(home)

    assert set(home.daemon.lost) == {"a"}
    assert "is gone" in home.problem()


def test_a_text_that_was_deleted_is_named(home, store):
    [path] = [path for path in (store / "inputs").rglob("*") if path.is_file()]
    path.unlink()
    a_minute(home)

    assert home.daemon.lost["a"].loss is Loss.TORN
    assert CORPUS.sha256 in home.daemon.lost["a"].problem


def test_a_checkpoint_that_was_deleted_is_brought_there_again(home, store, tmp_path):
    shutil.rmtree(store / "jobs/a/checkpoints")
    a_minute(home)

    assert home.daemon.lost == {}
    assert home.durable() == 10
    assert any("it is brought there again" in text for text in lost_events(home))
    other = fresh(home, tmp_path, store)
    assert other.durable() == 10
    other.queue.close()


def test_a_home_of_before_learns_the_store_that_has_its_jobs(home, store):
    home.queue.close()
    shutil.rmtree(home.folder / "stores")  # as 0.1.0 left it
    home.start_daemon()
    home.rounds(2)

    assert KnownLogs(home.folder, str(store)).read("") is not None
    assert home.daemon.lost == {}


def test_a_home_of_before_does_not_begin_a_root_where_its_jobs_should_be(home, store):
    home.queue.close()
    shutil.rmtree(home.folder / "stores")
    shutil.rmtree(store)

    with pytest.raises(StoreLost):
        home.start_daemon()


def test_a_rebuild_of_the_database_begins_no_root_either(home, store):
    home.queue.close()
    shutil.rmtree(store)

    with pytest.raises(StoreLost):
        rebuild_command(Settings(home=home.folder, store_url=f"dir:{store}"))
    assert not store.exists()


def test_a_new_home_begins_no_root_beside_the_jobs_of_another(home, store, tmp_path, clock):
    (store / "log/000000.json").unlink()

    with pytest.raises(StoreLost):
        Home.new(tmp_path / "other", store, clock)


@pytest.mark.parametrize("gone", ["", "jobs/a", "jobs/a/log", "inputs", "log"])
def test_a_repair_brings_back_what_a_fresh_home_goes_on_from(home, store, tmp_path, gone):
    shutil.rmtree(store / gone)
    a_minute(home)
    said: list[str] = []

    repair(home.context, home.now, said.append, agreed=True)
    release_all(home.context, home.now)
    other = fresh(home, tmp_path, store)
    other.daemon.take_over = True
    other.until(lambda: other.trainers.living)

    assert said
    assert other.trainer.step == 10
    other.queue.close()


def test_without_a_yes_a_repair_changes_nothing(home, store):
    shutil.rmtree(store)
    a_minute(home)
    said: list[str] = []

    assert repair(home.context, home.now, said.append, agreed=False) == 1
    assert "checkpoint 10" in said[-1]
    assert not store.exists()


def test_a_job_that_was_over_is_put_back_with_its_result(home, store, tmp_path):
    train_to_the_end(home)
    shutil.rmtree(store)
    a_minute(home)

    repair(home.context, home.now, lambda text: None, agreed=True)
    other = fresh(home, tmp_path, store)
    fetch_result(other.context, other.job(), "final", home.now)

    assert json.loads((other.run().final / "weights.json").read_text())["step"] == 60
    other.queue.close()


def test_what_cannot_be_seen_at_the_end_is_not_called_safe(home, store):
    shutil.rmtree(store / "jobs/a")

    assert list(unconfirmed(home.context, home.now)) == ["a"]


def test_the_name_of_a_job_whose_folder_was_deleted_can_be_used_again(home, store, tmp_path, clock):
    train_to_the_end(home)
    shutil.rmtree(store / "jobs/a")
    other = Home.new(tmp_path / "other", store, clock)
    other.add(job_spec("a", steps=60), fingerprint="another")
    other.rounds(3)

    assert other.trainers.living
    assert entries_of(other.context.root_log().records)["a"].job.fingerprint == "another"
    other.queue.close()


def test_texts_are_stored_once_however_often_a_home_starts(home, store):
    for _ in range(3):
        home.kill_daemon()
        home.rounds(2)

    assert len([path for path in (store / "inputs").rglob("*") if path.is_file()]) == 1


def test_a_result_that_was_deleted_is_named_by_whoever_wants_it(home, store, tmp_path):
    train_to_the_end(home)
    for path in store.rglob("weights.json"):
        path.unlink()
    other = fresh(home, tmp_path, store)

    with pytest.raises(NotStored, match=r"final/weights.json;.*--step 60"):
        fetch_result(other.context, other.job(), "final", home.now)
    other.queue.close()


def test_a_record_that_is_gone_from_the_middle_of_a_log_is_noticed(home, store):
    home.train(10)
    a_minute(home)
    sorted((store / "jobs/a/log").iterdir())[1].unlink()
    a_minute(home)

    assert home.daemon.lost["a"].loss is Loss.TORN


def test_a_record_in_the_bin_of_drive_is_noticed_in_the_middle_of_a_log(tmp_path):
    with DriveServer(tmp_path / "google") as server:
        store = open_drive("wake2vec", tmp_path, server.environ(), Throttle())
        root = open_root(store, holder="h")
        log = Log.begin(store, name="jobs/a", kind="GENESIS", payload={}, holder="h")
        add_entry(root, "a", log, "print")
        log.append("LEASE", {}, epoch=1)
        log.append("REGIME", {"what": "x"}, epoch=1)
        check_walk(root, "a", log)
        server.drive.throw_away(log.records[0].next_id)

        with pytest.raises(StoreLost, match="record 1 of jobs/a is in the bin") as lost:
            check_walk(root, "a", log)
    assert lost.value.loss is Loss.BIN


def test_a_new_home_that_cannot_read_a_listed_job_does_not_end_well(home, store, tmp_path):
    shutil.rmtree(store / "jobs/a")
    other = fresh(home, tmp_path, store)

    assert "its folder was deleted there" in unread(other.daemon)["a"]
    assert last_code(0, other.daemon, {}) == StoreLost.exit_code
    other.add(job_spec("a", steps=60), fingerprint="another")
    assert last_code(0, other.daemon, {}) == 0
    other.queue.close()


def test_a_repair_that_is_agreed_beside_a_living_daemon_is_its_to_do(home, store, tmp_path, capsys):
    shutil.rmtree(store)
    a_minute(home)
    with only_daemon(home.folder):
        assert repair_command(Settings(home=home.folder, store_url=f"dir:{store}"), yes=True) == 0
    assert not store.exists()
    a_minute(home)

    assert "the runner that works here puts it back" in capsys.readouterr().out
    assert home.daemon.lost == {}
    other = fresh(home, tmp_path, store)
    other.daemon.take_over = True
    other.until(lambda: other.trainers.living)
    assert other.trainer.step == 10
    other.queue.close()


def test_a_repair_that_finds_nothing_missing_is_not_remembered_for_later(home, store):
    with only_daemon(home.folder):
        repair_command(Settings(home=home.folder, store_url=f"dir:{store}"), yes=True)
    home.rounds(1)
    shutil.rmtree(store)
    a_minute(home)

    assert home.daemon.lost[""].loss is Loss.GONE
    assert not store.exists()


def test_a_commit_costs_few_calls_where_calls_are_dear(home, monkeypatch):
    """The store of this test is a folder that says it is far away."""
    far = replace(type(home.store).properties.fget(home.store), remote=True)
    monkeypatch.setattr(type(home.store), "properties", property(lambda store: far))
    stored = home.context.opened["a"]
    confirm(stored, home.now)
    calls = []
    for name in ("stat", "read", "find"):
        plain = getattr(type(home.store), name)
        monkeypatch.setattr(type(home.store), name, lambda *words, plain=plain: calls.append(words) or plain(*words))

    confirm(stored, home.now, is_sent=True)

    assert len(calls) <= 5


def test_a_log_with_a_record_that_is_gone_is_written_anew(home, store, tmp_path):
    home.train(10)
    a_minute(home)
    sorted((store / "jobs/a/log").iterdir())[1].unlink()
    a_minute(home)
    repair(home.context, home.now, lambda text: None, agreed=True)
    a_minute(home)

    assert home.daemon.lost == {}
    assert unconfirmed(home.context, home.now) == {}

"""What reaches the store, what comes back from it, and who may write to it."""

import os

import pytest

from runner.errors import StoreUnavailable
from runner.queue import attempts, checkpoints, jobs, ledger
from runner.queue.changing import set_value
from runner.queue.ledger import add_regime
from runner.screen.daemon_note import read_upload
from runner.states import Wish
from runner.store.base import Quota
from runner.store.places.directory import DirectoryStore
from runner.store.records import Record, SourceNote, commits, is_done, notes, regimes
from runner.sync.rebuild import past_sessions
from tests.simulated import CORPUS, TEXT, Clock, Home
from tests.unit.runner.conftest import job_spec
from wake2vec.contract.failpoints import VARIABLE
from wake2vec.contract.files import read_json, write_json
from wake2vec.contract.manifest import manifest_sha256, saved_steps
from wake2vec.contract.order import Order


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def home(tmp_path, clock):
    home = Home.new(tmp_path / "home", tmp_path / "store", clock)
    yield home
    home.queue.close()


@pytest.fixture
def other(tmp_path, clock, home):
    other = Home.new(tmp_path / "other", tmp_path / "store", clock)
    yield other
    other.queue.close()


def spec(name="a", steps=100, every=10, **more):
    return job_spec(name, steps=steps, checkpoint={"every_steps": every}, **more)


def running(home, *, to_step=0, **more):
    home.add(spec(**more))
    home.until(lambda: home.trainers.living)
    if to_step:
        home.train(to_step)
        home.rounds(2)


def records(home, name="a"):
    log = home.context.opened[name].log
    log.refresh()
    return log.records


def finish(home, name="a"):
    for _ in range(40):
        if home.trainers.living:
            home.train(50)
        home.rounds(1)
        if home.state(name) == "succeeded":
            return
    raise AssertionError(f"{name} is {home.state(name)}: {home.job(name).reason} {home.problem(name)}")


def test_a_queued_job_is_in_the_store_before_it_ever_runs(home):
    home.add(spec())
    home.sync()

    assert records(home)[0].genesis.fingerprint == "print-a"
    assert list(records(home)[0].genesis.stored_inputs) == [CORPUS.sha256]


def test_a_text_that_two_jobs_share_is_stored_once(home):
    home.add(spec())
    home.add(spec("b"))
    home.sync()

    first, second = (records(home, name)[0].genesis.stored_inputs for name in "ab")
    assert first == second


def test_only_the_newest_of_several_saved_checkpoints_is_uploaded(home):
    running(home)
    for _ in range(3):
        home.train(3)
    home.rounds(2)

    assert [one.commit.step for one in commits(records(home))] == [9]


def test_the_best_checkpoint_is_uploaded_although_newer_ones_exist(home):
    running(home)
    home.train(3)
    write_json(home.run().best, {"step": 3, "loss": 1.0})
    home.train(3)
    home.rounds(2)

    assert [one.commit.step for one in commits(records(home))] == [3, 6]


def test_old_checkpoints_leave_the_disk_and_the_store_and_the_newest_two_stay(home):
    running(home)
    for _ in range(5):
        home.train(4)
        home.rounds(1)
    home.rounds(1)

    assert saved_steps(home.run()) == [20, 16]
    durable = [one.step for one in checkpoints.list_checkpoints(home.queue, "a") if one.durable_at]
    assert durable == [16, 20]
    stored = {path.name.split(".")[0] for path in (home.folder.parent / "store/jobs/a/checkpoints").iterdir()}
    left = [name for name in stored if list((home.folder.parent / "store/jobs/a/checkpoints").glob(f"{name}*/*"))]
    assert sorted(left) == ["checkpoint-16", "checkpoint-20"]


def test_a_lost_home_comes_back_with_its_jobs_and_their_checkpoints(home):
    running(home, to_step=40)
    home.add(spec("held"))
    jobs.set_wish(home.queue, "held", Wish.HOLD, home.clock.now)
    home.rounds(2)
    home.lose()
    home.until(lambda: home.trainers.living)

    assert home.trainer.step == 40
    assert home.state("held") == "held"
    assert home.job("held").reason == "hold on request"
    finish(home)


def test_a_finished_job_comes_back_finished_with_its_ledger(home):
    running(home)
    finish(home)
    home.lose()

    assert home.state() == "succeeded"
    assert len(ledger.list_metrics(home.queue, "a")) == 100
    assert all(segment.done_at for segment in jobs.list_segments(home.queue, "a"))


def test_p2_starts_from_the_best_rows_of_its_source_also_on_another_machine(home):
    running(home)
    home.train(40)
    home.rounds(1)
    write_json(home.run().id_map, {"first_new_id": 7})
    write_json(home.run().best, {"step": 40, "loss": 1.0})
    finish(home)
    best = home.digest(40)
    home.add(spec("b", phase="p2", after="a"))
    home.sync()
    home.lose()
    home.until(lambda: home.trainers.living)

    run = home.run("b")
    source = home.context.opened["b"].noted(SourceNote)
    assert source == SourceNote(job="a", step=40, manifest_sha256=best)
    assert (run.source / "checkpoint-40" / "manifest.json").is_file()
    assert (run.source / "vocab" / "vocab.json").is_file()


def test_p3_stands_on_its_p2_and_on_the_rows_below_it_also_on_another_machine(home):
    running(home)
    write_json(home.run().id_map, {"first_new_id": 7})
    finish(home)
    home.add(spec("b", phase="p2", after="a", rows="final"))
    home.until(lambda: home.trainers.living)
    finish(home, "b")
    home.add(spec("c", phase="p3", after="b", rows="final", morphemes={"groups": "g.jsonl"}))
    home.sync()
    home.lose()
    home.until(lambda: home.trainers.living)

    run = home.run("c")
    order = Order.model_validate(read_json(run.order))
    assert (order.source.job, order.source.rows.job, order.source.rows.folder) == ("b", "a", "source/rows")
    for source in (order.source, order.source.rows):
        folder = run.root / source.folder / f"checkpoint-{source.step}"
        assert manifest_sha256(folder) == source.manifest_sha256
    assert (run.source / "vocab" / "vocab.json").is_file()


def test_a_damaged_vocabulary_comes_from_the_store_again(home):
    running(home)
    write_json(home.run().id_map, {"first_new_id": 7})
    finish(home)
    home.add(spec("b", phase="p2", after="a"))
    home.until(lambda: home.trainers.living)
    linked = home.run("b").source / "vocab" / "vocab.json"
    whole = linked.read_bytes()
    linked.write_bytes(whole[:3])  # and with it the file of the other run, which is the same one
    home.end_trainer(None)

    home.until(lambda: home.trainers.living)

    assert linked.read_bytes() == whole
    assert home.run().id_map.read_bytes() == whole


def test_damaged_rows_of_its_source_come_from_the_store_again(home):
    running(home)
    write_json(home.run().id_map, {"first_new_id": 7})
    finish(home)
    home.add(spec("b", phase="p2", after="a", rows="final"))
    home.until(lambda: home.trainers.living)
    linked = home.run("b").source / "checkpoint-100" / "trainable.safetensors"
    whole = linked.read_bytes()
    linked.write_bytes(whole[:-1] + b"x")  # and with it the file of the other run; the manifest is as it was
    home.end_trainer(None)

    home.until(lambda: home.trainers.living)

    assert linked.read_bytes() == whole


def test_the_source_of_p2_is_chosen_once(home):
    running(home)
    write_json(home.run().id_map, {"first_new_id": 7})
    finish(home)
    home.add(spec("b", phase="p2", after="a", rows="final"))
    home.until(lambda: home.trainers.living)
    home.end_trainer(None)
    home.until(lambda: home.trainers.living)

    assert [note.step for note in notes(records(home, "b"), SourceNote)] == [100]


def test_a_second_home_does_not_start_a_job_that_the_first_one_works_on(home, other):
    running(home, to_step=10)
    other.rounds(1)
    other.sync()
    other.kill_daemon()  # knows the job now
    for _ in range(20):
        home.rounds(1, seconds=5)
        other.rounds(1, seconds=5)

    assert not other.trainers.living
    assert "is at work on this job" in other.problem()


def test_a_frozen_home_is_fenced_stops_its_trainer_and_commits_nothing(home, other):
    running(home, to_step=10)
    other.kill_daemon()
    for _ in range(40):
        other.rounds(1, seconds=10)
    assert other.trainer.step == 10
    other.train(20)
    other.rounds(1)
    home.train(5)  # it went on meanwhile
    home.rounds(2)

    assert home.trainers.told_to_end
    assert "has taken the job over" in home.problem()
    assert [one.commit.step for one in commits(records(home))] == [10, 30]
    home.obey()
    finish(other)
    home.rounds(3)
    assert home.state() == "succeeded"
    assert home.job().reason == "finished by another runner"


def test_the_word_to_take_over_counts_once_so_that_two_homes_do_not_take_turns(home, other):
    home.daemon.take_over = True
    running(home, to_step=10)
    other.kill_daemon()
    other.daemon.take_over = True
    other.until(lambda: other.trainers.living)

    for _ in range(6):
        for one in (other, home):
            one.rounds(2, seconds=15)
            one.obey()

    assert [one.holder for one in records(home) if one.kind == "LEASE"] == ["home", "other"]


def test_what_a_fenced_home_saved_beside_the_log_is_dropped_when_it_takes_the_job_again(home, other):
    running(home, to_step=10)
    other.kill_daemon()
    for _ in range(40):
        other.rounds(1, seconds=10)
    other.train(20)
    other.rounds(1)
    home.train(45)
    home.rounds(2)
    home.obey()
    home.rounds(2)
    other.end_trainer(None)
    for _ in range(40):
        home.rounds(1, seconds=10)

    assert home.trainer.step == 30
    assert 55 not in saved_steps(home.run())
    finish(home)


def test_a_job_that_ended_here_after_a_rival_went_on_is_taken_up_from_the_log(home, other):
    running(home, to_step=10)
    other.kill_daemon()
    other.until(lambda: other.trainers.living, rounds=200)
    other.train(20)
    other.rounds(2)
    home.train(90)  # frozen until now, its trainer was not
    home.kill_daemon()
    other.end_trainer(None)
    for _ in range(40):
        home.rounds(1, seconds=10)
        home.obey()

    finish(home)
    assert is_done(records(home))


def test_a_damaged_checkpoint_in_the_store_is_passed_over(home):
    running(home, to_step=10)
    home.train(10)
    home.rounds(2)
    (newest,) = (home.folder.parent / "store/jobs/a/checkpoints").glob("checkpoint-20*")
    path = newest / "trainable.safetensors"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[::-1])
    home.lose()
    home.until(lambda: home.trainers.living)

    assert home.trainer.step == 10
    assert any("checkpoint 20 in the store cannot be used" in event.text for event in ledger.list_events(home.queue))
    finish(home)


def test_a_damaged_checkpoint_here_is_replaced_by_the_stores(home):
    running(home, to_step=10)
    path = home.run().checkpoint(10) / "state.json"
    path.write_text("torn")
    home.end_trainer(None)
    home.until(lambda: home.trainers.living)

    assert home.trainer.step == 10
    assert path.read_text() != "torn"


def test_when_no_durable_checkpoint_can_be_read_a_person_is_asked(home):
    running(home, to_step=10)
    for path in (home.folder.parent / "store/jobs/a/checkpoints").rglob("*.safetensors"):
        path.unlink()
    home.lose()
    home.rounds(5)

    assert not home.trainers.living
    assert "none of its 1 durable checkpoints can be read" in home.problem()


def test_a_text_that_changed_under_its_hash_keeps_the_job_from_starting(home):
    home.add(spec())
    path = home.daemon.settings.inputs / CORPUS.sha256
    path.write_bytes(b"another!")
    home.rounds(4)

    assert not home.trainers.living
    assert "changed after it was frozen" in home.problem()


def test_a_regime_is_carried_into_the_log_once(home):
    running(home)
    with home.queue.write() as connection:
        add_regime(connection, "a", 7, {"what": "cadence", "every_steps": 50}, home.clock.now)
    home.rounds(3)
    home.kill_daemon()
    home.rounds(3)

    told = [record.payload for record in regimes(records(home)) if record.payload["what"] == "cadence"]
    assert told == [{"what": "cadence", "every_steps": 50, "from_step": 7}]


def settle(*values):
    """As `set` does it: (home, key, value) one after the other."""
    for home, key, value in values:
        set_value(home.queue, "a", key, value, home.clock.now)


def minutes_of(home):
    return home.job().spec.checkpoint.max_loss_minutes


def test_a_setting_that_was_set_back_is_the_same_on_a_new_machine(home):
    home.add(spec())
    settle(*((home, "checkpoint.max_loss_minutes", value) for value in (7.0, 1.0, 7.0)))
    home.until(lambda: home.trainers.living)
    home.rounds(3)
    home.lose()

    assert minutes_of(home) == 7.0


def test_homes_on_one_store_agree_on_the_setting_that_reached_it_last(home, other, tmp_path, clock):
    running(home)
    other.add(spec())
    settle((home, "checkpoint.max_loss_minutes", 7.0))
    home.rounds(3)
    settle((other, "checkpoint.max_loss_minutes", 3.0))
    other.daemon.take_over = True
    other.until(lambda: other.trainers.living)
    other.rounds(3)
    third = Home.new(tmp_path / "third", tmp_path / "store", clock)

    assert [minutes_of(one) for one in (other, third)] == [3.0, 3.0]
    third.queue.close()


def test_done_is_the_last_record_and_names_every_artefact(home):
    running(home)
    finish(home)

    log = records(home)
    assert is_done(log)
    assert sorted(log[-1].done.files) == ["final/weights.json", "logs/metrics.jsonl"]


def test_a_name_that_another_home_gave_to_other_work_is_told(home, other):
    home.add(spec())
    home.sync()
    other.add(spec(), "another print")
    other.rounds(3)

    assert not other.trainers.living
    assert "holds another job of that name" in other.problem()


def record(kind, holder, written_at):
    return Record(
        log="l", seq=0, kind=kind, epoch=1, nonce="n", payload={}, next_id="i", written_at=written_at, holder=holder
    )  # fmt: skip


def test_how_long_machines_lived_is_read_from_their_first_lease_and_last_record():
    one = [record("GENESIS", "a", 0.0), record("LEASE", "a", 10.0), record("COMMIT", "a", 50.0)]
    two = [record("LEASE", "a", 20.0), record("COMMIT", "a", 90.0), record("LEASE", "b", 100.0)]

    assert past_sessions([one, two]) == {"a": (10.0, 90.0), "b": (100.0, 100.0)}


def test_a_new_machine_knows_those_before_it(home):
    running(home, to_step=10)
    home.lose()

    assert [one.machine for one in attempts.list_sessions(home.queue) if one.ended_at is not None] == ["home"]


def test_another_home_counts_attempts_on_from_the_logs_alone(home):
    running(home, to_step=10)
    home.end_trainer(None)
    home.until(lambda: home.trainers.living)
    home.train(10)
    home.rounds(2)
    assert home.trainer.attempt == 2
    home.lose()
    home.until(lambda: home.trainers.living)

    assert home.trainer.attempt == 3


def test_a_job_that_comes_back_is_counted_on_from_where_the_other_home_came_to(home, other):
    running(home, to_step=10)
    home.end_trainer(None)
    home.kill_daemon()
    other.kill_daemon()  # knows the job now
    other.daemon.take_over = True
    for step in (20, 30):
        other.until(lambda: other.trainers.living)
        other.train(step - other.trainer.step)
        other.rounds(2)
        number = other.trainer.attempt
        other.end_trainer(None)
    home.daemon.take_over = True
    home.until(lambda: home.trainers.living)

    assert (number, home.trainer.attempt) == (3, 4)


def test_a_daemon_that_died_between_commit_and_row_leaves_no_step_behind(home, monkeypatch):
    running(home)
    monkeypatch.setenv(VARIABLE, "sync.committed=EIO:1+")
    home.train(10)
    home.rounds(1)
    monkeypatch.delenv(VARIABLE)
    assert home.durable() == 0
    home.rounds(1, seconds=60)

    assert home.durable() == 10
    assert [one.commit.step for one in commits(records(home))] == [10]


class Shelf(DirectoryStore):
    """A store with as much room as a test says, which counts what it is asked."""

    free = None
    stats = 0
    is_away = False  # for downloads
    seen_coming = ()

    def quota(self):
        return Quota(free=self.free)

    def get(self, id, path, **more):
        if self.is_away:
            raise StoreUnavailable("gone")
        super().get(id, path, **more)
        notes = [note for folder in path.parents if (note := read_upload(folder))]
        self.seen_coming += tuple((note.job, note.name, note.is_coming) for note in notes)

    def stat(self, id):
        self.stats += 1
        return super().stat(id)


@pytest.fixture
def shelf(tmp_path, clock):
    home = Home.new(tmp_path / "home", Shelf(tmp_path / "store"), clock)
    yield home
    home.queue.close()


def test_a_full_store_stops_uploads_and_nothing_else_until_there_is_room(shelf):
    running(shelf, to_step=10)
    shelf.store.free = 0
    shelf.train(10)
    shelf.rounds(5, seconds=60)

    assert shelf.durable() == 10
    assert not shelf.trainers.told_to_end
    assert "What trains here goes on, uploads wait: free 64.0 MiB there (empty the bin too)" in shelf.problem()
    shelf.train(10)
    shelf.store.free = None
    shelf.rounds(4, seconds=60)
    assert shelf.durable() == 30
    assert shelf.problem() == ""
    finish(shelf)


def test_a_runner_whose_uploads_wait_for_room_is_not_taken_for_dead(shelf, tmp_path, clock):
    running(shelf, to_step=10)
    rival = Home.new(tmp_path / "rival", Shelf(tmp_path / "store"), clock)
    shelf.store.free = 0
    shelf.train(10)
    for _ in range(60):
        shelf.rounds(1, seconds=10)
        rival.rounds(1, seconds=10)

    assert not rival.trainers.living
    assert "is at work on this job" in rival.problem()
    rival.queue.close()


def test_what_the_policy_lets_go_makes_room_for_what_must_stay(shelf, monkeypatch):
    running(shelf)
    monkeypatch.setenv(VARIABLE, "prune.manifest=EIO:1+,sync.pruned=EIO:1+")
    for _ in range(4):  # nothing is pruned meanwhile: a daemon that always died before it
        shelf.train(4)
        shelf.rounds(2, seconds=200)
    monkeypatch.delenv(VARIABLE)
    stored = lambda: {path.parent.name.split(".")[0] for path in shelf.store.root.rglob("checkpoint-*/manifest.json")}  # noqa: E731
    before = stored()
    shelf.store.quota = lambda: Quota(free=0 if len(stored()) > 2 else None)
    shelf.train(4)
    shelf.rounds(2, seconds=200)

    assert len(before) > 2
    assert shelf.durable() == 20


def test_what_a_killed_upload_left_is_swept_while_the_daemon_lives(home):
    running(home, to_step=10)
    store = home.folder.parent / "store/jobs/a"
    left = [store / "checkpoints/checkpoint-7.dead/state.json", store / "files/vocab.dead/vocab.json"]
    for path in left:
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        os.utime(path, (home.clock.now, home.clock.now))
    home.rounds(59, seconds=60)
    assert all(path.exists() for path in left)
    home.rounds(62, seconds=60)

    assert not any(path.exists() for path in left)
    assert home.durable() == 10


def test_a_checkpoint_that_comes_from_the_store_is_shown_while_it_comes(shelf):
    running(shelf, to_step=40)
    shelf.lose()
    shelf.until(lambda: shelf.trainers.living)

    assert set(shelf.store.seen_coming) == {("a", "checkpoint-40", True)}
    assert read_upload(shelf.folder) is None


def test_restoring_a_long_job_asks_for_two_of_its_commits_and_lists_the_rest(shelf):
    running(shelf)
    for _ in range(20):
        shelf.train(4)
        shelf.rounds(1)
    shelf.store.stats = 0
    shelf.lose()

    assert shelf.store.stats == 2
    rows = [one.step for one in checkpoints.list_checkpoints(shelf.queue, "a")]
    assert rows == [76, 80]


def test_an_empty_home_that_cannot_fetch_its_checkpoint_waits_and_does_not_begin_anew(shelf):
    running(shelf, to_step=40)
    shelf.lose()
    shelf.store.is_away = True
    (shelf.folder / "inputs").mkdir()
    (shelf.folder / "inputs" / CORPUS.sha256).write_bytes(TEXT)
    shelf.rounds(10, seconds=60)

    assert not shelf.trainers.living
    assert shelf.problem() == "gone"
    shelf.store.is_away = False
    shelf.rounds(4, seconds=60)
    assert shelf.trainer.step == 40


def test_a_home_that_has_the_newest_checkpoint_trains_on_while_the_store_is_away(shelf):
    running(shelf, to_step=40)
    shelf.end_trainer(None)
    shelf.kill_daemon()
    shelf.store.swap_head = shelf.store.create = lambda *more, **named: _away()
    shelf.until(lambda: shelf.trainers.living)

    assert shelf.trainer.step == 40
    assert shelf.problem() == "gone"


def _away():
    raise StoreUnavailable("gone")

"""One tick after another: what ends, what lives, what starts."""

import signal

import pytest

from runner.errors import StoreBusy
from runner.machine.vram import CardUse
from runner.queue import attempts, checkpoints, jobs, ledger
from runner.settings import Numbers
from runner.states import Wish
from runner.store.base import Properties
from tests.simulated import Clock, Home, open_attempts
from tests.unit.runner.conftest import job_spec
from wake2vec.contract.files import read_json, write_json
from wake2vec.contract.spec import CommandSpec


@pytest.fixture
def home(tmp_path):
    home = Home.new(tmp_path / "home", tmp_path / "store", Clock())
    yield home
    home.queue.close()


def spec(name="a", steps=30, every=10, **more):
    return job_spec(name, steps=steps, checkpoint={"every_steps": every}, **more)


def running(home, **more):
    home.add(spec(**more))
    home.until(lambda: home.trainers.living)
    return home.trainer


def test_a_queued_job_is_started_with_its_order(home):
    trainer = running(home)

    assert home.state() == "running"
    order = trainer.run.order.read_text()
    assert '"attempt": 1' in order
    assert '"gpu_lock"' in order


def test_imports_are_had_ready_while_a_job_is_made_ready_and_beside_one_that_trains(home):
    home.add(spec())
    home.tick()
    assert home.trainers.warmed == 1
    home.until(lambda: home.trainers.living)
    asked = home.trainers.warmed

    home.rounds(3)
    assert home.trainers.warmed == asked  # the trainer itself loads
    home.clock.offset += 61
    home.rounds(1)

    assert home.trainers.warmed > asked


def test_nothing_is_imported_for_a_command(home):
    home.add(CommandSpec(name="a", phase="command", command=["true"], steps=2))

    home.tick()

    assert home.trainers.warmed == 0


def test_a_job_runs_through_its_segments_and_succeeds_when_all_is_durable(home):
    running(home)
    for _ in range(3):
        home.train(10)
        home.rounds(2)
    home.rounds(2)

    assert home.state() == "succeeded"
    assert home.durable() == 30
    assert all(segment.done_at for segment in jobs.list_segments(home.queue, "a"))
    assert [row.step for row in ledger.list_metrics(home.queue, "a")] == list(range(1, 31))
    assert home.outcomes() == ["completed"]


def test_a_job_of_two_cards_waits_for_both_and_is_not_overtaken(tmp_path):
    numbers = Numbers(backoff_first_seconds=10.0, cpu_cards=2)
    home = Home.new(tmp_path / "home", tmp_path / "store", Clock(), numbers=numbers)
    running(home)
    home.add(spec("b", train={"steps": 30, "lr": 1e-3, "cards": 2}))
    home.add(spec("c"))
    home.rounds(5)

    assert (home.state("b"), home.state("c")) == ("queued", "queued")
    assert home.daemon.obstacles == {"b": "waits until 2 cards are free at once"}
    for _ in range(3):
        home.train(10)
    home.until(lambda: home.state("b") == "running")

    order = read_json(home.run("b").order)
    assert [order["gpu_lock"][-9:], *(lock[-9:] for lock in order["more_locks"])] == ["gpu0.lock", "gpu1.lock"]
    home.rounds(3)
    assert home.state("c") == "queued"
    home.kill_daemon()
    home.rounds(3)
    assert (home.state("b"), home.state("c")) == ("running", "queued")  # a new daemon knows both cards as taken
    for _ in range(3):
        home.train(10)
    home.until(lambda: home.state("c") == "running")
    home.queue.close()


def test_layers_go_over_more_cards_than_a_step_has_blocks_and_samples_do_not(tmp_path):
    home = Home.new(tmp_path / "home", tmp_path / "store", Clock(), numbers=Numbers(cpu_cards=3))
    train = {"steps": 30, "lr": 1e-3, "batch": 1, "cards": "auto"}
    home.add(spec("a", train=train | {"spread": "layers"}))
    home.until(lambda: home.state("a") == "running")
    assert len(read_json(home.run("a").order)["more_locks"]) == 2
    for _ in range(3):
        home.train(10)
    home.add(spec("b", train=train))
    home.until(lambda: home.state("b") == "running")

    assert read_json(home.run("b").order)["more_locks"] == []
    home.queue.close()


def test_all_cards_of_a_job_are_of_one_host(tmp_path):
    home = Home.new(tmp_path / "home", tmp_path / "store", Clock(), numbers=Numbers(cpu_cards=4))
    home.trainers.places_of_a_host = 2
    home.add(spec("a", train={"steps": 30, "lr": 1e-3, "cards": "auto"}))
    home.until(lambda: home.state("a") == "running")

    assert len(read_json(home.run("a").order)["more_locks"]) == 1
    home.queue.close()


def test_cards_that_differ_keep_a_job_waiting_with_what_to_do_and_one_that_is_gone_does_not(home):
    home.daemon.cards = [
        CardUse(index=index, name=name, total_mib=15_360, used_mib=0) for index, name in enumerate(("T4", "T4", "A100"))
    ]
    shown = list(home.daemon.cards)
    home.daemon.read_cards = lambda: shown
    home.add(spec(train={"steps": 30, "lr": 1e-3, "cards": 3}))
    home.rounds(4)

    assert "the cards here differ: T4 (GPU 0), T4 (GPU 1), A100 (GPU 2)" in home.job().reason
    del shown[0]
    home.until(lambda: home.state() == "running")  # three are not there any more
    assert read_json(home.run().order)["gpu_lock"].endswith("gpu1.lock")


def test_two_jobs_never_run_at_once_on_one_card(home):
    running(home)
    home.add(spec("b"))
    home.rounds(5)

    assert home.state("b") == "queued"
    assert len(open_attempts(home.queue)) == 1


def test_a_lost_trainer_puts_the_job_back_and_the_next_one_goes_on_from_what_was_saved(home):
    running(home)
    home.train(12)
    home.end_trainer(None)
    home.until(lambda: home.trainers.living)

    assert home.trainer.step == 12
    assert home.outcomes() == ["lost", "None"]
    assert home.job().stalls == 0


def test_a_trainer_of_an_earlier_daemon_is_adopted(home):
    running(home)
    home.kill_daemon()
    home.rounds(2)
    home.train(30)
    home.rounds(4)

    assert home.outcomes() == ["completed"]
    assert home.state() == "succeeded"


def test_a_wish_to_hold_waits_for_the_checkpoint(home):
    running(home)
    home.train(5, save=False)
    jobs.set_wish(home.queue, "a", Wish.HOLD, home.clock.now)
    home.tick()
    home.obey()
    home.rounds(3)

    assert home.state() == "held"
    assert home.durable() == 5
    assert checkpoints.log_state(home.queue, "a").epoch is None


def test_a_cancelled_job_gives_its_lease_back_and_tells_the_log(home, tmp_path):
    running(home)
    jobs.set_wish(home.queue, "a", Wish.CANCEL, home.clock.now)
    home.tick()
    home.obey()
    home.rounds(3)
    other = Home.new(tmp_path / "other", tmp_path / "store", home.clock)

    assert home.state() == "cancelled"
    assert other.state() == "cancelled"
    other.queue.close()


def test_silence_is_measured_in_heartbeats_and_monotonic_time_not_by_the_wall_clock(home):
    running(home)
    home.rounds(2)
    home.clock.offset += 86_400
    home.rounds(2)
    assert not home.trainers.told_to_end

    home.rounds(int(home.numbers.hang_minutes) + 1, seconds=60)

    assert home.trainers.told_to_end
    home.obey()
    home.tick()
    assert home.outcomes()[0] == "yielded"  # it answered after all: the result is the truth


def test_a_machine_that_slept_does_not_take_its_trainers_for_dead_when_it_wakes(home):
    running(home)
    home.rounds(2)

    home.rounds(1, seconds=3600 * 8)
    assert not home.trainers.told_to_end

    home.rounds(int(home.numbers.hang_minutes) + 1, seconds=60)
    assert home.trainers.told_to_end


def test_a_trainer_that_slept_with_the_machine_has_its_grace_time_to_save_afterwards(home, monkeypatch):
    sent = []
    monkeypatch.setattr(home.trainers, "end", lambda pid, number: sent.append(number))
    running(home)
    jobs.set_wish(home.queue, "a", Wish.HOLD, home.clock.now)
    home.rounds(1)

    home.rounds(1, seconds=3600)
    assert sent == [signal.SIGTERM]

    home.rounds(2, seconds=home.numbers.grace_seconds)
    assert sent[1:] == [signal.SIGKILL]


def test_a_back_off_survives_a_clock_that_is_set_back_a_day(home):
    running(home)
    home.end_trainer("failed", cause="boom")
    home.rounds(1)
    assert home.job().not_before > home.clock.now
    home.clock.offset -= 86_400

    home.rounds(3)

    assert home.trainers.living


def test_a_job_waits_out_its_back_off(home):
    running(home)
    home.end_trainer("failed", cause="boom")
    home.rounds(3)
    assert not home.trainers.living
    assert home.job().reason == "failed: boom"

    home.rounds(12)

    assert home.trainers.living


def test_a_full_disk_counts_against_nobody(home):
    running(home, runner={"max_attempts": 1})
    home.end_trainer("failed", where="full", cause="OSError: [Errno 28] No space left on device")
    home.rounds(2)

    job = home.job()
    assert home.state() == "queued"
    assert job.stalls == 0
    assert job.reason.startswith("the disk is full")
    assert "make room" in job.remedy


def test_a_job_in_epochs_learns_its_segments_from_the_trainer(home):
    home.add(spec(steps=None))
    home.until(lambda: home.trainers.living)
    home.rounds(2)

    assert home.job().steps == 30
    assert len(jobs.list_segments(home.queue, "a")) == 3


def test_nothing_starts_when_the_session_is_about_to_end(home):
    home.daemon.stop_by = home.clock.now + 60
    home.add(spec())
    home.rounds(4)

    assert not home.trainers.living
    assert home.job().reason.startswith("the session ends in")


def test_a_card_that_others_use_is_left_alone_with_the_reason(home):
    card = CardUse(index=0, name="T4", total_mib=15_000, used_mib=14_000)
    home.daemon.cards = [card]
    home.daemon.read_cards = lambda: [card]
    home.add(spec())
    home.rounds(4)

    assert not home.trainers.living
    assert "is in use by another program" in home.job().reason


def test_what_threatens_a_card_is_told_once_an_attempt_and_the_trainer_goes_on(home):
    trainer = running(home)
    card = CardUse(index=0, name="T4", total_mib=15_000, used_mib=14_900)
    home.daemon.cards = [card]
    home.daemon.read_cards = lambda: [card]
    table = read_json(trainer.run.heartbeat)
    write_json(trainer.run.heartbeat, table | {"beat": 99, "vram_reserved_mib": 9_000, "vram_retries": 2})

    home.tick()
    home.tick()

    said = [event.text for event in ledger.list_events(home.queue, job="a", limit=50) if event.kind == "vram"]
    assert len(said) == 3
    assert any("a #1: GPU 0 (T4): about 5.0 GiB are held by another program" in text for text in said)
    assert home.trainers.living


def test_a_trainer_without_an_open_attempt_is_told_to_end(home):
    trainer = running(home)
    attempt = open_attempts(home.queue)[0]
    home.trainers.living.clear()
    home.tick()
    assert attempts.list_attempts(home.queue, "a")[0].outcome is not None
    home.trainers.living[0] = trainer

    home.tick()

    assert attempt.id == trainer.attempt
    assert any("asked to save and end" in event.text for event in ledger.list_events(home.queue))


def test_a_new_order_forgets_the_result_of_an_attempt_with_the_same_number(home):
    home.add(spec())
    run = home.run()
    run.root.mkdir(parents=True)
    run.result.write_text('{"attempt": 1, "outcome": "completed", "step": 30, "steps": 30, "where": "training"}')
    home.until(lambda: home.trainers.living)
    home.end_trainer(None)
    home.rounds(1)

    assert home.outcomes()[0] == "lost"


def test_training_goes_on_while_the_store_is_away_and_all_of_it_becomes_durable_later(home):
    running(home)
    home.train(10)
    home.rounds(2)
    assert home.durable() == 10
    store, home.daemon.store = home.daemon.store, Away()
    home.context.opened["a"].log.store = home.daemon.store
    home.train(10)
    home.rounds(2)
    assert home.durable() == 10
    assert home.problem() == "the store is away"
    assert home.trainers.living
    home.daemon.store = home.context.opened["a"].log.store = store

    home.rounds(3, seconds=130)

    assert home.durable() == 20
    assert home.problem() == ""


class Away:
    """A store that answers nothing."""

    properties = Properties(place="the store")

    def __getattr__(self, name):
        def call(*arguments, **more):
            raise StoreBusy("the store is away")

        return call

"""G1, G10: the database is only a cache of the logs; a bad one is kept for a person and made again."""

import sqlite3

from runner.queue.history import mark_of
from runner.screen.daemon_note import DaemonNote, write_note
from runner.screen.look import look
from tests.faults.world import PATIENCE_SECONDS, assert_whole, fake_spec, wait_until

PACE = {"seconds_per_step": 0.02, "save_every": 5}


def cut(world):
    """Run to somewhere in the middle, then kill everything."""
    world.add(fake_spec())
    daemon = world.start(told=PACE)
    wait_until(lambda: world.durable_step() >= 15)
    daemon.kill()
    daemon.wait()
    world.kill_trainer()
    return world.root / "home" / "runner.db"


def test_a_database_of_rubbish_is_set_aside_and_made_again_from_the_store(world):
    database = cut(world)
    database.write_bytes(b"rubbish " * 1000)
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)

    assert world.run(told=PACE) == 0

    assert_whole(world)
    (kept,) = database.parent.glob("runner.db.corrupt-*")
    assert kept.read_bytes().startswith(b"rubbish ")
    assert "it is kept as runner.db.corrupt-" in world.output()


def test_a_database_with_a_torn_page_is_set_aside(world):
    database = cut(world)
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    body = bytearray(database.read_bytes())
    body[4096 * 3 : 4096 * 5] = bytes(4096 * 2)
    database.write_bytes(body)

    assert world.run(told=PACE) == 0

    assert_whole(world)


def test_a_lost_database_beside_a_living_trainer_ends_that_trainer_and_goes_on(world):
    world.add(fake_spec(steps=200, every=50))
    daemon = world.start(told=PACE)
    wait_until(lambda: world.durable_step() >= 15)
    daemon.kill()
    daemon.wait()
    for path in (world.root / "home").glob("runner.db*"):
        path.unlink()

    assert world.run(told=PACE) == 0

    assert_whole(world, steps=200)
    assert any("a trainer of an earlier daemon is asked to save and end" in text for text in world.events())


def test_a_database_that_another_process_locks_delays_nothing_but_the_daemon(world):
    world.add(fake_spec(), told=PACE)
    blocker = sqlite3.connect(world.root / "home" / "runner.db", isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    daemon = world.start()
    wait_until(lambda: daemon.poll() is None)
    blocker.execute("ROLLBACK")
    blocker.close()

    assert daemon.wait(timeout=PATIENCE_SECONDS) == 0

    assert_whole(world)


def test_a_write_ahead_log_that_was_deleted_is_named_and_survived(world):
    world.add(fake_spec())
    home = world.root / "home"
    daemon = world.start(told=PACE)
    wait_until(lambda: world.durable_step() >= 15)
    with world.queue() as queue:
        seen = mark_of(queue).event
    write_note(home, DaemonNote(written_at=0.0, newest_event=seen))  # as `start` does every few seconds
    daemon.kill()
    daemon.wait()
    world.kill_trainer()
    (home / "runner.db-wal").unlink()
    (home / "runner.db-shm").unlink()
    (need,) = [need for need in look(world.settings(), 0.0).needs if "runner.db-wal" in need.cause]

    assert need.command == "wake2vec-runner start"
    assert world.run(told=PACE) == 0

    assert_whole(world)
    assert "runner.db-wal, which goes with it, was deleted" in world.output()
    assert any("runner.db-wal" in text for text in world.events())

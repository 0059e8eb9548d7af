"""Which machine, until when, how long sessions live, and where a home may lie."""

import datetime
from pathlib import Path

import pytest

from runner.errors import RunnerError
from runner.machine.session import (
    Machine,
    mean_session_minutes,
    mounted_drive,
    network_file_system,
    session_end,
    this_machine,
)
from runner.queue.rows import Session


def proc(tmp_path, boot="b00710ad-1", start="500"):
    (tmp_path / "sys/kernel/random").mkdir(parents=True, exist_ok=True)
    (tmp_path / "1").mkdir(exist_ok=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text(boot)
    (tmp_path / "1/stat").write_text(f"1 (a (b) c) S {' '.join(['0'] * 18)} {start} 0")
    (tmp_path / "stat").write_text("cpu 1 2 3\nbtime 1000\n")
    return tmp_path


def test_a_machine_is_the_same_until_its_container_or_its_host_starts_anew(tmp_path):
    first = this_machine({}, proc(tmp_path))

    assert this_machine({}, proc(tmp_path)) == first
    assert this_machine({}, proc(tmp_path, start="900")).id != first.id
    assert this_machine({}, proc(tmp_path, boot="another")).id != first.id
    assert first.started_at == 1005.0


@pytest.mark.parametrize(
    ("environment", "platform"),
    [({}, "plain"), ({"COLAB_RELEASE_TAG": "r"}, "colab"), ({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, "kaggle")],
)
def test_the_platform_is_read_from_the_environment(tmp_path, environment, platform):
    assert this_machine(environment, proc(tmp_path)).platform == platform


def test_a_machine_without_proc_is_still_one(tmp_path):
    assert this_machine({}, tmp_path / "none").started_at == 0.0


def machine(platform):
    return Machine(id="m", platform=platform, started_at=0.0)


def test_kaggle_ends_half_an_hour_before_its_twelve_hours_and_colab_promises_nothing():
    assert session_end(machine("kaggle"), 100.0, max_hours=None, stop_at=None) == 11.5 * 3600
    assert session_end(machine("colab"), 100.0, max_hours=None, stop_at=None) is None


def test_a_session_that_begins_on_an_old_kaggle_machine_works_until_it_is_gone():
    assert session_end(machine("kaggle"), 11.4 * 3600, max_hours=None, stop_at=None) == 11.5 * 3600
    assert session_end(machine("kaggle"), 11.5 * 3600, max_hours=None, stop_at=None) is None
    assert session_end(machine("kaggle"), 12 * 3600, max_hours=None, stop_at=None) is None
    assert session_end(machine("kaggle"), 12 * 3600, max_hours=1.0, stop_at=None) == 13 * 3600


def test_the_earliest_end_counts():
    noon = datetime.datetime(2026, 11, 21, 12, 0)
    now = noon.timestamp()

    assert session_end(machine("plain"), now, max_hours=2, stop_at="13:00", today=noon) == now + 3600
    assert session_end(machine("plain"), now, max_hours=0.5, stop_at="13:00", today=noon) == now + 1800


def test_a_time_of_day_that_has_passed_is_tomorrows():
    noon = datetime.datetime(2026, 11, 21, 12, 0)

    end = session_end(machine("plain"), noon.timestamp(), max_hours=None, stop_at="11:00", today=noon)

    assert end == noon.timestamp() + 23 * 3600


@pytest.mark.parametrize("text", ["25:00", "12", "noon", "12:60"])
def test_what_is_no_time_of_day_is_named(text):
    with pytest.raises(RunnerError, match=f"--stop-at '{text}': expected a time of day"):
        session_end(machine("plain"), 0.0, max_hours=None, stop_at=text)


def session(minutes):
    ended = None if minutes is None else 60.0 * minutes
    return Session(id=1, machine="m", platform="plain", gpu="", started_at=0.0, seen_at=0.0, ended_at=ended, cause="")


def test_the_mean_session_starts_at_the_prior_and_follows_what_happened():
    assert mean_session_minutes([]) == 100.0
    assert mean_session_minutes([session(20), session(30), session(None)]) == 50.0


MOUNTS = """overlay / overlay rw 0 0
drive /content/drive fuse.drive rw 0 0
server:/x /mnt/a\\040b nfs4 rw 0 0
/dev/vdb /content/drive/local ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("/root/home", None),
        ("/content/drive/MyDrive/home", "fuse.drive"),
        ("/mnt/a b/home", "nfs4"),
        ("/content/drive/local/home", None),
    ],
)
def test_a_network_or_user_space_file_system_is_recognised(place, kind):
    assert network_file_system(Path(place), MOUNTS) == kind


def test_a_folder_of_colab_s_mounted_drive_is_no_safe_store():
    assert "use --store drive:FOLDER" in mounted_drive("dir:/content/drive/MyDrive/wake")
    assert [mounted_drive(url) for url in ("dir:/content/store", "drive:wake", "fs:s3://a/content/drive/")] == [""] * 3

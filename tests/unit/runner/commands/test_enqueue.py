from __future__ import annotations

import json

import pytest

from runner.commands.enqueue import Asked, run
from runner.errors import HomeUnusable, JobExists, RunnerError
from runner.queue import jobs
from runner.queue.database import open_queue
from runner.settings import read_settings
from runner.states import Wish
from tests.simulated import Clock, Home
from tests.unit.runner.folders import P2, write_jobs
from wake2vec.contract.errors import SpecError
from wake2vec.contract.tables import LONGEST_NAME


@pytest.fixture
def settings(tmp_path):
    return read_settings(tmp_path / "home", None, {})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "jobs").mkdir()
    return write_jobs(tmp_path / "jobs")


def _queued(settings):
    queue = open_queue(settings.database)
    try:
        return [(job.name, job.after, job.steps) for job in jobs.list_jobs(queue)]
    finally:
        queue.close()


def test_p1_and_p2_are_queued_with_their_inputs_in_one_call(settings, folder, capsys):
    run(settings, [folder / "a_p1.toml", folder / "a_p2.toml"], Asked(again=False), as_json=False)

    assert _queued(settings) == [("a_p1", None, 60), ("a_p2", "a_p1", 40)]
    assert len(list(settings.inputs.iterdir())) == 2
    said = capsys.readouterr().out
    assert "queued a_p1: P1 of" in said
    assert "to step 60 in 3 segments" in said
    assert "starts after a_p1, on its best rows" in said
    assert said.endswith("next: wake2vec-runner start\n")


def test_lines_of_a_lexicon_that_are_passed_over_are_told_by_number(settings, folder, capsys):
    (folder / "words.txt").write_text("riverrun\n\ntip\nriverrun\ntip\n")

    run(settings, [folder / "a_p1.toml"], Asked(again=False), as_json=False)

    said = capsys.readouterr().out
    assert "  note: words.txt: blank line 2 passed over\n" in said
    assert "  note: words.txt: 2 duplicate lines (4, 5) passed over\n" in said


def test_every_fault_of_every_file_is_told_and_nothing_is_queued(settings, folder):
    (folder / "a_p1.toml").write_text((folder / "a_p1.toml").read_text().replace("lr = 1e-3", "lr = 0"))
    (folder / "b_p2.toml").write_text(P2.replace("text.txt", "gone.txt"))

    with pytest.raises(SpecError) as caught:
        run(
            settings,
            [folder / name for name in ("a_p1.toml", "a_p2.toml", "b_p2.toml")],
            Asked(again=False),
            as_json=False,
        )

    lines = str(caught.value).splitlines()
    assert [line.split(": ")[1] for line in lines] == ["train.lr", "data.corpus"]
    assert _queued(settings) == []
    assert not settings.inputs.exists()


def test_p2_alone_is_refused_without_its_p1_and_accepted_once_it_is_queued(settings, folder):
    with pytest.raises(SpecError, match="there is no job a_p1 in the queue"):
        run(settings, [folder / "a_p2.toml"], Asked(again=False), as_json=False)

    run(settings, [folder / "a_p1.toml"], Asked(again=False), as_json=False)
    run(settings, [folder / "a_p2.toml"], Asked(again=False), as_json=False)

    assert [name for name, _, _ in _queued(settings)] == ["a_p1", "a_p2"]


def test_a_name_in_use_is_refused_with_the_way_out(settings, folder):
    run(settings, [folder / "a_p1.toml"], Asked(again=False), as_json=False)

    with pytest.raises(JobExists, match=r"a_p1: a job of that name is queued.*--again trains it once more as a_p1-2"):
        run(settings, [folder / "a_p1.toml"], Asked(again=False), as_json=False)


@pytest.mark.parametrize("wish", [Wish.CANCEL, Wish.HOLD])
def test_the_way_out_of_a_name_in_use_is_one_that_its_job_can_go(settings, folder, wish):
    run(settings, [folder / "a_p1.toml"], Asked(again=False), as_json=False)
    with open_queue(settings.database) as queue:
        jobs.set_wish(queue, "a_p1", wish, 1.0)

    with pytest.raises(JobExists) as caught:
        run(settings, [folder / "a_p1.toml"], Asked(again=False), as_json=False)

    assert ("`retry a_p1`" in str(caught.value)) is (wish is Wish.CANCEL)
    assert ("`extend a_p1 STEPS`" in str(caught.value)) is (wish is Wish.HOLD)


def test_again_leaves_a_queue_that_can_be_read_however_long_the_name_is(settings, folder):
    longest = "a" * LONGEST_NAME

    for _ in range(12):
        run(settings, [folder / "a_p1.toml"], Asked(again=True, pairs=[("name", longest)]), as_json=False)

    with open_queue(settings.database) as queue:
        names = [job.spec.name for job in jobs.list_jobs(queue)]
    assert names[:2] == [longest, "a" * (LONGEST_NAME - 2) + "-2"]
    assert names[-1] == "a" * (LONGEST_NAME - 3) + "-12"


def test_again_gives_new_names_and_p2_follows_the_new_p1(settings, folder):
    files = [folder / "a_p1.toml", folder / "a_p2.toml"]

    for _ in range(3):
        run(settings, files, Asked(again=True), as_json=False)

    assert [(name, after) for name, after, _ in _queued(settings)] == [
        ("a_p1", None), ("a_p2", "a_p1"),
        ("a_p1-2", None), ("a_p2-2", "a_p1-2"),
        ("a_p1-3", None), ("a_p2-3", "a_p1-3"),
    ]  # fmt: skip


def test_the_same_file_twice_in_a_call_is_refused(settings, folder):
    with pytest.raises(SpecError, match="a_p1 comes twice in this call"):
        run(settings, [folder / "a_p1.toml"] * 2, Asked(again=False), as_json=False)

    assert _queued(settings) == []


def test_json_says_what_was_queued(settings, folder, capsys):
    run(settings, [folder / "a_p1.toml"], Asked(again=False), as_json=True)

    (job,) = json.loads(capsys.readouterr().out)["queued"]
    assert (job["name"], job["phase"], job["steps"], job["segments"]) == ("a_p1", "p1", 60, 3)
    assert [item["role"] for item in job["inputs"]] == ["corpus", "lexicon", "model"]


def test_later_edits_of_a_text_do_not_reach_a_queued_job(settings, folder):
    run(settings, [folder / "a_p1.toml"], Asked(again=False), as_json=False)
    before = {path.name: path.read_bytes() for path in settings.inputs.iterdir()}

    (folder / "text.txt").write_text("another text altogether " * 99)

    assert {path.name: path.read_bytes() for path in settings.inputs.iterdir()} == before


def test_a_home_that_is_a_file_is_refused(tmp_path, folder):
    (tmp_path / "home").write_text("")

    with pytest.raises(HomeUnusable):
        run(read_settings(tmp_path / "home", None, {}), [folder / "a_p1.toml"], Asked(), as_json=False)


def test_if_new_passes_over_what_is_queued_even_where_its_file_is_gone(settings, folder, capsys):
    files = [folder / "a_p1.toml", folder / "a_p2.toml"]
    run(settings, files[:1], Asked(again=False, if_new=True), as_json=False)
    files[0].unlink()
    capsys.readouterr()

    run(settings, files, Asked(again=False, if_new=True), as_json=False)

    assert _queued(settings) == [("a_p1", None, 60), ("a_p2", "a_p1", 40)]
    assert "a_p1: is queued already" in capsys.readouterr().out


def test_if_new_knows_the_jobs_of_the_store_on_a_machine_with_nothing_on_it(tmp_path, folder, capsys):
    first = read_settings(tmp_path / "one", f"dir:{tmp_path / 'store'}", {})
    run(first, [folder / "a_p1.toml"], Asked(), as_json=False)
    Home.new(first.home, tmp_path / "store", Clock()).rounds(2)
    empty = read_settings(tmp_path / "two", first.store_url, {})

    run(empty, [folder / "a_p1.toml", folder / "a_p2.toml"], Asked(if_new=True), as_json=False)

    assert _queued(empty) == [("a_p1", None, 60), ("a_p2", "a_p1", 40)]
    assert "a_p1: is queued already" in capsys.readouterr().out


def test_what_the_command_line_says_stands_for_the_file_and_is_frozen(settings, folder, capsys):
    run(settings, [folder / "a_p1.toml"], Asked(pairs=[("train.steps", 80), ("name", "other")]), as_json=False)

    assert _queued(settings) == [("other", None, 80)]
    assert 'train.steps = 80 (the file says 60), name = "other"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        (("train.lr", "much"), "train.lr"),
        (("train.lrr", 0.1), "did you mean lr"),
        (("train.lr.peak", 0.1), "lr is a value there"),
        (("train", 3), "is a table"),
    ],
)
def test_a_value_of_the_command_line_is_checked_like_the_file(settings, folder, pair, said):
    with pytest.raises((SpecError, RunnerError), match=said):
        run(settings, [folder / "a_p1.toml"], Asked(pairs=[pair]), as_json=False)

    assert _queued(settings) == []


def test_one_name_for_several_files_is_refused(settings, folder):
    with pytest.raises(RunnerError, match="one name for several files"):
        run(settings, [folder / "a_p1.toml", folder / "a_p2.toml"], Asked(pairs=[("name", "x")]), as_json=False)


def test_a_dry_run_checks_all_and_queues_nothing(settings, folder, capsys):
    run(settings, [folder / "a_p1.toml"], Asked(only_check=True), as_json=False)

    assert _queued(settings) == []
    assert "good a_p1: P1 of" in capsys.readouterr().out

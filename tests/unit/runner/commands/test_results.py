"""Commands that start the training core: what they refuse before they do, and how its end becomes theirs."""

from __future__ import annotations

import json

import pytest

from runner.commands.results import lexicon, report
from runner.commands.results.fetch import use_trained
from runner.commands.results.process import use
from runner.errors import RunnerError, UnknownJob
from runner.queue import attempts, jobs
from runner.queue.database import open_queue
from runner.settings import read_settings
from runner.states import State
from tests.unit.runner.conftest import CORPUS, job_spec
from tests.unit.runner.folders import write_jobs
from wake2vec.contract.errors import SpecError
from wake2vec.contract.files import write_atomic, write_json
from wake2vec.contract.options import ExportOptions
from wake2vec.contract.rundir import RunDir


@pytest.fixture
def settings(tmp_path):
    settings = read_settings(tmp_path / "home", None, {})
    queue = open_queue(settings.database)
    jobs.add_job(queue, job_spec("a"), [CORPUS], "a", 1.0)
    session = attempts.open_session(queue, machine="m", platform="plain", gpu="", started_at=1.0, now=1.0)
    attempts.claim(queue, "a", session=session.id, gpu=0, first_step=0, now=2.0)
    queue.close()
    return settings


def _export(settings, name, to):
    use_trained(settings, "export", name, out=to)


def test_a_job_that_never_ran_here_is_refused(settings, tmp_path):
    with pytest.raises(RunnerError, match=r"a: .*runs/a holds no run on this machine; nothing has run yet"):
        _export(settings, "a", tmp_path / "out")
    with pytest.raises(RunnerError, match="holds no run"):
        report.run(settings, ["a"], None)


def test_a_job_whose_result_is_nowhere_has_a_report_and_says_so(settings, tmp_path):
    queue = open_queue(settings.database)
    jobs.add_job(queue, job_spec("b"), [CORPUS], "b", 1.0, state=State.SUCCEEDED)
    queue.close()
    run = RunDir(root=settings.runs / "b")
    write_atomic(run.metrics, b'{"kind": "evaluation", "step": 1, "loss": 7.5625, "tokens": 9}\n')

    report.run(settings, ["b"], None)

    assert "7.56" in (run.root / "report.html").read_text("utf-8")
    with pytest.raises(RunnerError, match=r"b: its result is neither here nor in "):
        _export(settings, "b", tmp_path / "out")


def test_an_unknown_job_is_refused(settings, tmp_path):
    with pytest.raises(UnknownJob):
        _export(settings, "nix", tmp_path / "out")


def test_a_report_of_a_job_that_has_only_begun_is_a_page(settings):
    run = RunDir(root=settings.runs / "a")
    write_json(run.order, {"job": json.loads(job_spec("a").model_dump_json())})

    report.run(settings, ["a"], None)

    assert "<html" in (run.root / "report.html").read_text("utf-8")
    assert not list(settings.home.glob("*.html"))


def test_an_export_that_fails_ends_with_its_code(settings, tmp_path):
    write_json(RunDir(root=settings.runs / "a").order, {"no": "order"})

    with pytest.raises(SystemExit) as caught:
        _export(settings, "a", tmp_path / "out")

    assert caught.value.code not in (0, None)
    assert not (tmp_path / "out").exists()


def test_the_core_s_exit_code_is_the_command_s(tmp_path, capfd):
    with pytest.raises(SystemExit) as caught:
        use(ExportOptions(run=tmp_path / "none", out=tmp_path / "out"))

    assert caught.value.code == 1
    assert capfd.readouterr().err.startswith(f"error: {tmp_path / 'none'}")


@pytest.mark.parametrize(
    ("tool", "asked", "said"),
    [
        ("generate", {"step": "foo"}, "generate: --step: .*newest"),
        ("geometry", {"side": "left"}, "geometry: --side: .*'output'"),
        ("generate", {"top_k": "x"}, "generate: --top-k"),
    ],
)
def test_what_a_tool_does_not_know_is_refused_before_anything_is_fetched(settings, tool, asked, said):
    with pytest.raises(SpecError, match=said):
        use_trained(settings, tool, "nix", **asked)


def test_texts_and_geometry_want_a_run_that_is_here(settings):
    with pytest.raises(RunnerError, match="holds no run on this machine"):
        use_trained(settings, "generate", "a", prompt="x")
    with pytest.raises(RunnerError, match="holds no run on this machine"):
        use_trained(settings, "geometry", "a")


def test_a_survey_wants_a_whole_p1_file(tmp_path):
    write_jobs(tmp_path)

    with pytest.raises(SpecError, match="a p2 job adds no words"):
        lexicon.run(tmp_path / "a_p2.toml", model=None, corpora=[], as_json=False)
    (tmp_path / "words.txt").unlink()
    with pytest.raises(SpecError, match="no such file"):
        lexicon.run(tmp_path / "a_p1.toml", model=None, corpora=[], as_json=False)

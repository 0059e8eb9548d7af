"""A study: named jobs out of lists, queued once, compared as often as one asks."""

from __future__ import annotations

import json

import pytest

from runner.commands.study import _show, figures_of, run
from runner.jobfile.study import read_study, sources
from runner.queue import jobs
from runner.queue.database import open_queue
from runner.settings import read_settings
from tests.machine import JOBS, job_file
from wake2vec.contract.errors import SpecError

VARY = """
[vary]
"train.seed" = [42, 43]
[vary.run]
treatment = {}
control = { "morphemes.weight" = 0.0 }
"""


def written(folder, text, name="s"):
    path = folder / f"{name}.toml"
    path.write_text(text, "utf-8")
    return path


@pytest.fixture
def settings(tmp_path):
    return read_settings(tmp_path / "home", None, {})


@pytest.fixture
def folder(tmp_path):
    for name, after in (("p1", None), ("p2", "p1"), ("p3", "p2")):
        job_file(tmp_path, name, of=f"tiny_{name}", **({"after": after} if after else {}))
    return tmp_path


def queued(settings):
    queue = open_queue(settings.database)
    try:
        return {job.name: job.spec for job in jobs.list_jobs(queue)}
    finally:
        queue.close()


def test_every_combination_is_a_job_with_a_name_that_says_it(folder):
    found = read_study(written(folder, f'of = "p3.toml"\n{VARY}'))

    assert [one.name for one in found] == [
        "s-seed-42-treatment", "s-seed-42-control", "s-seed-43-treatment", "s-seed-43-control",
    ]  # fmt: skip
    assert found[3].label == {"train.seed": 43, "run": "control"}
    assert dict(found[3].pairs)["morphemes.weight"] == 0.0
    assert [path.name for path in sources(found)] == ["p1.toml", "p2.toml"]


def test_a_study_whose_name_no_job_may_have_gives_its_jobs_one(folder):
    path = written(folder, f'of = "p3.toml"\n{VARY}').rename(folder / "übungen für mich.toml")

    assert read_study(path)[0].name.startswith("bungen_f_r_mich-")


def test_several_job_files_are_an_axis_too(folder):
    found = read_study(written(folder, 'of = ["p1.toml", "p2.toml"]\n[vary]\n"train.lr" = [1e-3]'))

    assert [one.name for one in found] == ["s-p1-lr-0.001", "s-p2-lr-0.001"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "of: expected a job file, or a list of them"),
        ('of = "p3.toml"\nvery = 1', "very: unknown key"),
        ('of = "p3.toml"\n[vary]\nx = 3', 'vary.x: expected "train.lr" = [1e-5, 2e-5]'),
        ('of = ["p3.toml", "p3.toml"]', "two of its jobs would have one name"),
    ],
)
def test_what_is_no_study_is_told(folder, text, said):
    with pytest.raises(SpecError) as told:
        read_study(written(folder, text))

    assert said in str(told.value)


def test_it_is_queued_with_what_it_builds_on_and_only_once(settings, folder, capsys):
    path = written(folder, f'of = "p3.toml"\n{VARY}')

    run(settings, path, out=None, as_json=False)
    run(settings, path, out=None, as_json=True)

    specs = queued(settings)
    assert list(specs) == ["p1", "p2", *(one.name for one in read_study(path))]
    assert (specs["s-seed-43-control"].train.seed, specs["s-seed-43-control"].morphemes.weight) == (43, 0.0)
    said = capsys.readouterr().out
    rows = json.loads(said[said.index("{\n") :])["runs"]
    assert [row["state"] for row in rows] == ["queued"] * 4


def test_a_fault_of_one_job_queues_none(settings, folder):
    with pytest.raises(SpecError, match=r"train\.lr"):
        run(settings, written(folder, 'of = "p1.toml"\n[vary]\n"train.lr" = [1e-3, -1.0]'), out=None, as_json=False)

    assert queued(settings) == {}


def test_figures_are_those_of_the_best_evaluation(settings, folder):
    variants = read_study(written(folder, 'of = "p1.toml"\n[vary]\n"train.lr" = [1e-3]'))
    run(settings, folder / "s.toml", out=None, as_json=True)
    logs = settings.runs / variants[0].name / "logs"
    logs.mkdir(parents=True)
    structure = {"consistency": {"held_out": 0.25, "held_out_gain_null": {"p": 0.01}}, "verdict": "held-out pairs gain"}
    rows = [
        {"kind": "evaluation", "step": 0, "loss": 1.0, "bits_per_byte": 1.0},
        {"kind": "evaluation", "step": 20, "loss": 2.0, "bits_per_byte": 2.5, "structure": structure},
        {"kind": "evaluation", "step": 40, "loss": 3.0, "bits_per_byte": 3.5},
    ]
    (logs / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    (found,) = figures_of(settings, variants)

    assert (found["step"], found["bits_per_byte"], found["held_out_consistency"], found["p"]) == (20, 2.5, 0.25, 0.01)
    assert found["verdict"] == "held-out pairs gain"


@pytest.mark.parametrize(("width", "tables"), [(200, 1), (40, 3)])
def test_no_figure_is_cut_however_narrow_the_terminal(width, tables, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    names = ("treatment", "control", "shuffled")
    rows = [{"job": f"p3_study-{name}", "held_out_consistency": 0.123456, "p": 0.25, "verdict": None} for name in names]

    _show(rows)

    said = capsys.readouterr().out
    assert said.count("p3_study-") == said.count("0.12346") == 3
    assert said.count("held_out_consistency") == tables
    assert max(map(len, said.splitlines())) <= width


def test_the_studies_that_come_with_the_program_name_jobs_that_do(tmp_path):
    for name in ("p3_study", "study_models", "tiny_study"):
        assert all(one.file.is_file() for one in read_study(JOBS / f"{name}.toml"))
    assert len(read_study(JOBS / "study_models.toml")) == 8

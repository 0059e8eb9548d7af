"""The report: whole for any run, escaped for any name, and saying what the ledger says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from wake2vec.contract.options import ReportOptions
from wake2vec.contract.rundir import RunDir
from wake2vec.show.chart import Chart, Series
from wake2vec.show.report.__main__ import write_report
from wake2vec.show.report.html import el, plain, table
from wake2vec.show.report.reading import read_run
from wake2vec.show.report.svg import draw, ticks
from wake2vec.show.samples import SampleRow, write_sample_rows
from wake2vec.use.__main__ import use

NOW = datetime(2026, 6, 9, tzinfo=UTC)
HOSTILE = "</style><script>alert(1)</script>\" onload='x' \x00\u202e"


class Reader(HTMLParser):
    """Collects tags and checks that they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text("utf-8"))
    assert reader.open == []
    return reader


def run_with(root: Path, *rows: dict[str, object]) -> Path:
    run = RunDir(root=root)
    run.metrics.parent.mkdir(parents=True)
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return root


def evaluation(step: int, loss: float, **more: object) -> dict[str, object]:
    return {"kind": "evaluation", "step": step, "loss": loss, "tokens": 9, **more}


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"kind": "step", "step": 1, "loss": 2.0, "tokens": 4}],
        [evaluation(0, 5.0)],
        [evaluation(0, float("nan")), evaluation(1, float("inf"))],
        [{"kind": "step", "step": 1, "loss": 0.0, "tokens": 4, "lr": 0.0, "grad_norm": 0.0, "seconds": 0.0}],
        [evaluation(0, 5000.0, ln_v=1e300), evaluation(1, -1.0, bits_per_byte=float("nan"))],
    ],
    ids=["nothing", "one step", "one evaluation", "not finite", "all zero", "absurd"],
)
def test_any_ledger_gives_a_whole_page(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    out = write_report(tmp_path / "report.html", [run_with(tmp_path / "run", *rows)], runner=None, now=NOW)

    assert "html" in parsed(out).tags
    assert "nan" not in re.sub(r"<style.*?</style>", "", out.read_text("utf-8"), flags=re.S)


def test_hostile_names_are_text_everywhere(tmp_path: Path) -> None:
    root = run_with(
        tmp_path / "run",
        evaluation(1, 3.0),
        {"kind": "event", "step": 1, "event": "oom", "text": HOSTILE},
        {"kind": "event", "step": 1, "event": HOSTILE, "text": ""},
    )
    write_sample_rows(
        RunDir(root=root),
        [SampleRow(step=1, number=0, prompt=HOSTILE, seed=1, text=HOSTILE, tokens=1, new_tokens=0, overlap=HOSTILE)],
    )
    row = {"hope": "No forgetting", "key": "k", "name": HOSTILE, "value": 1.0, "text": HOSTILE}
    hopes = {"format": 1, "step": 1, "figures": [row], "notes": [HOSTILE]}
    (root / "eval" / "hopes.json").write_text(json.dumps(hopes), "utf-8")
    geometry = {"measures": [{"name": HOSTILE, "value": 1, "text": HOSTILE}], "most_moved": [{"word": HOSTILE}]}
    (root / "eval" / "geometry.json").write_text(json.dumps(geometry), "utf-8")
    runner = {
        "run": {"state": HOSTILE, "reason": HOSTILE, "attempts": [{HOSTILE: HOSTILE}], "events": [{"text": HOSTILE}]}
    }

    out = write_report(tmp_path / "report.html", [root], runner=runner, now=NOW)

    page = parsed(out)
    assert page.tags.count("style") == 1
    assert not {"script", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "\x00" not in out.read_text("utf-8")
    assert "\u202e" not in out.read_text("utf-8")
    assert out.read_text("utf-8").count("&lt;script&gt;") >= 9


def test_it_reaches_for_nothing_outside_the_file(tmp_path: Path) -> None:
    out = write_report(tmp_path / "report.html", [run_with(tmp_path / "run", evaluation(1, 3.0))], runner=None, now=NOW)

    page = parsed(out)

    links = [value or "" for name, value in page.attributes if name in ("src", "href", "srcset", "action")]
    assert [link for link in links if not link.startswith(("#", "data:image/png;base64,"))] == []
    assert "url(" not in out.read_text("utf-8")


def test_figures_of_the_ledger_stand_in_the_page(tmp_path: Path) -> None:
    rows = [
        evaluation(0, 7.25, ln_v=6.5),
        evaluation(50, 6.125, bits_per_byte=1.875, ln_v=6.5),
        evaluation(100, 6.25, ln_v=6.5),
    ]

    text = write_report(tmp_path / "r.html", [run_with(tmp_path / "run", *rows)], runner=None, now=NOW).read_text(
        "utf-8"
    )

    assert "The best model is 0.38 nats below guessing evenly (ln V = 6.50)." in text
    assert "Held-out loss fell by 1.1250 nats since step 0." in text
    assert ">6.1250<" in text
    assert ">1.8750<" in text
    assert "2026-06-09 00:00 UTC" in text


def test_a_model_worse_than_guessing_is_called_that(tmp_path: Path) -> None:
    root = run_with(tmp_path / "run", evaluation(100, 15.05, ln_v=12.19))

    assert "worse than guessing" in write_report(tmp_path / "r.html", [root], runner=None, now=NOW).read_text("utf-8")


def test_a_shorter_context_is_marked_in_the_curve_and_listed(tmp_path: Path) -> None:
    regime = {"kind": "event", "step": 5, "event": "regime", "text": "context 256 to 128"}
    root = run_with(tmp_path / "run", evaluation(0, 3.0), evaluation(10, 2.0), regime)

    text = write_report(tmp_path / "r.html", [root], runner=None, now=NOW).read_text("utf-8")

    assert "recorded change (REGIME): context 256 to 128 (step 5)" in text
    assert ">context 256 to 128<" in text


def test_a_layer_path_that_was_not_taken_is_told_at_the_top(tmp_path: Path) -> None:
    said = "lean: the output of layer 1 is 0.29 away from the library's; rounding explains 1e-06: not used"
    refusal = {"kind": "event", "step": 0, "event": "layers", "text": said}
    root = run_with(tmp_path / "run", evaluation(0, 3.0), refusal)

    text = write_report(tmp_path / "r.html", [root], runner=None, now=NOW).read_text("utf-8")

    assert "Step 0: lean: the output of layer 1 is 0.29 away" in text.partition("<h3>")[0]


def test_a_job_that_only_got_worse_is_called_that(tmp_path: Path) -> None:
    root = run_with(tmp_path / "run", evaluation(0, 5.6), evaluation(10, 5.7), evaluation(20, 5.8))

    text = write_report(tmp_path / "r.html", [root], runner=None, now=NOW).read_text("utf-8")

    assert "No evaluation is better than the one at step 0: training has not helped so far." in text


def test_several_jobs_are_overlaid_by_bits_per_byte(tmp_path: Path) -> None:
    roots = [
        run_with(tmp_path / name, evaluation(0, 9.0, bits_per_byte=3.0), evaluation(9, 8.0, bits_per_byte=level))
        for name, level in (("first", 2.5), ("second", 2.25))
    ]

    text = write_report(tmp_path / "r.html", roots, runner=None, now=NOW).read_text("utf-8")

    assert "Bits per byte, all jobs" in text
    assert "line job-0" in text
    assert "line job-1" in text
    assert text.count('class="job"') == 2


@pytest.mark.parametrize(("windows", "warned"), [(8, False), (16, True)])
def test_jobs_measured_on_other_texts_are_not_compared_in_silence(tmp_path: Path, windows: int, warned: bool) -> None:
    roots = []
    for name, limit in (("first", 8), ("second", windows)):
        roots.append(run_with(tmp_path / name, evaluation(0, 9.0, bits_per_byte=3.0)))
        job = {
            "name": name,
            "phase": "p1",
            "model": {"base": "tiny"},
            "vocab": {"lexicon": "lexicon"},
            "data": {"corpus": "wake.txt"},
            "train": {"steps": 100, "lr": 0.01},
            "evaluate": {"max_windows": limit},
        }
        (roots[-1] / "spec.json").write_text(json.dumps({"job": job}))

    text = write_report(tmp_path / "r.html", roots, runner=None, now=NOW).read_text("utf-8")

    assert ("not measured on the same text" in text) is warned


def test_rows_of_the_runner_are_shown_with_columns_it_may_have_grown(tmp_path: Path) -> None:
    attempts = [{"id": 3, "started_at": 1771750000.0, "outcome": "lost", "plan": "micro 2"}, {"id": 4, "cause": "cut"}]

    root = run_with(tmp_path / "run", evaluation(1, 2.0))
    text = write_report(tmp_path / "r.html", [root], runner={"run": {"attempts": attempts}}, now=NOW).read_text("utf-8")

    for expected in ("2026-02-22 08:46", "lost", "micro 2", "cut", ">started<", ">plan<"):
        assert expected in text


def test_two_attempts_on_one_machine_are_one_session_with_its_card(tmp_path: Path) -> None:
    root = run_with(tmp_path / "run", *({"kind": "step", "step": n, "loss": 1.0, "tokens": 4} for n in range(1, 31)))
    attempts = [
        {"id": n, "session": session, "first_step": step} for n, session, step in ((1, 7, 0), (2, 7, 10), (3, 9, 20))
    ]
    sessions = [
        {"id": 7, "gpu": "Tesla T4", "started_at": 1771750000.0},
        {"id": 9, "gpu": "A100", "started_at": 1771850000.0},
    ]

    view = read_run(root, {"run": {"attempts": attempts, "sessions": sessions}})

    assert [(fact.first_step, fact.gpu) for fact in view.facts.sessions] == [(0, "Tesla T4"), (20, "A100")]
    assert view.facts.sessions[1].started_at == 1771850000.0


def test_samples_of_several_steps_are_laid_side_by_side(tmp_path: Path) -> None:
    root = run_with(tmp_path / "run", evaluation(2, 5.0), evaluation(4, 4.0))
    rows = [
        SampleRow(
            step=step, number=number, prompt="riverrun", seed=number, text="one two three four", tokens=9,
            new_tokens=step // 2, mean_surprisal=surprisal, overlap_words=number + step,
        )
        for step in (2, 4)
        for number, surprisal in enumerate((4.0, None))
    ]  # fmt: skip
    write_sample_rows(RunDir(root=root), rows)

    page = write_report(tmp_path / "report.html", [root], runner=None, now=NOW).read_text("utf-8")

    table = page[page.index("<h3>Samples</h3>") :].split("</table>")[0]
    assert re.findall(r"<td[^>]*>([^<]*)</td>", table) == ["2", "25.0", "4.00", "3", "4", "50.0", "4.00", "5"]


def test_a_folder_that_is_no_run_is_told_with_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = use(ReportOptions(out=tmp_path / "r.html", runs=[tmp_path / "absent"]))

    assert code == 1
    assert str(tmp_path / "absent") in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()


def test_facts_that_are_no_json_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "facts.json").write_text("{")

    code = use(ReportOptions(out=tmp_path / "r.html", runs=[run_with(tmp_path / "run")], facts=tmp_path / "facts.json"))

    assert code == 1
    assert "facts.json" in capsys.readouterr().err


def test_a_report_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    run_with(tmp_path / "run", evaluation(1, 2.0))
    program = (
        "import sys; from wake2vec.contract.options import ReportOptions; from wake2vec.use.__main__ import use; "
        "code = use(ReportOptions(out=sys.argv[1], runs=sys.argv[2:])); "
        "sys.exit(code or int(any(name in sys.modules for name in ('torch', 'transformers', 'peft'))))"
    )

    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "r.html"), str(tmp_path / "run")], check=False)

    assert done.returncode == 0


def test_a_run_that_is_being_written_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    root = run_with(tmp_path / "run", evaluation(1, 2.0))
    for name in ("spec.json", "logs/training_log.json", "eval/geometry.json", "eval/samples.jsonl"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text('{"job": {"na')

    view = read_run(root)

    assert (view.name, view.job, view.samples, view.geometry) == ("run", None, (), None)
    assert view.ledger.best is not None


def test_escaping_and_tables() -> None:
    assert plain("<&\"'>\x1b") == "&lt;&amp;&quot;&#x27;&gt;\ufffd"
    assert el("p", "a<b", None, ["c", 1], title='"', hidden=False) == '<p title="&quot;">a&lt;bc1</p>'
    assert '<td class="n">-1.50</td>' in table(["x", "y"], [("-1.50", "word"), ("best", "other")])


@pytest.mark.parametrize(("low", "high"), [(0.0, 3000.0), (11.9, 21.6), (-0.001, 0.001), (0, 1e-9), (5e5, 5.1e5)])
def test_ticks_are_round_and_within(low: float, high: float) -> None:
    found = ticks(low, high, most=6)

    assert 2 <= len(found) <= 7
    assert all(low - 1e-12 <= tick <= high + 1e-12 for tick in found)


def test_a_chart_of_nothing_finite_is_none() -> None:
    assert (
        draw(Chart(title="t", y_label="y", series=[Series(name="s", points=[(1, float("nan"))], look="ink")])) is None
    )


@pytest.mark.parametrize(("level", "inside"), [(6.2, True), (12.19, False), (1.0, False)])
def test_a_level_far_from_the_curves_is_a_note_and_presses_nothing_flat(level: float, inside: bool) -> None:
    line = Series(name="held out", points=[(0, 6.0), (100, 5.0)], look="val", dots=True)

    picture = draw(Chart(title="Loss", y_label="nats", series=[line], levels=[(level, "ln V", "floor")]))

    assert picture is not None
    assert ('class="level floor"' in picture) is inside
    assert ("ln V lies above the picture." in picture) is (level == 12.19)
    assert ("ln V lies below the picture." in picture) is (level == 1.0)
    if not inside:  # the curve uses the height of its picture
        heights = [float(point.split(",")[1]) for point in re.search(r'points="([^"]*)"', picture)[1].split()]  # type: ignore[index]
        assert max(heights) - min(heights) > 200


def test_an_attempt_names_its_card_and_what_was_trained_again(tmp_path: Path) -> None:
    root = run_with(tmp_path / "a", evaluation(0, 3.0))
    attempts = [
        {"id": 1, "session": 1, "gpu": 0, "first_step": 0, "last_step": 160, "outcome": "lost"},
        {"id": 2, "session": 2, "gpu": 1, "first_step": 100, "last_step": 200, "outcome": "completed"},
    ]
    sessions = [{"id": 1, "gpu": ""}, {"id": 2, "gpu": "Tesla T4, Tesla T4"}]
    runner = {"a": {"attempts": attempts, "sessions": sessions}}

    text = write_report(tmp_path / "r.html", [root], runner=runner, now=NOW).read_text("utf-8")

    assert ">CPU<" in text
    assert ">1: Tesla T4<" in text
    assert re.search(r">trained again<.*<td[^>]*>60<", text, re.DOTALL)


def test_one_of_a_thing_is_said_in_the_singular(tmp_path: Path) -> None:
    root = run_with(tmp_path / "a", evaluation(0, 3.0), {"kind": "event", "step": 0, "event": "resume"})
    write_sample_rows(
        RunDir(root=root), [SampleRow(step=5, number=0, prompt="p", seed=1, text="one", tokens=1, new_tokens=1)]
    )

    text = write_report(tmp_path / "r.html", [root], runner=None, now=NOW).read_text("utf-8")

    assert "Step 5: 1 text<" in text
    assert ">1 event<" in text


def test_the_words_of_another_book_are_not_called_wake_words(tmp_path: Path) -> None:
    root = run_with(tmp_path / "a", evaluation(0, 3.0, new_loss=5.0), evaluation(9, 2.0, new_loss=4.0))

    text = write_report(tmp_path / "r.html", [root], runner=None, now=NOW).read_text("utf-8")

    assert "new words" in text
    assert "Wake words" not in text

"""Render docs/pictures: `python -m bench.publish.pictures [RUN_DIR...] [--out FOLDER]`.

Always: curve and report of a 3,000-step history over 41 sessions, reconstructed from its author's notes. With run
directories (such as the demo's): their report, geometry and drift film. Pages become pictures in a headless Chromium.
"""

from __future__ import annotations

import argparse
import math
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from wake2vec.contract.files import write_atomic
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.spec import JOB_SPEC, JobSpec
from wake2vec.show.facts import RunFacts, SessionFact
from wake2vec.show.report.__main__ import write_report
from wake2vec.show.write import write_artefacts

# Qwen2.5-14B P1 as its author recorded it by hand over 41 Colab sessions, February to June 2026: step: train / held-out
# loss in nats. The train column was logged 16 times too high (accumulation) and is divided again here.
RECORDED = """
50:345.00/21.54 100:321.48/20.98 150:303.07/20.64 200:289.19/20.50 250:278.96/19.89 300:314.05/19.36 350:268.07/19.17
400:256.77/18.80 450:284.28/18.42 500:249.60/17.93 550:260.29/17.74 600:232.22/17.71 650:256.27/17.67 700:226.89/17.65
750:230.28/17.59 800:236.24/17.47 850:254.27/17.41 900:249.58/17.18 950:216.40/17.12 1000:213.99/16.95
1050:210.99/16.90 1100:206.32/16.80 1150:206.06/16.67 1200:200.33/16.65 1250:204.93/16.41 1300:200.57/16.32
1350:190.37/16.34 1400:197.10/16.23 1450:186.83/16.25 1500:195.01/16.14 1550:192.06/16.05 1600:182.28/16.11
1650:189.35/16.01 1700:232.25/15.89 1750:189.83/15.81 1800:185.09/15.79 1850:220.09/15.72 1900:184.87/15.67
1950:173.25/15.76 2000:182.05/15.63 2050:180.66/15.62 2100:170.09/15.69 2150:177.66/15.61 2200:211.59/15.53
2250:205.27/15.45 2300:200.39/15.44 2350:162.55/15.55 2400:202.52/15.42 2450:156.75/15.50 2500:240.25/15.18
2550:172.06/15.25 2600:202.92/15.24 2650:148.83/15.38 2700:224.45/15.05 2750:167.51/15.17 2800:195.27/15.09
2850:193.69/15.06 2900:188.59/15.09 2950:140.21/15.12 3000:186.48/15.09
"""
ACCUMULATION, PEAK_LR, STEPS, SESSIONS = 16, 5e-4, 3000, 41
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
RECONSTRUCTED = "qwen_p1_reconstructed"
VOCABULARY, NEW, BLOCKS, SEQ_LEN = 195_888, 44_223, 3221, 128
NEVER_SEEN = 1301  # blocks: each session began the same shuffled order anew


def recorded() -> list[tuple[int, float, float]]:
    """(step, train, held-out) in nats per token."""
    rows = (entry.replace(":", "/").split("/") for entry in RECORDED.split())
    return [(int(step), float(train) / ACCUMULATION, float(val)) for step, train, val in rows]


def session_starts(seed: int = 41) -> list[int]:
    """Steps at which 41 sessions could have begun: lengths drawn as in the notes, mean 73, two of them without gain."""
    chance = random.Random(seed)
    lengths = [0 if number in (7, 23) else chance.choice((40, 60, 80, 80, 80, 100, 120)) for number in range(SESSIONS)]
    scale = STEPS / sum(lengths)
    ends = [sum(lengths[: number + 1]) * scale for number in range(SESSIONS)]
    return [0, *(int(end) for end in ends[:-1])]


def restarted_lr(step: int, start: int) -> float:
    """The learning rate of those sessions: each began its own warm-up and its own cosine over the steps left."""
    left = STEPS - start
    warm_up, local = max(20, left // 20), step - start
    if local < warm_up:
        return PEAK_LR * local / warm_up
    return PEAK_LR * 0.5 * (1 + math.cos(math.pi * (local - warm_up) / max(1, left - warm_up)))


def reconstruct(root: Path) -> tuple[RunDir, JobSpec, RunFacts]:
    """A run directory with this history. Between the recorded points everything is filled in, and is no measurement."""
    run, chance = RunDir(root=root), random.Random(3000)
    points = recorded()
    lines: list[str] = []
    for step in range(1, STEPS + 1):
        after = next(point for point in points if point[0] >= step)
        lr = restarted_lr(step, max(start for start in session_starts() if start < step))
        loss, seconds = after[1] + chance.gauss(0, 0.25), 118 + chance.gauss(0, 6)  # notes: 104 to 135 s a step
        lines.append(
            f'{{"kind":"step","step":{step},"loss":{loss:.5f},"tokens":2048,"lr":{lr:.4e},"seconds":{seconds:.1f}}}'
        )
        if step == after[0]:
            lines.append(
                f'{{"kind":"evaluation","step":{step},"loss":{after[2]},"tokens":45824,"ln_v":{math.log(VOCABULARY):.5f},'
                f'"checkpoint":"checkpoint-{step}"}}'
            )
    write_atomic(run.metrics, ("\n".join(lines) + "\n").encode(), durable=False)
    started = [1_771_750_000 + 225_000 * number for number in range(SESSIONS)]
    sessions = tuple(
        SessionFact(first_step=first, started_at=at, gpu="Tesla T4")
        for first, at in zip(session_starts(), started, strict=True)
    )
    job = JOB_SPEC.validate_python(
        {
            "name": RECONSTRUCTED,
            "phase": "p1",
            "model": {"base": "Qwen/Qwen2.5-14B"},
            "vocab": {"lexicon": "lexicon"},
            "data": {"corpus": "corpus.txt", "seq_len": SEQ_LEN},
            "train": {"steps": STEPS, "lr": PEAK_LR},
        }
    )
    facts = RunFacts(
        model="Qwen/Qwen2.5-14B (reconstructed from the author's notes)",
        base_tokens=VOCABULARY - NEW,
        first_new_id=VOCABULARY - NEW,
        n_new=NEW,
        train_blocks=BLOCKS,
        coverage=1 - NEVER_SEEN / BLOCKS,
        held_out_windows=358,
        sessions=sessions,
    )
    return run, job, facts


def render(out: Path, runs: Sequence[Path]) -> list[Path]:
    """The pictures that could be made; without Chromium those of pages are left out."""
    with tempfile.TemporaryDirectory() as scratch:
        run, job, facts = reconstruct(Path(scratch) / RECONSTRUCTED)
        write_artefacts(run, job=job, facts=facts)
        made = [_copy(run.evaluation / "val_loss_curve.png", out / "curve-reconstructed.png")]
        report = _report(Path(scratch) / "reconstructed.html", [run.root])
        made += _shots(report, out / "report-reconstructed", height=1500)
        if runs:
            report = _report(Path(scratch) / "runs.html", runs)
            made += _shots(report, out / "report", height=2600)
        for root in runs:
            made += _of_run(RunDir(root=root), out)
    return made


def _of_run(run: RunDir, out: Path) -> list[Path]:
    names = {"val_loss_curve.png": "curve", "geometry.png": "geometry"}
    made = [
        _copy(run.evaluation / name, out / f"{short}-{run.root.name}.png")
        for name, short in names.items()
        if (run.evaluation / name).is_file()
    ]
    film = run.evaluation / "geometry_film.html"
    if film.is_file():
        made += _shots(film, out / f"film-{run.root.name}", height=760, widths=(900,), schemes=("light",))
    return made


def _report(page: Path, runs: Sequence[Path]) -> Path:
    return write_report(page, runs, runner=None, now=datetime.now(UTC))


def _shots(
    page: Path,
    to: Path,
    *,
    height: int,
    widths: Sequence[int] = (1280, 390),
    schemes: Sequence[str] = ("light", "dark"),
) -> list[Path]:
    """One picture for each width and colour scheme."""
    chromium = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if chromium is None:
        print(f"{page.name}: no Chromium here, no picture of it", file=sys.stderr)
        return []
    made = []
    for scheme in schemes:
        for width in widths:
            picture = to.with_name(f"{to.name}-{width}-{scheme}.png")
            _shoot(chromium, page, picture, width, height, scheme)
            made.append(picture)
    return made


def _shoot(chromium: str, page: Path, picture: Path, width: int, height: int, scheme: str) -> None:
    # Chromium makes no window below 500 pixels: a phone is a frame in a wider one, cut off afterwards
    with tempfile.TemporaryDirectory() as scratch:
        frame = Path(scratch) / "frame.html"
        frame.write_text(
            f'<meta name="color-scheme" content="light dark"><body style="margin:0">'
            f'<iframe src="{page.absolute().as_uri()}" style="border:0;width:{width}px;height:{height}px"></iframe>'
        )
        command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [
            f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
            "--virtual-time-budget=2500",
        ]
        command += [f"--user-data-dir={scratch}/profile", f"--window-size={max(width, 500)},{height}"]
        raw = Path(scratch) / "raw.png"
        subprocess.run([*command, f"--screenshot={raw}", frame.as_uri()], check=True, capture_output=True, timeout=180)
        _cut(raw, picture, width, height)


def _cut(raw: Path, picture: Path, width: int, height: int) -> None:
    """The part that is page, in 256 colours: a page has few, and the repository keeps every version."""
    from PIL import Image

    picture.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(raw) as image:
        image.crop((0, 0, width, height)).convert("RGB").quantize(256).save(picture, optimize=True)


def _copy(source: Path, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, to)
    return to


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.publish.pictures", description="Render the pictures of the docs."
    )
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN_DIR", help="such as the demo's, measured before")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "docs" / "pictures")
    asked = parser.parse_args()
    for path in render(asked.out, asked.runs):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

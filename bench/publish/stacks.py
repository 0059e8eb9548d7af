"""Build every set of packages that people have, and run the core of the suite and a cut job in each: `make stacks`.

`stacks/*.txt` hold the versions. The story runs from the wheel, in an empty folder, as on a machine of a newcomer.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.publish.wheel import build_wheel

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / ".stacks"
PAGE = ROOT / "docs" / "stacks.md"
RESULTS = ROOT / "docs" / "stacks.json"
TOOLS = ("pytest", "pytest-timeout", "hypothesis")  # at the versions of constraints.txt
# Fast, and each meets the libraries where versions differ.
CORE = (
    "tests/unit/wake2vec/vocab/test_inject.py",
    "tests/unit/wake2vec/data/test_cache.py",
    "tests/unit/wake2vec/data/test_blocks.py",
    "tests/unit/wake2vec/model/test_load.py",
    "tests/unit/wake2vec/train/test_checkpoint.py",
    "tests/unit/wake2vec/model/test_new_rows.py",
    "tests/unit/wake2vec/contract/test_spec.py",
    "tests/unit/runner/test_cli.py",
    "tests/unit/runner/jobfile/test_read.py",
    "tests/unit/runner/daemon/test_loops.py",
    "tests/unit/runner/screen/test_render.py",
    "tests/unit/runner/queue/test_queue.py",
    "tests/unit/runner/store/drive/test_store.py",
    "tests/unit/runner/store/places/test_fsspec.py",
)
SETTINGS = "tick_seconds = 0.2\nsync_seconds = 0.3\nbackoff_first_seconds = 0\n"
CUT_AT = 12
STORY_SECONDS = 600


class StackFailed(Exception):
    """A step in a stack did not do what it must."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.publish.stacks", description=__doc__)
    parser.add_argument("names", nargs="*", default=sorted(path.stem for path in (ROOT / "stacks").glob("*.txt")))
    parser.add_argument("--check", action="store_true", help="write nothing: for CI")
    chosen = parser.parse_args(arguments)
    wheel = build_wheel(PLACE / "wheel")
    results = []
    for name in chosen.names:
        results.append(run_stack(name, wheel))
        if not chosen.check:
            publish(results)
    return 0 if all(one["passed"] for one in results) else 1


def run_stack(name: str, wheel: Path) -> dict[str, Any]:
    """Every figure of one stack; a failure is a result, so that the next stack is tried."""
    began = time.monotonic()
    result: dict[str, Any] = {"stack": name, "passed": False, "date": datetime.date.today().isoformat()}
    print(f"{name}: building", flush=True)
    try:
        python = build(name, wheel)
        result |= facts(python, name)
        print(f"{name}: core of the suite, {time.monotonic() - began:.0f} s", flush=True)
        result["tests"] = core(python)
        print(f"{name}: {result['tests']} tests; P1, kill -9, P2, export, {time.monotonic() - began:.0f} s", flush=True)
        result["story"] = story(python, PLACE / f"{name}.story")
        result["passed"] = True
    except StackFailed as error:
        result["failure"] = str(error)[-2000:]
        print(f"{name}: FAILED\n{result['failure']}", flush=True)
    result["seconds"] = round(time.monotonic() - began)
    print(f"{name}: {'passed' if result['passed'] else 'failed'}, {result['seconds']} s", flush=True)
    return result


def build(name: str, wheel: Path) -> Path:
    """The stack's own Python, built anew when its list changed; the wheel is always put in again."""
    listed = ROOT / "stacks" / f"{name}.txt"
    place, built = PLACE / name, PLACE / name / "built.txt"
    python = place / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    wanted = listed.read_text() + "".join(tools())
    if not built.is_file() or built.read_text() != wanted:
        shutil.rmtree(place, ignore_errors=True)
        call([interpreter(listed), "-m", "venv", str(place)])
        call([*pip, "-r", str(listed), *tools()])
        built.write_text(wanted)
    call([*pip, "-c", str(listed), "--force-reinstall", "--no-deps", str(wheel)])
    call([*pip, "-c", str(listed), str(wheel)])  # what it needs beside the list, at any version
    return python


def interpreter(listed: Path) -> str:
    """The one that the list asks for (`# python 3.12`), else this one."""
    asked = re.search(r"^# python (\S+)$", listed.read_text(), re.MULTILINE)
    return f"python{asked[1]}" if asked else sys.executable


def tools() -> list[str]:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    return [f"{tool}=={pinned[tool]}" for tool in TOOLS]


def facts(python: Path, name: str) -> dict[str, Any]:
    """Python and the version that really is there of everything that the project depends on."""
    script = (
        "import json, platform, re; from importlib.metadata import requires, version;"
        "names = [re.match(r'[\\w-]+', one)[0] for one in requires('wake2vec-runner') if 'extra' not in one];"
        "names += ['click', 'tokenizers', 'huggingface_hub'];"
        "print(json.dumps([platform.python_version(), {name: version(name) for name in names}]))"
    )
    version, versions = json.loads(call([str(python), "-c", script]))
    return {"python": version, "versions": versions}


def core(python: Path) -> int:
    """How many tests passed. The libraries' own warnings are theirs here."""
    options = [
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "filterwarnings=",
        "-o",
        "addopts=--strict-markers --import-mode=importlib",
    ]
    said = call([str(python), "-m", "pytest", *options, *CORE], cwd=ROOT)
    counted = re.search(r"(\d+) passed", said)
    return int(counted[1]) if counted else 0


def story(python: Path, folder: Path) -> dict[str, Any]:
    """new, enqueue, start, kill -9 of everything, start, export, from the wheel alone in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "home").mkdir(parents=True)
    (folder / "home" / "settings.toml").write_text(SETTINGS)
    runner = [str(python.parent / "wake2vec-runner"), "--home", "home", "--store", "dir:store"]
    call([*runner, "new", "tiny_p2"], cwd=folder)
    call([*runner, "enqueue", "tiny_p1.toml", "tiny_p2.toml"], cwd=folder)
    with (folder / "start.log").open("wb") as log:
        daemon = subprocess.Popen(
            [*runner, "start"], cwd=folder, stdout=log, stderr=log, env=surroundings(), start_new_session=True
        )
    cut_at = wait_for_step(folder / "home" / "runs" / "tiny_p1" / "heartbeat.json", daemon, folder / "start.log")
    daemon.kill()
    daemon.wait()
    trainer = json.loads((folder / "home" / "runs" / "tiny_p1" / "heartbeat.json").read_text())["pid"]
    os.killpg(trainer, 9)
    call([*runner, "start", "--until-empty"], cwd=folder, seconds=STORY_SECONDS)
    status = json.loads(call([*runner, "status", "--json"], cwd=folder))
    states = {job["name"]: job["state"] for job in status["jobs"]}
    if states != {"tiny_p1": "succeeded", "tiny_p2": "succeeded"}:
        raise StackFailed(f"the jobs ended as {states}")
    call([*runner, "export", "tiny_p2", "--to", "out"], cwd=folder)
    load = "import transformers as t; [one.from_pretrained('out') for one in (t.AutoModelForCausalLM, t.AutoTokenizer)]"
    call([str(python), "-c", load], cwd=folder)
    return {"cut_at_step": cut_at}


def wait_for_step(heartbeat: Path, daemon: subprocess.Popen[bytes], log: Path) -> int:
    give_up = time.monotonic() + STORY_SECONDS
    while True:
        step = json.loads(heartbeat.read_text())["step"] if heartbeat.is_file() else 0
        if step >= CUT_AT:
            return int(step)
        if daemon.poll() is not None or time.monotonic() > give_up:
            daemon.kill()
            raise StackFailed(f"step {CUT_AT} was not reached:\n{log.read_text()[-1500:]}")
        time.sleep(0.1)


def surroundings() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def call(command: list[str], *, cwd: Path | None = None, seconds: float = 1200) -> str:
    """What it said on its standard output. Raises StackFailed with all that it said."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=surroundings(), capture_output=True, text=True, timeout=seconds, check=False
        )
    except (subprocess.TimeoutExpired, FileNotFoundError) as error:
        raise StackFailed(f"{' '.join(command[:6])}: {error}") from error
    if done.returncode:
        raise StackFailed(
            f"{' '.join(command[:6])}: exit {done.returncode}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
        )
    return done.stdout


def publish(results: list[dict[str, Any]]) -> None:
    """Stacks that were not run now keep their last result."""
    before = json.loads(RESULTS.read_text())["stacks"] if RESULTS.is_file() else []
    table = {one["stack"]: one for one in [*before, *results]}
    stacks = [table[name] for name in sorted(table)]
    RESULTS.write_text(json.dumps({"format": 1, "machine": machine(), "stacks": stacks}, indent=1) + "\n")
    PAGE.write_text(page(stacks))


def machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, no GPU"


def page(stacks: list[dict[str, Any]]) -> str:
    names = [one["stack"] for one in stacks]
    rows = list(dict.fromkeys(name for one in stacks for name in one.get("versions", {})))
    lines = [
        "# Stacks that are run",
        "",
        "`make stacks` builds each of these sets of packages, runs the core of the suite in it, and then, from the wheel",
        "in an empty folder: `new`, `enqueue`, `start`, kill -9 of daemon and trainer, `start`, `export` of P2, whose",
        "result plain transformers loads. It writes this page. `stacks/` holds the lists and says where they come from;",
        "CI runs Colab's and the lowest every time. torch is the one build that is small here, 2.13.0 for the CPU on Python",
        "3.11; *colab-py312* is Colab's list with its own torch on Python 3.12, built by hand (5.6 GB) for the story alone.",
        "",
        f"| | {' | '.join(names)} |",
        f"| --- |{' --- |' * len(names)}",
        f"| passed | {' | '.join('yes' if one['passed'] else 'NO' for one in stacks)} |",
        f"| tests | {' | '.join(str(one.get('tests', '–')) for one in stacks)} |",
        f"| date | {' | '.join(one['date'] for one in stacks)} |",
        f"| python | {' | '.join(one.get('python', '–') for one in stacks)} |",
    ]
    lines += [f"| {row} | {' | '.join(one.get('versions', {}).get(row, '–') for one in stacks)} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

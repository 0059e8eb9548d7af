"""Any training command as a phase of the trainer."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import time

import pytest

from tests.zygote import python
from wake2vec.contract.files import digest_file, write_json
from wake2vec.contract.manifest import read_manifest, saved_steps, verify_checkpoint
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import RunDir, read_result
from wake2vec.contract.spec import JOB_SPEC
from wake2vec.train.command import numbered

# Writes checkpoint-1 … checkpoint-N, each with the chain of everything before; goes on from `resume`.
PROGRAM = """
import pathlib, sys
folder, resume, steps, stop = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
chain = pathlib.Path(resume, "chain.txt").read_text() if resume else ""
for step in range(len(chain) + 1, steps + 1):
    chain += "x"
    own = folder / f"checkpoint-{step}"
    (own / "sub").mkdir(parents=True, exist_ok=True)
    (own / "chain.txt").write_text(chain)
    (own / "sub" / "more.bin").write_bytes(bytes(step))
    if step == stop:
        print("boom")
        sys.exit(3)
(folder / "model.txt").write_text(chain)
"""


@pytest.fixture
def run(tmp_path):
    return RunDir(root=tmp_path / "run")


def order(run, attempt=1, *, stop=0, steps=4, program=PROGRAM):
    words = ["python", "-c", program, "{checkpoint_dir}", "{resume_from}", "{steps}", str(stop)]
    job = JOB_SPEC.validate_python({"name": "f", "phase": "command", "steps": steps, "command": words})
    run.root.mkdir(exist_ok=True)
    table = Order(
        job=job,
        fingerprint="print",
        attempt=attempt,
        inputs=[],
        inputs_folder="none",
        gpu_lock=str(run.root.parent / "gpu0.lock"),
    )
    write_json(run.order, table.model_dump(mode="json"))


def attempt(run, **told):
    """In a process of its own: it takes a lock and signals."""
    order(run, **told)
    with open(run.log, "ab") as log:
        ended = subprocess.run(python("wake2vec", run.root), stdout=log, stderr=log, check=False)
    result = read_result(run)
    assert ended.returncode == (0 if result.outcome == "completed" else 1)
    return result


def test_every_folder_of_the_command_becomes_a_checkpoint_and_the_rest_the_result(run):
    result = attempt(run)

    assert (result.outcome, result.step) == ("completed", 4)
    assert saved_steps(run) == [4, 3, 2, 1]
    verify_checkpoint(run.checkpoint(4), "print")
    assert (run.final / "model.txt").read_text() == "xxxx"


def test_a_command_that_fails_says_its_last_words_and_goes_on_from_its_own_checkpoint(run):
    attempt(run, steps=2)
    (run.root / "foreign" / "checkpoint-2" / "chain.txt").write_text("torn by the cut")
    failed = attempt(run, attempt=2, stop=3)
    assert (failed.outcome, failed.where) == ("failed", "training")
    assert failed.cause == "the command ended with exit code 3: boom"

    result = attempt(run, attempt=3)

    assert result.outcome == "completed"
    assert (run.final / "model.txt").read_text() == "xxxx"


def test_on_another_machine_there_is_nothing_but_the_checkpoint(run):
    attempt(run, steps=2)
    shutil.rmtree(run.root / "foreign")

    assert attempt(run, attempt=2, steps=3).outcome == "completed"
    assert [path.name for path in sorted((run.root / "foreign").iterdir())] == [
        "checkpoint-2",
        "checkpoint-3",
        "model.txt",
    ]


def test_a_damaged_archive_is_passed_over(run):
    attempt(run, steps=3)
    archive = run.checkpoint(3) / "archive.tar"
    archive.write_bytes(hashlib.sha256(b"").digest() + archive.read_bytes()[32:])

    result = attempt(run, attempt=2)

    assert result.outcome == "completed"
    assert list(run.checkpoints.glob("checkpoint-3.corrupt-*"))


def test_an_archive_cannot_write_outside_its_folder(run, tmp_path):
    attempt(run, steps=1)
    folder = run.checkpoint(1)
    with tarfile.open(folder / "archive.tar", "w") as archive:
        archive.add(folder / "state.json", arcname="../../../escaped.txt")
    table = read_manifest(folder).to_json()
    table["files"]["archive.tar"] = vars(digest_file(folder / "archive.tar"))
    write_json(folder / "manifest.json", table)

    result = attempt(run, attempt=2)

    assert result.outcome == "completed"
    assert "outside the destination" in run.log.read_text()
    assert not list(tmp_path.rglob("escaped.txt"))


def test_a_command_that_is_not_there_fails_with_a_remedy(run):
    order(run)
    job = JOB_SPEC.validate_python({"name": "f", "phase": "command", "steps": 1, "command": ["/no/such/program"]})
    table = Order.model_validate_json(run.order.read_text()).model_copy(update={"job": job})
    write_json(run.order, table.model_dump(mode="json"))
    subprocess.run(python("wake2vec", run.root), check=False)

    result = read_result(run)

    assert (result.outcome, result.where) == ("failed", "setup")
    assert "No such file" in result.cause
    assert result.remedy


def test_it_is_asked_to_stop_and_goes_on_from_what_had_come_to_rest(run):
    waits = PROGRAM.replace("import pathlib, sys", "import pathlib, sys, time").replace(
        "    if step == stop:", "    while step == stop:\n        time.sleep(0.1)\n    if False:"
    )
    order(run, stop=3, program=waits)
    trainer = subprocess.Popen(python("wake2vec", run.root))
    while not run.checkpoint(3).is_dir():
        assert trainer.poll() is None
        time.sleep(0.05)
    trainer.terminate()

    assert trainer.wait() == 0
    stopped = read_result(run)
    assert (stopped.outcome, stopped.step, stopped.cause) == ("yielded", 3, "asked to stop by SIGTERM")
    assert attempt(run, attempt=2).outcome == "completed"
    assert (run.final / "model.txt").read_text() == "xxxx"


def test_a_command_needs_neither_torch_nor_the_queue(run):
    order(run)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "wake2vec", str(run.root)],
        capture_output=True,
        text=True,
        check=True,
    )

    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "wake2vec.train.command" in loaded
    assert not {"torch", "sqlalchemy", "runner"} & loaded


def test_the_surroundings_of_a_command_are_those_of_its_trainer(run):
    program = "import os, pathlib, sys; own = pathlib.Path(sys.argv[1], 'step-1'); own.mkdir(exist_ok=True)\n"
    program += "(own / 'seen').write_text(str(os.environ.get('PYTORCH_CUDA_ALLOC_CONF')))\n"

    assert attempt(run, program=program).outcome == "completed"
    assert (run.root / "foreign" / "step-1" / "seen").read_text() == os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "None")


def test_a_command_without_a_checkpoint_has_not_succeeded(run):
    result = attempt(run, program="print('done nothing')")

    assert (result.outcome, result.cause) == ("failed", "the command ended without a checkpoint")


def test_folders_are_ordered_by_the_number_at_their_end(tmp_path):
    for name in ("step_10", "checkpoint-2", "model", "checkpoint-best"):
        (tmp_path / name).mkdir()

    assert [(step, path.name) for step, path in numbered(tmp_path)] == [(2, "checkpoint-2"), (10, "step_10")]

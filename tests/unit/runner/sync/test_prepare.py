"""What a home saved on top of another's commit is kept; what it saved beside it is not the job's past."""

from __future__ import annotations

from pathlib import Path

from runner.sync.prepare import built_on
from wake2vec.contract.files import write_json
from wake2vec.contract.manifest import MANIFEST, manifest_sha256
from wake2vec.contract.rundir import RunDir


def save(run: RunDir, step: int, parent: str | None) -> str:
    folder = run.checkpoint(step)
    folder.mkdir(parents=True)
    write_json(folder / MANIFEST, {"step": step, "parent": parent})
    return manifest_sha256(folder)


def test_checkpoints_saved_on_top_of_a_commit_belong_to_it(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path)
    committed = save(run, 20, None)
    second = save(run, 40, committed)
    third = save(run, 60, second)

    assert built_on(run, committed) == {committed, second, third}


def test_checkpoints_saved_beside_a_commit_do_not(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path)
    beside = save(run, 40, save(run, 20, None))
    save(run, 60, beside)

    assert built_on(run, "the commit of a rival") == {"the commit of a rival"}

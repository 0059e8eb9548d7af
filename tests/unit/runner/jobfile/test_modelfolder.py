"""A model folder is known without reading gigabytes, and another copy of it is told from another model."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import load_file, save_file

from runner.jobfile.modelfolder import digest_model, same_weights
from tests.machine import JOBS
from wake2vec.contract.order import InputFile

MODEL = JOBS / "tiny" / "model"


def digest(folder: Path) -> list[InputFile]:
    return [digest_model(folder, with_code=False)]


def changed(folder: Path, factor: float) -> Path:
    shutil.copytree(MODEL, folder)
    path = folder / "model.safetensors"
    tensors = {name: (tensor * factor).astype(tensor.dtype) for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("factor", [numpy.nan, 1.01])
def test_other_weights_in_the_same_outline_are_another_model(tmp_path: Path, factor: float) -> None:
    assert not same_weights(digest(MODEL), digest(changed(tmp_path / "model", factor)))


def test_a_copy_is_the_same_model(tmp_path: Path) -> None:
    shutil.copytree(MODEL, tmp_path / "model")

    assert digest(tmp_path / "model") == digest(MODEL)


def test_a_digest_without_samples_says_nothing_of_the_weights(tmp_path: Path) -> None:
    older = [item.model_copy(update={"weights": None}) for item in digest(MODEL)]

    assert same_weights(older, digest(changed(tmp_path / "model", 2.0)))
    assert same_weights([], digest(MODEL))


def test_the_digest_itself_is_that_of_older_versions() -> None:
    (found,) = digest(MODEL)

    assert found.sha256.startswith("8b11e3325f90")

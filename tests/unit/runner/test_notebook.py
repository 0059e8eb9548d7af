"""`%wake2vec` in any order, interrupted, and where there is neither Colab nor Kaggle."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from runner import notebook


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in (("HOME", tmp_path / "home"), ("STORE", f"dir:{tmp_path / 'store'}"), ("DRIVE_TOKEN", "")):
        monkeypatch.setenv(f"WAKE2VEC_{name}", str(value))
    return tmp_path / "home"


def test_a_report_before_the_first_step_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    notebook.wake2vec("report")

    assert capsys.readouterr().out.strip() == notebook.NOT_YET


def test_a_command_that_fails_says_so_and_raises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    notebook.wake2vec("hold 'no such job'")

    assert "error: no such job" in capsys.readouterr().out


def test_an_interrupt_reaches_the_command_once_and_its_end_is_waited_for(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        while "SIGINT" not in _handled(home):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()

    assert notebook.run(["start"]) == 130
    assert "SIGINT: saving, then leaving" in capsys.readouterr().out


def _handled(home: Path) -> str:
    """Which signals a daemon here takes care of; none before it has come so far."""
    try:
        pid = (home / "daemon.lock").read_text().split('"pid": ')[1].split(",")[0]
        caught = int(Path(f"/proc/{pid}/status").read_text().split("SigCgt:\t")[1].split("\n")[0], 16)
    except (OSError, IndexError):
        return ""
    return "SIGINT" if caught >> (signal.SIGHUP - 1) & 1 else ""


def test_signing_in_elsewhere_names_the_way_and_leaves_no_token_of_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(notebook.SECRET, "of an earlier run")

    notebook.sign_in("drive:wake2vec")

    assert "`wake2vec-runner login` signs in here; then run this cell again" in capsys.readouterr().out
    assert notebook.SECRET not in os.environ
    assert os.environ["WAKE2VEC_STORE"] == "drive:wake2vec"


def test_a_pushed_kaggle_notebook_finds_its_token_in_a_private_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Lost:
        def get_secret(self, name: str) -> str:
            raise ConnectionError("no such secret")

    monkeypatch.setitem(sys.modules, "kaggle_secrets", SimpleNamespace(UserSecretsClient=Lost))
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setenv("WAKE2VEC_STORE", "")
    monkeypatch.setenv(notebook.SECRET, "")
    monkeypatch.setattr(notebook, "KAGGLE_INPUT", tmp_path)
    notebook.sign_in("drive:wake2vec")
    without = capsys.readouterr().out
    token = tmp_path / "mine" / "drive-token.json"
    token.parent.mkdir()
    token.write_text("{}")

    notebook.sign_in("drive:wake2vec")

    assert "not signed in: add the secret" in without
    assert "or add a private dataset" in without
    assert os.environ[notebook.SECRET] == str(token)
    assert f"signed in by {token}" in capsys.readouterr().out


def test_a_store_on_the_hub_takes_its_token_from_a_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Secrets:
        def get_secret(self, name: str) -> str:
            return {"HF_TOKEN": "hf_me"}[name]

    monkeypatch.setitem(sys.modules, "kaggle_secrets", SimpleNamespace(UserSecretsClient=Secrets))
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setenv("WAKE2VEC_STORE", "")
    monkeypatch.setenv("HF_TOKEN", "")

    notebook.sign_in("hub:me/wake", with_click=True)

    assert (os.environ["WAKE2VEC_STORE"], os.environ["HF_TOKEN"]) == ("hub:me/wake", "hf_me")
    assert capsys.readouterr().out == "store: hub:me/wake, signed in by the secret HF_TOKEN\n"


def test_without_that_secret_it_says_which_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Lost:
        def get_secret(self, name: str) -> str:
            raise ConnectionError(name)

    monkeypatch.setitem(sys.modules, "kaggle_secrets", SimpleNamespace(UserSecretsClient=Lost))
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setenv("WAKE2VEC_STORE", "")

    notebook.sign_in("hub:me/wake")

    said = capsys.readouterr().out
    assert said.startswith("not signed in: add the secret HF_TOKEN")
    assert "drive-token" not in said

from __future__ import annotations

import json

import pytest

from runner.commands.setup import doctor
from runner.commands.setup.doctor import run
from runner.settings import read_settings


def _run(settings):
    with pytest.raises(SystemExit) as caught:
        run(settings, as_json=True)
    return caught.value.code


def test_a_sound_place_passes_every_probe_and_is_left_as_it_was(tmp_path, capsys):
    settings = read_settings(tmp_path / "home", f"dir:{tmp_path / 'store'}", {})

    assert _run(settings) == 0

    findings = {one["name"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["store, one author"]["ok"]
    assert "10 words added, 2 steps on an NF4 body, saved and loaded again" in findings["training"]["detail"]
    assert list((tmp_path / "store").iterdir()) == []


@pytest.fixture
def no_trial(monkeypatch):
    monkeypatch.setattr(doctor, "_trial", lambda: doctor._found("training", "left out by this test"))


def test_a_trial_that_fails_says_the_cause_of_the_trainer(tmp_path, capsys, monkeypatch):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "torch.py").write_text("raise ImportError('no kernels for this card')")
    monkeypatch.setenv("PYTHONPATH", str(broken))

    assert _run(read_settings(tmp_path / "home", f"dir:{tmp_path / 'store'}", {})) == 1

    findings = {one["name"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert "no kernels for this card" in findings["training"]["detail"]
    assert findings["training"]["meaning"] == "no job can train here before that is mended"


@pytest.mark.usefixtures("no_trial")
def test_a_notebook_without_a_card_and_a_store_on_the_mounted_drive_fail_with_a_remedy(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release-colab")
    monkeypatch.setattr(doctor, "read_cards", list)
    monkeypatch.setattr(doctor, "_store", lambda settings: [])

    assert _run(read_settings(tmp_path, "dir:/content/drive/MyDrive/wake", {})) == 1

    findings = {one["name"]: one for one in json.loads(capsys.readouterr().out)["findings"] if not one["ok"]}
    assert "Runtime → Change runtime type" in findings["card"]["meaning"]
    assert "use --store drive:FOLDER" in findings["store"]["meaning"]


@pytest.mark.usefixtures("no_trial")
def test_a_home_that_cannot_be_and_a_database_that_is_none_fail_with_their_meaning(tmp_path, capsys):
    (tmp_path / "runner.db").write_bytes(b"no database" * 999)

    assert _run(read_settings(tmp_path, None, {})) == 1

    findings = {one["name"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert not findings["queue"]["ok"]
    assert findings["queue"]["meaning"] == "the next start rebuilds it from the store"


@pytest.mark.usefixtures("no_trial")
def test_a_store_that_nobody_knows_fails(tmp_path, capsys):
    assert _run(read_settings(tmp_path, "carrier-pigeon:x", {})) == 1

    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [one["name"] for one in findings if not one["ok"]] == ["store, one author"] or not findings[-1]["ok"]

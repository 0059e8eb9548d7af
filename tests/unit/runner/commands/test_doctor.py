from __future__ import annotations

import json

import pytest

from runner.commands.doctor import run
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
    assert findings["torch"]["ok"]
    assert list((tmp_path / "store").iterdir()) == []


def test_a_home_that_cannot_be_and_a_database_that_is_none_fail_with_their_meaning(tmp_path, capsys):
    (tmp_path / "runner.db").write_bytes(b"no database" * 999)

    assert _run(read_settings(tmp_path, None, {})) == 1

    findings = {one["name"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert not findings["queue"]["ok"]
    assert findings["queue"]["meaning"] == "the next start rebuilds it from the store"


def test_a_store_that_nobody_knows_fails(tmp_path, capsys):
    assert _run(read_settings(tmp_path, "carrier-pigeon:x", {})) == 1

    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [one["name"] for one in findings if not one["ok"]] == ["store, one author"] or not findings[-1]["ok"]

"""Odd input of every kind is answered in a sentence with an exit code of its own, never as a bug."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from runner.cli import main
from runner.commands.plan import card_name
from runner.jobfile.faults import HUGGING_FACE
from runner.jobfile.read import read_job
from runner.queue.ledger import in_words
from runner.states import TRANSITIONS, Change, State, next_state
from tests.unit.runner.folders import write_jobs
from wake2vec.contract.budget import CARDS
from wake2vec.contract.errors import InputError, SpecError
from wake2vec.contract.words.lexicon import read_lexicon
from wake2vec.data.corpus import open_corpus

HUGE = "9" * 400


def ends(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    return write_jobs(tmp_path / "jobs")


def told(folder: Path, text: str) -> str:
    (folder / "b.toml").write_text(text)
    with pytest.raises(SpecError) as error:
        read_job(folder / "b.toml")
    return str(error.value)


@pytest.mark.parametrize("key", ["data.corpus", "vocab.lexicon", "model.base"])
def test_a_nul_in_a_path_is_named_by_its_key(folder: Path, key: str) -> None:
    name = key.split(".")[1]
    lines = (folder / "a_p1.toml").read_text().splitlines()
    text = "\n".join(f'{name} = "a\\u0000b"' if line.startswith(name) else line for line in lines)

    assert f"{key}: holds a NUL" in told(folder, text)


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000 + "]" * 5000, "a = " + "{a = " * 5000 + "1" + "}" * 5000, f"[{'.'.join('a' * 5000)}]"]
)
def test_a_file_nested_without_end_is_no_job_file(folder: Path, text: str) -> None:
    assert "nested too deeply" in told(folder, text) or "unknown key" in told(folder, text)


@pytest.mark.parametrize(
    "words",
    [
        ["extend", "a", HUGE], ["status", "--every", "1e300"], ["start", "--max-hours", HUGE],
        ["log", "a", "--lines", HUGE], ["log", "a", "--attempt", HUGE], ["plan", "a.toml", "--new-words", HUGE],
        ["start", "--max-hours", "nan"], ["start", "--store-patience", "inf"], ["start", "--store-patience", "nan"],
        ["status", "--every", "nan"], ["generate", "a", "--temperature", "nan"], ["extend", "a", "nan"],
        ["generate", "a", "--count", HUGE], ["generate", "a", "--seed", HUGE], ["geometry", "a", "--step", HUGE],
    ],
)  # fmt: skip
def test_a_huge_number_on_the_command_line_is_wrong_usage(tmp_path: Path, words: list[str]) -> None:
    assert ends("--home", tmp_path / "home", *words) == 2


def refused(path: Path) -> None:
    with pytest.raises(SpecError, match="pipe or a device"):
        read_job(path)


def test_pipes_and_devices_are_refused_and_waited_for_by_nobody(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    for place in (folder / "pipe", Path("/dev/zero"), Path("/dev/null")):
        thread = threading.Thread(target=refused, args=(place,), daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive(), place
        with pytest.raises(InputError, match="pipe or a device"):
            read_lexicon(place)
    for key in ("text.txt", "words.txt"):
        text = (folder / "a_p1.toml").read_text().replace(key, "pipe")
        (folder / "b.toml").write_text(text)
        assert ends("--home", folder / "home", "enqueue", folder / "b.toml") == 1


def test_a_schema_is_written_into_a_folder_that_is_there(tmp_path: Path) -> None:
    assert ends("schema", "--out", tmp_path / "no" / "such" / "s.json") == 1
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("key", ["learning_rate", "per_device_train_batch_size", "lora_alpha", "num_train_epochs"])
def test_the_names_of_hugging_face_are_answered_with_ours(folder: Path, key: str) -> None:
    text = (folder / "a_p1.toml").read_text().replace("lr = 1e-3", f"lr = 1e-3\n{key} = 1")

    assert f"train.{key}: unknown key; here it is {HUGGING_FACE[key]}" in told(folder, text)


def test_no_fault_means_an_empty_text(folder: Path) -> None:
    text = (folder / "a_p1.toml").read_text()
    for key in ("micro_batch", "layers", "schedule", "optimizer"):
        assert 'did you mean ""' not in told(folder, text.replace("lr = 1e-3", f'lr = 1e-3\n{key} = ""'))
    assert 'did you mean ""' not in told(folder, 'rows = ""\n' + text)


def test_no_word_of_the_machinery_is_shown_where_a_job_cannot_do_something() -> None:
    for state in State:
        for change in (Change.HOLD, Change.RELEASE, Change.CANCEL, Change.RETRY):
            if (state, change) not in TRANSITIONS:
                with pytest.raises(Exception, match=f"a {state} job cannot be asked to {change}") as error:
                    next_state(state, change)
                assert not {"claim", "succeed", "requeue", "fail"} & set(str(error.value).replace(",", "").split())


def test_a_change_is_told_in_words() -> None:
    assert in_words({"what": "set", "key": "runner.priority", "value": 5}) == "set: key runner.priority, value 5"
    assert "{" not in in_words(
        {"what": "import", "from": ["a.pt"], "told": ["10 rows"], "deep": {"what": "x", "y": [1]}}
    )


def test_joiners_are_letters_of_the_scripts_that_spell_with_them(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    words = ["می\u200cخواهم", "क्\u200dष", "ශ්\u200dරී"]
    path.write_text("\n".join(words))
    assert read_lexicon(path).words == tuple(words)
    for word in ("river\u200drun", "\u200cمی", "می\u200c", "a\u00adb", "می\u200c\u200cخ"):
        path.write_text(word)
        with pytest.raises(InputError, match="control character"):
            read_lexicon(path)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("T4", "t4"), ("2 x T4", "t4"), ("2xt4", "t4"), ("t4x2", "t4"), ("RTX 3090", "rtx3090"), ("4090", "rtx4090"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"), ("geforce-rtx-3090", "rtx3090"), ("A10G", "a10g"), ("L40S", "l40s"),
        ("a100-80g", "a100-80g"), ("Tesla V100", "v100"), ("4 x A100", "a100"),
    ],
)  # fmt: skip
def test_a_card_is_known_by_the_names_that_people_give_it(text: str, name: str) -> None:
    assert card_name(text) == name
    assert name in CARDS


@pytest.mark.parametrize("url", ["gdrive:foo", "DIR:/x", "dir:", "s3://bucket/x", "\0"])
@pytest.mark.parametrize("words", [["status", "--once"], ["hold", "a"], ["log", "a"], ["list"], ["extend", "a", "5"]])
def test_an_address_that_can_be_no_store_is_refused_by_every_command(
    tmp_path: Path, url: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "settings.toml").write_text(f"store = {json.dumps(url)}\n")

    assert ends("--home", tmp_path, *words) == 1
    assert "not a store; " in capsys.readouterr().err


@pytest.mark.parametrize("step", ["3.5", "-1", "٣", "newest", "", "best "])
def test_a_step_that_is_none_is_refused_in_words(tmp_path: Path, step: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ends("--home", tmp_path, "export", "a", "--to", tmp_path / "x", f"--step={step}") == 1
    assert f"--step: expected the number of a step, best or final, got {step!r}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["top-p", "repetition-penalty"])
def test_a_figure_that_is_no_number_is_refused(tmp_path: Path, name: str) -> None:
    assert ends("--home", tmp_path, "generate", "a", f"--{name}", "nan") in (1, 2)


@pytest.mark.parametrize("zone", ["Foo/Bar", ":::", "../../etc/passwd", "/dev/zero", "a" * 3000])
def test_a_time_zone_that_is_none_ends_nothing(tmp_path: Path, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert ends("--home", tmp_path, "status", "--once") == 0
        assert ends("--home", tmp_path, "start", "--until-empty") == 0
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_pipes_and_devices_are_no_client_and_no_text(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/zero")):
        assert ends("--home", tmp_path, "login", place) == 1
        with pytest.raises(InputError, match="pipe or a device"):
            open_corpus([place])

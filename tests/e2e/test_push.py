"""A result goes to the hub whole, once, and never over somebody else's model."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard

from tests.hub import Hub, running_hub
from tests.llamacpp import LlamaCpp
from tests.machine import JOBS, Machine, quick_machine

SHORT = [f"--set={one}" for one in ("evaluate.hopes=false", "evaluate.samples=0", "train.steps=8")]


@pytest.fixture
def hub():
    with running_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("push")
    machine = quick_machine(home=root / "home", store=root / "store")
    machine.run("enqueue", str(JOBS / "tiny_p1.toml"), *SHORT)
    machine.finish()
    return machine


def push(machine: Machine, hub: Hub, *words: str) -> subprocess.CompletedProcess[str]:
    here = {"HF_ENDPOINT": hub.url, "HF_HOME": str(machine.home / "hf"), "HF_TOKEN": "hf_nobody", "HF_HUB_OFFLINE": "0"}
    here["HF_HUB_DISABLE_XET"] = "1"  # the loopback hub speaks the older of the two upload protocols
    return machine.done("push", *words, **here)


def test_a_result_is_on_the_hub_in_one_commit_and_is_not_sent_twice(trained, hub):
    first = push(trained, hub, "tiny_p1", "me/wake", "--private")
    again = push(trained, hub, "tiny_p1", "me/wake")

    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert f"tiny_p1: is at {hub.url}/me/wake" in first.stdout
    assert {"README.md", "model.safetensors", "tokenizer.json", "wake2vec_ids.json"} <= set(hub.files["me/wake"])
    assert (hub.uploads, hub.private) == (1, {"me/wake"})
    assert not list((trained.home / "push").iterdir())


def test_its_card_says_what_it_is_and_what_was_measured(trained, hub):
    push(trained, hub, "tiny_p1", "me/wake")

    card = ModelCard(hub.files["me/wake"]["README.md"].decode()).data
    assert (card.library_name, card.tags) == ("transformers", ["wake2vec"])
    assert {result.metric_type for result in card.eval_results} == {"loss", "perplexity", "bits_per_byte"}


def test_one_file_for_llama_cpp_is_pushed_and_read_there(trained, hub, tmp_path):
    done = push(trained, hub, "tiny_p1", "me/wake-gguf", "--gguf", "q8_0")

    assert done.returncode == 0, done.stderr
    files = hub.files["me/wake-gguf"]
    assert set(files) - {".gitattributes"} == {"README.md", "tiny_p1-Q8_0.gguf", "wake2vec_ids.json"}
    assert ModelCard(files["README.md"].decode()).data.library_name == "gguf"
    path = tmp_path / "fetched.gguf"
    path.write_bytes(files["tiny_p1-Q8_0.gguf"])
    model = LlamaCpp(path)
    entries = [one for one in json.loads(files["wake2vec_ids.json"])["entries"] if not one["known"]]
    whole = [one for one in entries if model.ids(f" {one['word']}") == [one["id"]]]
    assert {one["word"] for one in entries} - {one["word"] for one in whole} == {"rev"}
    assert "may be read in pieces: rev" in done.stderr


def test_what_an_earlier_push_left_does_not_stand_beside_the_new_one(trained, hub):
    push(trained, hub, "tiny_p1", "me/wake")
    hub.files["me/wake"]["model-00002-of-00002.safetensors"] = b"of an export in two files"

    done = push(trained, hub, "tiny_p1", "me/wake", "--dtype", "bf16")

    assert done.returncode == 0, done.stderr
    assert "model-00002-of-00002.safetensors" not in hub.files["me/wake"]
    assert ".gitattributes" in hub.files["me/wake"]


def test_an_upload_that_was_cut_is_gone_on_with_only_for_the_same_export(trained, hub):
    hub.refuse["/commit/"] = 500
    assert push(trained, hub, "tiny_p1", "me/wake").returncode == 1
    hub.refuse.clear()

    assert push(trained, hub, "tiny_p1", "me/other", "--dtype", "fp32").returncode == 0
    assert push(trained, hub, "tiny_p1", "me/wake").returncode == 0
    sizes = {name: len(files["model.safetensors"]) for name, files in hub.files.items()}
    assert sizes["me/other"] > 1.5 * sizes["me/wake"]


def test_somebody_elses_model_is_not_written_over(trained, hub):
    hub.files["me/wake"] = {".gitattributes": b"", "pytorch_model.bin": b"theirs", "README.md": b"# mine"}

    done = push(trained, hub, "tiny_p1", "me/wake")

    assert done.returncode == 1
    assert "holds another model (pytorch_model.bin); choose another name" in done.stderr
    assert hub.files["me/wake"]["pytorch_model.bin"] == b"theirs"
    assert not hub.commits


@pytest.mark.parametrize(
    ("part", "status", "said"),
    [
        ("/api/repos/create", 401, "set HF_TOKEN"),
        ("/api/repos/create", 403, "a token of type write"),
        ("/commit/", 413, "quota"),
        ("/blob/", 403, "a token of type write"),
    ],
)
def test_what_the_hub_refuses_is_said_and_leaves_nothing_half_there(trained, hub, part, status, said):
    hub.refuse[part] = status

    done = push(trained, hub, "tiny_p1", "me/wake")

    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not hub.commits
    hub.refuse.clear()
    assert push(trained, hub, "tiny_p1", "me/wake").returncode == 0


def test_another_job_does_not_take_the_place_of_the_first(trained, hub):
    push(trained, hub, "tiny_p1", "me/wake")
    hub.titles["me/wake"] = ["other_p1, final of 300, by wake2vec-runner", "Update README.md"]
    before = dict(hub.files["me/wake"])

    done = push(trained, hub, "tiny_p1", "me/wake")

    assert done.returncode == 1
    assert "holds the result of another job, other_p1; choose another name" in done.stderr
    assert hub.files["me/wake"] == before


def test_what_cannot_be_written_is_told_before_anything_is_exported(trained, hub):
    foreign = push(trained, hub, "tiny_p1", "joyce/wake")
    hub.role = "read"
    reading = push(trained, hub, "tiny_p1", "me/wake")

    assert "joyce is neither you nor an organisation of yours" in foreign.stderr
    assert "this token may only read" in reading.stderr
    assert (foreign.returncode, reading.returncode) == (1, 1)
    assert not hub.files
    assert not list((trained.home / "push").iterdir())


def test_a_full_quota_is_told_in_whatever_words_the_hub_has_for_it(trained, hub):
    hub.refuse["/preupload/"], hub.words = 403, "Private repository storage limit reached"

    done = push(trained, hub, "tiny_p1", "me/wake")

    assert done.returncode == 1
    assert "the hub's quota for this account is full" in done.stderr
    assert not hub.commits


def test_with_if_new_the_same_result_is_passed_over(trained, hub):
    first = push(trained, hub, "tiny_p1", "me/wake", "--if-new")
    again = push(trained, hub, "tiny_p1", "me/wake", "--if-new")

    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert again.stdout == "tiny_p1: is at me/wake already\n"
    assert len(hub.commits) == 1


def test_start_pushes_by_itself_what_it_has_trained_and_training_does_not_wait_for_it(tmp_path, hub):
    here = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_nobody", "HF_HUB_OFFLINE": "0"}
    here |= {"HF_HUB_DISABLE_XET": "1", "WAKE2VEC_PUSH": "me/wake"}
    machine = quick_machine(home=tmp_path / "home", store=tmp_path / "store", environment=here)
    machine.run("enqueue", str(JOBS / "tiny_p1.toml"), *SHORT)
    hub.refuse["/commit/"] = 500
    said = machine.run("start", "--until-empty")  # ends well all the same
    assert "tiny_p1: not pushed: me/wake-tiny_p1: the hub did not take it" in said
    assert not hub.commits
    hub.refuse.clear()

    said = machine.run("start", "--until-empty")

    assert f"tiny_p1: is at {hub.url}/me/wake-tiny_p1" in said
    assert "wake2vec" in hub.files["me/wake-tiny_p1"]["README.md"].decode()
    assert {name for name in hub.files if name in hub.private} == set(hub.files)
    pushed = len(hub.commits)
    machine.run("start", "--until-empty")
    assert len(hub.commits) == pushed


LOOK = "import sys; from runner.commands.results.push import _licence; print(_licence(sys.argv[1]))"


@pytest.mark.parametrize(("licence", "said"), [("apache-2.0", "apache-2.0"), ("cc-by-nc-nd-4.0", "does not allow")])
def test_the_licence_of_the_base_is_asked_for(tmp_path, hub, licence, said):
    hub.files["joyce/base"], hub.licences["joyce/base"] = {"config.json": b"{}"}, licence
    here = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}

    done = subprocess.run(
        [sys.executable, "-c", LOOK, "joyce/base"], env=os.environ | here, capture_output=True, text=True, check=False
    )

    assert said in (done.stdout or done.stderr)


@pytest.mark.parametrize("words", [["tiny_p1", "nobody"], ["gone", "me/wake"]])
def test_a_bad_name_is_told(trained, hub, words):
    done = push(trained, hub, *words)

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")

"""The notebooks as a user runs them: every cell in a real kernel, from an empty folder, on a first and a later day."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from bench.publish.notebooks import PLATFORMS, notebook
from bench.publish.wheel import build_wheel
from runner.notebook import NOT_YET, SECRET
from tests.drive_server.server import DriveServer
from tests.machine import IMPATIENT
from tests.standalone import bare_python, surroundings

MARKS = {"colab": {"COLAB_RELEASE_TAG": "release-colab"}, "kaggle": {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}}
# What the platforms have and we have not: their own modules, as far as the cells use them.
STANDINS = {
    "google/colab/__init__.py": "",
    "google/colab/userdata.py": """
        from pathlib import Path
        class SecretNotFoundError(Exception): pass
        class NotebookAccessError(Exception): pass
        def get(name):
            text = Path(__file__).with_name(name).read_text()
            if text in ("missing", "denied"):
                raise {"missing": SecretNotFoundError, "denied": NotebookAccessError}[text](name)
            return text
        """,
    "google/colab/auth.py": """
        from pathlib import Path
        def authenticate_user():
            if Path(__file__).with_name("WAKE2VEC_DRIVE_TOKEN").read_text() == "denied":
                raise RuntimeError("the person closed the window")
        """,
    "kaggle_secrets.py": """
        from pathlib import Path
        class UserSecretsClient:
            def get_secret(self, name):
                text = (Path(__file__).parent / "google" / "colab" / name).read_text()
                if text in ("missing", "denied"):
                    raise ConnectionError(text)
                return text
        """,
}
# what a job came to has tests of its own, and takes half of its time
SHORT = ("evaluate.hopes=false", "evaluate.samples=0", "train.steps=8")
QUICK = {
    'JOB = "qwen"': 'JOB = "tiny"',
    "enqueue --if-new": " ".join(["enqueue --if-new", *(f"--set {one}" for one in SHORT)]),
}
BY_SECRET = {'SIGN_IN = "with a click"': f'SIGN_IN = "with the secret {SECRET}"'}


class Day:
    """One session: a machine with nothing on it, and a kernel in which cells are run by their names."""

    def __init__(self, folder: Path, table: dict[str, Any], platform: str, environment: dict[str, str]) -> None:
        self.here, self.home = folder / "here", folder / "home"
        self.here.mkdir(parents=True)
        self.home.mkdir()
        (self.home / "settings.toml").write_text(IMPATIENT)
        self.modules = folder / "modules"
        for name, text in STANDINS.items():
            place = self.modules / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("\n".join(line[8:] for line in text.splitlines()))
        kernel = folder / "jupyter" / "kernels" / "bare"
        kernel.mkdir(parents=True)
        python = bare_python(folder / "env")
        about = {
            "argv": [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": "bare",
            "language": "python",
            "env": {"WAKE2VEC_HOME": str(self.home), "PYTHONPATH": str(self.modules), **MARKS[platform], **environment},
        }
        (kernel / "kernel.json").write_text(json.dumps(about))
        book = nbformat.reads(json.dumps(table), as_version=4)
        self.cells = {cell["id"]: cell for cell in book.cells}
        place = {"metadata": {"path": str(self.here)}}
        self.client = NotebookClient(book, kernel_name="bare", timeout=600, resources=place)

    def secret(self, text: str) -> None:
        (self.modules / "google" / "colab" / SECRET).write_text(text)

    def run(self, id: str, **changes: str) -> str:
        """What the cell showed; one that raises fails the test."""
        cell = copy.deepcopy(self.cells[id])
        for here, there in {**QUICK, **changes}.items():
            cell.source = cell.source.replace(here, there)
        done = self.client.execute_cell(cell, 0, store_history=False)
        return "".join(out.get("text", "") + out.get("data", {}).get("text/html", "") for out in done.outputs)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes days; the kernel of the last one is ended afterwards."""
    begun: list[Any] = []

    def begin(number: int, table: dict[str, Any], platform: str, **environment: str) -> Day:
        folder = tmp_path / str(number)
        for name, value in surroundings(JUPYTER_PATH=str(folder / "jupyter")).items():
            monkeypatch.setenv(name, value)
        for one in begun:
            one.__exit__(None, None, None)
        begun.clear()
        day = Day(folder, table, platform, environment)
        setup = day.client.setup_kernel()
        setup.__enter__()
        begun.append(setup)
        return day

    yield begin
    for one in begun:
        one.__exit__(None, None, None)


@pytest.mark.parametrize("platform", ["kaggle", pytest.param("colab", marks=pytest.mark.sweep)])
def test_every_cell_runs_from_an_empty_folder_on_the_first_day_and_on_a_later_one(
    platform: Any, tmp_path: Path, wheel: Path, days: Any
) -> None:
    table = notebook(platform, wheel)
    with DriveServer(tmp_path / "google") as server:
        google = server.url.removeprefix("http://").rstrip("/")  # Colab's own credentials come from there too
        root = {"WAKE2VEC_DRIVE_ROOT": server.url, "GCE_METADATA_ROOT": google, "GCE_METADATA_IP": google}
        first = days(1, table, platform, **root)
        first.secret(server.token_json())
        assert first.run("install") == "installed\n"
        way = "with a click" if platform == "colab" else f"by the secret {SECRET}"
        assert first.run("sign-in") == f"store: drive:wake2vec, signed in {way}\n"
        assert NOT_YET in first.run("see")  # too early, and it says so
        assert "queued tiny_p2" in first.run("enqueue")
        again = first.run("enqueue")
        assert "tiny_p1.toml: is there already" in again
        assert "tiny_p2: is queued already" in again
        assert "tiny_p2: succeeded" in first.run("start")
        assert re.search(r"<iframe srcdoc=.*tiny_p1", first.run("see"), re.DOTALL)
        assert "installed" in first.run("install")  # twice does no harm

        shutil.rmtree(tmp_path / "1")
        later = days(2, table, platform, **root)
        later.secret(server.token_json())
        later.run("install")
        later.run("sign-in")
        assert "tiny_p2: is succeeded already" in later.run("enqueue")
        assert "started" not in later.run("start")
        assert re.search(r"<iframe srcdoc=.*tiny_p1", later.run("see"), re.DOTALL)


@pytest.mark.parametrize("platform", ["colab", pytest.param("kaggle", marks=pytest.mark.sweep)])
def test_what_is_missing_is_told_in_a_sentence_and_the_next_cell_works(
    platform: Any, tmp_path: Path, wheel: Path, days: Any
) -> None:
    nowhere = {"WAKE2VEC_DRIVE_ROOT": "http://127.0.0.1:9/", "GCE_METADATA_ROOT": "127.0.0.1:9"}
    day = days(1, notebook(platform, wheel), platform, **nowhere)
    assert "3.11 is the oldest that will do" in day.run("install", **{"sys.version_info < (3, 11)": "True"})
    assert day.run("install") == "installed\n"

    for state in ("missing", "denied"):
        day.secret(state)
        said = day.run("sign-in", **BY_SECRET)
        assert said.startswith("not signed in: ")
        assert said.endswith("then run this cell again\n")
        assert said.count("\n") == 1
    if platform == "colab":
        said = day.run("sign-in")
        assert said == "not signed in: allow it in the window that Colab opens; then run this cell again\n"
    if platform == "kaggle":  # Colab would ask its own machine for credentials, again and again
        assert "error: " in day.run("start")
    day.run("sign-in", **{"drive:wake2vec": f"dir:{tmp_path}/store"})
    large = {'JOB = "qwen"': 'JOB = "tinyllama"', "enqueue --if-new": "enqueue --if-new --set evaluate.hopes=false"}
    assert "FW_TEXT.txt: no such file" in day.run("enqueue", **large)
    (day.here / "texts" / "FW_TEXT.txt").write_text("riverrun past Eve and Adam " * 999)
    (day.here / "texts" / "wake_lexicon.txt").write_text("riverrun\n")
    assert "queued tinyllama_p2" in day.run("enqueue", **large)
    assert "this runtime has no GPU" in day.run("start")
    assert "tinyllama_p1" in day.run("see")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_it_is_one_clean_file_of_format_4_5_without_any_address(platform: Any, wheel: Path) -> None:
    table = notebook(platform, wheel)
    text = json.dumps(table, ensure_ascii=False)

    nbformat.validate(nbformat.from_dict(table))
    assert len(text.encode()) < 1 << 20
    assert "REPOSITORY" not in text
    assert "git clone" not in text
    code = [cell for cell in table["cells"] if cell["cell_type"] == "code"]
    assert len(code) == 5
    assert all((cell["execution_count"], cell["outputs"]) == (None, []) for cell in code)
    assert sum("#@param" in "".join(cell["source"]) for cell in code) == 2

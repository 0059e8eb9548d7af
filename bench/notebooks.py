"""Write the notebooks that are all a person needs, `dist/wake2vec_colab.ipynb` and `…_kaggle.ipynb`: `make notebooks`.

The wheel lies inside, so that no address is needed to get it.
"""

from __future__ import annotations

import base64
import bz2
import io
import json
import lzma
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Literal

from bench.wheel import build_wheel
from runner.jobfile.bundled import names

ROOT = Path(__file__).resolve().parents[1]
Platform = Literal["colab", "kaggle"]
PLATFORMS: tuple[Platform, ...] = ("colab", "kaggle")
LINE = 4000
MODEL = "runner/jobs/tiny/model/model.safetensors"
HALVES = [
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 1, "pb": 1}
]  # numbers of two bytes

INTRO = {
    "colab": """# wake2vec-runner on Colab

Choose *Runtime → Change runtime type → T4 GPU*, then run the cells from top to bottom: in the first session, and in every
later one. Nothing is edited between sessions: what was trained is found in your Drive, and goes on at the exact step.
Cells may be run in any order and twice.""",
    "kaggle": """# wake2vec-runner on Kaggle

In the settings choose *Accelerator: GPU T4 x2* and *Internet: on*, then run the cells from top to bottom: in the first
session, and in every later one. Nothing is edited between sessions: what was trained is found in your Drive, and goes on
at the exact step. Cells may be run in any order and twice.

Once, before the first session: make a Drive token (`wake2vec-runner login` on a machine with a browser) and put its text
into the secret `WAKE2VEC_DRIVE_TOKEN` (*Add-ons → Secrets*).""",
}
INSTALL = """#@title 1 · Install {{ display-mode: "form" }}
import base64, bz2, importlib.util, lzma, sys, zipfile
from pathlib import Path

CODE = (
{code}
)
MODEL = (  # the tiny one
{model}
)
if sys.version_info < (3, 11):
    print(f"this runtime has Python {{sys.version.split()[0]}}, and 3.11 is the oldest that will do: choose a newer runtime")
else:
    Path("{name}").write_bytes(bz2.decompress(base64.b85decode(CODE)))
    with zipfile.ZipFile("{name}", "a") as wheel:
        wheel.writestr("{tiny}", lzma.decompress(base64.b85decode(MODEL)))
    !"{{sys.executable}}" -m pip install -q --root-user-action=ignore {name}
    importlib.invalidate_caches()
    if importlib.util.find_spec("runner") is None:
        print("not installed, see above: {no_line}; then run this cell again")
    else:
        %load_ext runner.notebook
        print("installed")"""
NO_LINE = {
    "colab": "pip needs the internet",
    "kaggle": "pip needs the internet, which Settings → Internet switches on",
}
SIGN_IN = {
    "colab": """#@title 2 · Where the results are kept
STORE = "drive:wake2vec"  #@param {type:"string"}
SIGN_IN = "with a click"  #@param ["with a click", "with the secret WAKE2VEC_DRIVE_TOKEN"]
from runner.notebook import sign_in

sign_in(STORE, with_click=SIGN_IN == "with a click")""",
    "kaggle": """#@title 2 · Where the results are kept
STORE = "drive:wake2vec"  #@param {type:"string"}
from runner.notebook import sign_in

sign_in(STORE)""",
}
TEXTS = """**In the first session only** your texts are needed: run the next cell once, which makes the folder `texts`, put them there
(its `README.md` names them), and run it again. `enqueue` checks the whole job and takes the texts along; afterwards they come
from your Drive."""
ENQUEUE = """#@title 3 · Queue a model: P1, then P2
JOB = "qwen"  #@param {models}
%wake2vec new {{JOB}}_p2
%wake2vec enqueue --if-new {{JOB}}_p1.toml {{JOB}}_p2.toml"""
TRAIN = {
    "colab": """Train. The cell runs until the queue is empty or the session ends; interrupting it (the square) saves first.
It has to be this cell, in the foreground: Colab judges idleness by executing cells.""",
    "kaggle": """Train. The cell runs until the queue is empty or 11.5 of the session's 12 hours are over; interrupting it
saves first.""",
}
START = """#@title 4 · Train
%wake2vec start --until-empty"""
SEE = """#@title 5 · See: what is safe, what is next, and the report
%wake2vec status
%wake2vec report"""


def main() -> int:
    folder = ROOT / "dist"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        wheel = build_wheel(Path(scratch))
        for platform in PLATFORMS:
            path = folder / f"wake2vec_{platform}.ipynb"
            path.write_text(json.dumps(notebook(platform, wheel), ensure_ascii=False, indent=1) + "\n", "utf-8")
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")
    return 0


def notebook(platform: Platform, wheel: Path) -> dict[str, Any]:
    code, model = packed(wheel)
    install = INSTALL.format(code=code, model=model, name=wheel.name, tiny=MODEL, no_line=NO_LINE[platform])
    models = json.dumps(sorted({name[:-3] for name in names() if name.endswith("_p1")}))
    cells = [
        _markdown("intro", INTRO[platform]),
        _code("install", install),
        _code("sign-in", SIGN_IN[platform]),
        _markdown("texts", TEXTS),
        _code("enqueue", ENQUEUE.format(models=models)),
        _markdown("train", TRAIN[platform]),
        _code("start", START),
        _code("see", SEE),
    ]
    about: dict[str, Any] = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    if platform == "colab":
        about |= {"accelerator": "GPU", "colab": {"gpuType": "T4", "provenance": []}}
    return {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}


def packed(wheel: Path) -> tuple[str, str]:
    """The wheel without the tiny model, and that model, each squeezed as a whole in the way that suits it best."""
    plain = io.BytesIO()
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(plain, "w", zipfile.ZIP_STORED) as target:
        for entry in sorted(source.infolist(), key=lambda entry: (Path(entry.filename).suffix, entry.filename)):
            if entry.filename != MODEL:
                target.writestr(entry.filename, source.read(entry))
        model = source.read(MODEL)
    return _lines(bz2.compress(plain.getvalue())), _lines(lzma.compress(model, filters=HALVES))


def _lines(body: bytes) -> str:
    text = base64.b85encode(body).decode()
    return "\n".join(f'"{text[start : start + LINE]}"' for start in range(0, len(text), LINE))


def _markdown(id: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": id, "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(id: str, text: str) -> dict[str, Any]:
    source = text.splitlines(keepends=True)
    return {
        "cell_type": "code", "execution_count": None, "id": id, "metadata": {}, "outputs": [], "source": source
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

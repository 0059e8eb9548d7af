"""Write the notebooks that are all a person needs, `dist/wake2vec_colab.ipynb` and `…_kaggle.ipynb`: `make notebooks`.

The wheel lies inside, so that no address is needed to get it.
"""

from __future__ import annotations

import ast
import bz2
import io
import json
import lzma
import sys
import tempfile
import tokenize
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bench.publish.wheel import build_wheel
from runner.jobfile.bundled import names

ROOT = Path(__file__).resolve().parents[2]
Platform = Literal["colab", "kaggle"]
PLATFORMS: tuple[Platform, ...] = ("colab", "kaggle")
LINE = 8100
# What a string of a notebook holds as it is: 22 bytes are 27 of these characters, where base 85 needs 27.5.
DIGITS = [chr(code) for code in range(32, 127) if chr(code) not in '"<\\']
BYTES, LETTERS = 22, 27
MODEL = "runner/jobs/tiny/model/model.safetensors"
HALVES = [
    {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 1, "pb": 1}
]  # numbers of two bytes

SAYS = ("runner/cli", "wake2vec/contract/")  # whose docstrings are help texts and descriptions of a schema

INTRO = {
    "colab": """# wake2vec-runner on Colab

Choose *Runtime → Change runtime type → T4 GPU*, then run the cells from top to bottom: in the first session, and in every
later one. Nothing is edited between sessions: what was trained is found in your Drive, and goes on at the exact step.
Cells may be run in any order and twice. Instead of Drive the Hugging Face Hub will do: choose `hub:USER/REPO` in the second
cell, and put a token of type write into the secret `HF_TOKEN`.""",
    "kaggle": """# wake2vec-runner on Kaggle

In the settings choose *Accelerator: GPU T4 x2* and *Internet: on*, then run the cells from top to bottom: in the first
session, and in every later one. Nothing is edited between sessions: what was trained is found in your Drive, and goes on
at the exact step. Cells may be run in any order and twice.

Once, before the first session: make a Drive token (`wake2vec-runner login` on a machine with a browser) and put its text
into the secret `WAKE2VEC_DRIVE_TOKEN` (*Add-ons → Secrets*). Or keep the results on the Hugging Face Hub: choose
`hub:USER/REPO` in the second cell, with your name and that of a repository that will be made for it, and put a token of
type write into the secret `HF_TOKEN`.""",
}
INSTALL = """#@title 1 · Install {{ display-mode: "form" }}
import base64, bz2, hashlib, importlib.util, json, lzma, sys, zipfile

DIGITS = {{chr(code): digit for digit, code in enumerate(code for code in range(32, 127) if code not in (34, 60, 92))}}

def read(text):
    groups = []
    for start in range(0, len(text), 27):
        number = 0
        for letter in text[start : start + 27]:
            number = 92 * number + DIGITS[letter]
        groups.append(number.to_bytes(22, "big"))
    return b"".join(groups)

PARTS = [  # of the program: how it is squeezed; inside a line with the files and their sizes, then the files
{parts}
]
if sys.version_info < (3, 11):
    print(f"this runtime has Python {{sys.version.split()[0]}}, and 3.11 is the oldest that will do: choose a newer runtime")
else:
    record = "{record},,\\n"
    with zipfile.ZipFile("{name}", "w") as wheel:
        for squeezed, body in PARTS:
            files, _, whole = squeezed.decompress(read(body)).partition(b"\\n")
            for file, size in json.loads(files):
                part, whole = whole[:size], whole[size:]
                digest = base64.urlsafe_b64encode(hashlib.sha256(part).digest()).decode().rstrip("=")
                record += f"{{file}},sha256={{digest}},{{size}}\\n"
                wheel.writestr(file, part)
        wheel.writestr("{record}", record)
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
STORE = "drive:wake2vec"  #@param ["drive:wake2vec", "hub:USER/wake2vec"] {allow-input: true}
SIGN_IN = "with a click"  #@param ["with a click", "with the secret WAKE2VEC_DRIVE_TOKEN"]
from runner.notebook import sign_in

sign_in(STORE, with_click=SIGN_IN == "with a click")""",
    "kaggle": """#@title 2 · Where the results are kept
STORE = "drive:wake2vec"  #@param ["drive:wake2vec", "hub:USER/wake2vec"] {allow-input: true}
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
    parts, record = packed(wheel)
    install = INSTALL.format(parts=parts, record=record, name=wheel.name, no_line=NO_LINE[platform])
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


@cache
def packed(wheel: Path) -> tuple[str, str]:
    """The files of the wheel, those of a kind squeezed as a whole in the way that suits them best; and the name of its
    RECORD, whose hashes no squeezing makes smaller: the cell computes them anew."""
    kinds: dict[str, dict[str, bytes]] = {}
    with zipfile.ZipFile(wheel) as source:
        record = next(name for name in source.namelist() if name.endswith("/RECORD"))
        for name in sorted(source.namelist()):
            if name != record:
                kinds.setdefault(
                    Path(name).suffix if Path(name).suffix in (".py", ".txt") or name == MODEL else "", {}
                )[name] = source.read(name) if not name.endswith(".py") else bare(name, source.read(name).decode())
    return "\n".join(_part(files) for files in kinds.values()), record


def bare(name: str, text: str) -> bytes:
    """The same code on the same lines, without what is said of it to those who change it: a fifth of its size."""
    lines, tree = text.splitlines(keepends=True), ast.parse(text)
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    said = [(token.start, token.end) for token in tokens if token.type == tokenize.COMMENT]
    for node in ast.walk(tree) if not name.startswith(SAYS) else ():
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node, clean=False):
            first = node.body[0]
            if len(node.body) > 1 or isinstance(node, ast.Module):
                bottom = first.end_lineno or first.lineno
                right = len(lines[bottom - 1].encode()[: first.end_col_offset].decode())  # it is counted in bytes
                said.append(((first.lineno, first.col_offset), (bottom, right)))
    for (top, left), (bottom, right) in sorted(said, reverse=True):
        lines[top - 1 : bottom] = [
            lines[top - 1][:left].rstrip(" ") + "\n" * (bottom - top) + lines[bottom - 1][right:]
        ]
    return "".join(lines).encode()


def _part(files: dict[str, bytes]) -> str:
    index = json.dumps([(name, len(body)) for name, body in files.items()], separators=(",", ":"))
    whole = b"\n".join([index.encode(), b"".join(files.values())])
    ways = {
        "bz2.BZ2Decompressor()": bz2.compress(whole, 8),
        "lzma.LZMADecompressor()": lzma.compress(whole, filters=HALVES if MODEL in files else None),
    }
    way = min(ways, key=lambda name: len(ways[name]))
    return f"({way}, (\n{_lines(ways[way])}\n)),"


def _lines(body: bytes) -> str:
    text = "".join(group(body[start : start + BYTES]) for start in range(0, len(body), BYTES))
    return "\n".join(f'"{text[start : start + LINE]}"' for start in range(0, len(text), LINE))


def group(body: bytes) -> str:
    """What is too short is filled up with zeros, which no decompressor object minds behind the end."""
    number, letters = int.from_bytes(body.ljust(BYTES, b"\0"), "big"), ""
    for _ in range(LETTERS):
        number, digit = divmod(number, len(DIGITS))
        letters = DIGITS[digit] + letters
    return letters


def _markdown(id: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": id, "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(id: str, text: str) -> dict[str, Any]:
    source = text.splitlines(keepends=True)
    return {
        "cell_type": "code", "execution_count": None, "id": id, "metadata": {}, "outputs": [], "source": source
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())

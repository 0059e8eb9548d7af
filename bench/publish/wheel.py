"""Build the wheel from a copy of what belongs to it, so that nothing of an earlier build is in it: `make wheel`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("runner", "wake2vec", "jobs", "docs")
FILES = ("pyproject.toml", "setup.py", "LICENSE")


def main() -> int:
    print(build_wheel(ROOT / "dist"))
    return 0


def build_wheel(folder: Path) -> Path:
    """Without the network: the build's own tools are among those of a developer."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        for name in FOLDERS:
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in FILES:
            shutil.copy(ROOT / name, source)
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "-w", scratch]
        subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
        folder.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy(next(Path(scratch).glob("*.whl")), folder))


if __name__ == "__main__":
    sys.exit(main())

"""A machine of a newcomer: a Python that has what we depend on and not us, and an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path


def bare_python(folder: Path) -> Path:
    """An environment of its own, whose packages are links to those of the tests, but for ours."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python3*/site-packages"))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "wake2vec" not in entry.name and entry.name != "__pycache__":
            (site / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def surroundings(**more: str) -> dict[str, str]:
    """Nothing of the checkout, no network; one thread, since parallel tests share two cores."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WAKE2VEC", "PYTHON"))}
    return kept | {"PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **more}


def install(python: Path, wheel: Path) -> None:
    command = [str(python), "-m", "pip", "install", "-q", str(wheel)]
    subprocess.run(command, check=True, env=surroundings())

"""What the demo and the rehearsals start."""

from __future__ import annotations

import os
import site
import subprocess
import sys
from pathlib import Path

from bench.demo import JOBS, ROOT

LIST = """
from pathlib import Path
from bench.demo import Machine
Machine(home=Path("home"), store=Path("store")).run("enqueue", "--dry-run", "{job}")
"""


def test_a_machine_runs_the_program_beside_it_where_nothing_is_installed(tmp_path: Path) -> None:
    interpreter = tmp_path / "bin" / "python"  # no console script beside it, no environment around it
    interpreter.parent.mkdir()
    interpreter.symlink_to(Path(sys.executable).resolve())
    asked = LIST.format(job=JOBS / "tiny_p1.toml")
    packages = os.pathsep.join([str(ROOT), *site.getsitepackages()])  # without the .pth file of an editable install

    done = subprocess.run(
        [interpreter, "-P", "-c", asked], cwd=tmp_path, env={"PYTHONPATH": packages}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "home" / "runner.db").is_file()

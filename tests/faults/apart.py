"""Run a protocol in a process of its own: it forks warm trainers, which a test process with threads must not do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import importlib, json, sys
module, name, arguments = json.loads(sys.argv[1])
figures = getattr(importlib.import_module(module), name)(**arguments)
print("\\n" + json.dumps(figures))
"""


def run_apart(module: str, name: str, **arguments: Any) -> dict[str, Any]:
    told = json.dumps([f"tests.faults.protocols.{module}", name, arguments])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, told], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))

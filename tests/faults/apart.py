"""Run a protocol in a process of its own: it forks warm trainers, which a test process with threads must not do."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from tests import zygote

ROOT = Path(__file__).resolve().parents[2]


def run_apart(module: str, name: str, **arguments: Any) -> dict[str, Any]:
    """`module`: one of the protocols, or any by its full name."""
    place = module if "." in module else f"tests.faults.protocols.{module}"
    told = json.dumps([place, name, arguments])
    with TemporaryFile("w+b") as out, TemporaryFile("w+b") as err:
        apart = zygote.fork("tests.faults.apart", told, out=out, err=err, environment=os.environ, kind=zygote.TRAINERS)
        code = apart.wait()
        said, complaints = (stream.seek(0) or stream.read().decode() for stream in (out, err))
    assert code == 0, complaints[-4000:]
    return dict(json.loads(said.strip().splitlines()[-1]))


def main(told: str) -> None:
    module, name, arguments = json.loads(told)
    print("\n" + json.dumps(getattr(import_module(module), name)(**arguments)))


if __name__ == "__main__":
    main(sys.argv[1])

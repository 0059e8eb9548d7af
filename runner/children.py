"""The Python processes that this program starts: what they may import, and which secrets they do not inherit."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

TOKEN_VARIABLE = "WAKE2VEC_DRIVE_TOKEN"
NOTIFY_VARIABLE = "WAKE2VEC_NOTIFY"  # the address of a webhook is often a secret
STORE_VARIABLE = "WAKE2VEC_STORE"  # its URL may hold a password
QUEUE_VARIABLE = "WAKE2VEC_DB"  # so may this one
SECRETS = (TOKEN_VARIABLE, NOTIFY_VARIABLE, STORE_VARIABLE, QUEUE_VARIABLE)


def python(module: str, *words: str | Path) -> list[str]:
    """`python -m MODULE WORDS` that finds our code where it is installed, whatever lies in the current folder."""
    return [sys.executable, "-P", "-m", module, *map(str, words)]


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """For processes that train or show: only the runner itself has business with the store and the webhook."""
    return {name: value for name, value in environ.items() if name not in SECRETS}


def importing_safely(environ: Mapping[str, str]) -> dict[str, str]:
    """Without the parts of PYTHONPATH that mean the current folder, as an empty one in `$PYTHONPATH:/x` does.

    A person's own command finds the whole of it in WAKE2VEC_PYTHONPATH: wake2vec/train/command.py puts it back.
    """
    whole = environ.get("PYTHONPATH", "")
    absolute = os.pathsep.join(part for part in whole.split(os.pathsep) if Path(part).is_absolute())
    return dict(environ) | ({} if absolute == whole else {"PYTHONPATH": absolute, "WAKE2VEC_PYTHONPATH": whole})

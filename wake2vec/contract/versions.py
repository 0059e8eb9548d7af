"""Versions of what computes, for whatever is true of these alone. Imports no torch."""

from __future__ import annotations

import sys
from importlib.metadata import version

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "tokenizers")


def versions() -> dict[str, str]:
    return {"python": sys.version.split()[0], **{name: version(name) for name in LIBRARIES}}

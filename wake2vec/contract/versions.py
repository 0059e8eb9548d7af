"""Versions of what computes, for whatever is true of these alone. Imports no torch."""

from __future__ import annotations

import sys
from importlib.metadata import version


def versions() -> dict[str, str]:
    names = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "tokenizers")
    return {"python": sys.version.split()[0], **{name: version(name) for name in names}}

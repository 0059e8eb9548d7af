"""KEY=VALUE as it is typed: read as in a job file, and laid over the table of one."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from typing import Any

from runner.errors import RunnerError

Pair = tuple[str, Any]


def read_pair(text: str) -> Pair:
    """Raises RunnerError where it is none."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(part.strip() for part in key.split(".")):
        raise RunnerError(f"{text!r}: expected KEY=VALUE, for example checkpoint.max_loss_minutes=2.0")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except RecursionError:
        raise RunnerError(f"{key}: nested too deeply") from None
    except tomllib.TOMLDecodeError:
        return key, value.strip()  # the shell took the quotes of a text


def lay_over(table: dict[str, Any], pairs: Iterable[Pair]) -> None:
    """Each value in its place, as if it stood in the file. Raises RunnerError where a table is no table."""
    for key, value in pairs:
        *tables, last = key.split(".")
        part = table
        for name in tables:
            part = part.setdefault(name, {})
            if not isinstance(part, dict):
                raise RunnerError(f"{key}: {name} is a value there and has no keys of its own")
        if isinstance(part.get(last), dict) and not isinstance(value, dict):
            raise RunnerError(f"{key}: is a table; set one of its keys, as {key}.KEY=VALUE")
        part[last] = value

"""schema: the JSON schema of job files, for editors that complete and check them, and its reference for people."""

from __future__ import annotations

import json
from pathlib import Path

from runner.errors import RunnerError
from wake2vec.contract.files import write_atomic
from wake2vec.contract.spec import JobTable

DIALECT = "http://json-schema.org/draft-07/schema#"


def schema_text() -> str:
    """In the dialect that TOML editors know best: draft-07, with `definitions`."""
    table = JobTable.model_json_schema(ref_template="#/definitions/{model}")
    definitions = table.pop("$defs")
    table |= {"title": "A job file of wake2vec-runner", "definitions": definitions}
    return json.dumps({"$schema": DIALECT, **table}, ensure_ascii=False, indent=1) + "\n"


def run(out: Path | None, *, as_reference: bool = False) -> None:
    from runner.jobfile.reference import reference

    text = reference() if as_reference else schema_text()
    if out is None:
        print(text, end="")
        return
    if not out.absolute().parent.is_dir():
        raise RunnerError(f"{out.parent}: there is no such folder; make it, or give another --out")
    write_atomic(out, text.encode())
    print(f"{out}: written")

from __future__ import annotations

import json
from pathlib import Path

from runner.commands.setup.schema import run, schema_text

COMMITTED = Path(__file__).parents[5] / "jobs" / "job.schema.json"


def test_the_committed_schema_is_current():
    assert COMMITTED.read_text("utf-8") == schema_text(), "run: wake2vec-runner schema --out jobs/job.schema.json"


def test_every_reference_of_the_schema_leads_somewhere():
    schema = json.loads(schema_text())
    references = [part.split('"')[0] for part in schema_text().split('"$ref": "')[1:]]

    assert references
    assert {reference.removeprefix("#/definitions/") for reference in references} <= set(schema["definitions"])


def test_the_schema_is_printed_or_written(tmp_path, capsys):
    run(None)
    assert capsys.readouterr().out == schema_text()

    run(tmp_path / "job.json")
    assert (tmp_path / "job.json").read_text() == schema_text()

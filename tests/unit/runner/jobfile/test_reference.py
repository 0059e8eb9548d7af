from __future__ import annotations

from pathlib import Path

from runner.jobfile.reference import reference
from wake2vec.contract.spec import JobTable

PAGE = Path(__file__).parents[4] / "docs" / "job-files.md"


def test_the_page_on_job_files_holds_the_present_reference():
    page = PAGE.read_text("utf-8")
    written = page.split("<!-- reference -->\n")[1].split("<!-- end of reference -->")[0]

    assert written == reference(), "put the output of `wake2vec-runner schema --reference` between the two marks"


def test_every_key_has_a_row_and_every_row_says_what_it_does():
    rows = [line.strip("| ").split(" | ") for line in reference().splitlines() if line.startswith("| `")]
    schema = JobTable.model_json_schema()
    tables = [name for name in schema["$defs"] if name.endswith("Table")]

    in_tables = sum(len(schema["$defs"][name]["properties"]) for name in tables)
    assert len(rows) == in_tables + len(schema["properties"]) - len(tables)
    assert [row[0] for row in rows if len(row) < 4 or not row[3]] == []

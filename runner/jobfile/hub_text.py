"""A text on the Hugging Face Hub as a file here: `hf://datasets/USER/NAME[@REVISION]/FILE[#COLUMN]`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runner.jobfile.hub import SECONDS
from wake2vec.contract.errors import InputError

PREFIX = "hf://"
ADDRESS = re.compile(
    r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+?))?/(?P<file>[^@#]+)(#(?P<column>.+))?"
)
BETWEEN = "\n\n"  # rows of a table are texts of their own


def fetch_text(address: str) -> Path:
    """Where the text lies, fetched once. Raises InputError for what the hub refuses or what holds no such column."""
    match = ADDRESS.fullmatch(address)
    if match is None:
        raise InputError(address, "no address of a file on the hub", "hf://datasets/USER/NAME/FILE")
    file = _download(address, match["name"], match["file"], match["revision"])
    rows = _rows(file, match["column"] or "text", address)
    if rows is None:
        return file
    return _as_text(rows, file, match["column"] or "text")


def _download(address: str, name: str, file: str, revision: str | None) -> Path:
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    try:
        if not isinstance(try_to_load_from_cache(name, file, repo_type="dataset", revision=revision), str):
            # one question without a second try: a hub that is away must be told at once
            url = hf_hub_url(name, file, repo_type="dataset", revision=revision)
            get_hf_file_metadata(url, timeout=SECONDS)
        return Path(hf_hub_download(name, file, repo_type="dataset", revision=revision))
    except errors.GatedRepoError as error:
        raise InputError(address, "is gated", "accept its terms on its page, then `hf auth login`") from error
    except errors.RepositoryNotFoundError as error:
        remedy = "check the name; if it is private: `hf auth login`, or set HF_TOKEN"
        raise InputError(address, "there is no such dataset on the hub", remedy) from error
    except (errors.EntryNotFoundError, errors.RevisionNotFoundError) as error:
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise InputError(
                Path(address), "the hub cannot be reached", "try again, or fetch the file yourself"
            ) from error
        raise InputError(address, "the dataset holds no such file or revision", "look at its page") from error
    except Exception as error:  # whatever a network can do
        said = str(error).partition("\n")[0]
        raise InputError(address, f"the hub cannot be reached ({said})", "fetch the file yourself") from error


def _rows(file: Path, column: str, address: str) -> Iterator[str] | None:
    """The texts of a table, one by one; None for a file that is a text itself."""
    if file.suffix == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.ParquetFile(file)
        _require(column, table.schema_arrow.names, address)
        return (str(text) for batch in table.iter_batches(columns=[column]) for text in batch.column(0).to_pylist())
    if file.suffix in (".jsonl", ".ndjson"):
        with file.open(encoding="utf-8") as lines:
            first: dict[str, Any] = json.loads(lines.readline() or "{}")
        _require(column, list(first), address)
        return (str(json.loads(line)[column]) for line in file.open(encoding="utf-8") if line.strip())
    return None


def _require(column: str, names: list[str], address: str) -> None:
    if column not in names:
        there = ", ".join(names) or "none"
        raise InputError(address, f"has no column {column}; there are {there}", "name one behind a #")


def _as_text(rows: Iterator[str], file: Path, column: str) -> Path:
    """Beside the downloaded file's own content, which the library names by its hash."""
    from huggingface_hub import cached_assets_path

    whole = file.resolve()
    target = Path(cached_assets_path("wake2vec", whole.name, column)) / f"{file.stem}.txt"
    if not target.is_file():
        temporary = target.with_suffix(".part")
        with temporary.open("w", encoding="utf-8") as out:
            for number, row in enumerate(rows):
                out.write(row if number == 0 else BETWEEN + row)
        temporary.replace(target)
    return target

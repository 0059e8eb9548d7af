"""A text on the Hugging Face Hub as a file here: `hf://datasets/USER/NAME[@REVISION]/FILE[#COLUMN]`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runner.jobfile.hub import SECONDS
from wake2vec.contract.errors import InputError, first_line
from wake2vec.contract.files import digest_file

PREFIX = "hf://"
ADDRESS = re.compile(
    r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>refs/(convert/\w+|pr/\d+)|[^/@#]+))?"
    r"/(?P<file>[^@#]+)(#(?P<column>.+))?"
)
TEXTS = ("", ".txt", ".md", ".text")
BETWEEN = "\n\n"  # rows of a table are texts of their own


def fetch_text(address: str) -> Path:
    """Where the text lies, fetched once. Raises InputError for what the hub refuses or what holds no such column."""
    match = ADDRESS.fullmatch(address)
    if match is None:
        raise InputError(address, "no address of a file on the hub", "hf://datasets/USER/NAME/FILE")
    file = _download(address, match["name"], match["file"], match["revision"])
    column = match["column"] or "text"
    try:
        rows = _rows(file, column, address)
        return file if rows is None else _as_text(rows, file, column)
    except (ValueError, AttributeError) as error:  # pyarrow's and JSON's errors, and JSON that is no table
        said = first_line(error)
        raise InputError(address, f"cannot be read as a table ({said})", "look at it on its page") from error


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
        said = first_line(error)
        raise InputError(address, f"the hub cannot be reached ({said})", "fetch the file yourself") from error


def _rows(file: Path, column: str, address: str) -> Iterator[Any] | None:
    """The texts of a table, one by one; None for a file that is a text itself. Raises InputError for other files."""
    if file.suffix == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.ParquetFile(file)
        _require(column, table.schema_arrow.names, address)
        return (text for batch in table.iter_batches(columns=[column]) for text in batch.column(0).to_pylist())
    if file.suffix in (".jsonl", ".ndjson"):
        with file.open(encoding="utf-8") as lines:
            _require(column, list(json.loads(lines.readline() or "{}")), address)
        return (json.loads(line).get(column) for line in file.open(encoding="utf-8") if line.strip())
    if file.suffix not in TEXTS:
        known = ", ".join([*filter(None, TEXTS), ".parquet", ".jsonl"])
        raise InputError(address, f"a {file.suffix} file is no text", f"name one of {known}; see refs/convert/parquet")
    return None


def _require(column: str, names: list[str], address: str) -> None:
    if column not in names:
        there = ", ".join(names) or "none"
        raise InputError(address, f"has no column {column}; there are {there}", "name one behind a #")


def _as_text(rows: Iterator[Any], file: Path, column: str) -> Path:
    """Made once for the content of the downloaded file; a row without a text is passed over."""
    from huggingface_hub import cached_assets_path

    target = Path(cached_assets_path("wake2vec", digest_file(file).sha256, column)) / f"{file.stem}.txt"
    if not target.is_file():
        temporary = target.with_name(f"{target.name}.{os.getpid()}")  # two may fetch it at once
        with temporary.open("w", encoding="utf-8") as out:
            between = ""
            for row in rows:
                if row is not None:
                    out.write(f"{between}{row}")
                    between = BETWEEN
        temporary.replace(target)
    return target

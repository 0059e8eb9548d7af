"""What a store asks of its repository on the hub, in the words of huggingface_hub, which this module alone knows."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from runner.errors import RunnerError, StoreLost
from runner.store.base import Progress
from runner.store.hub.answers import meaning
from runner.store.hub.sending import Told

DATASET = "dataset"
BRANCH = "main"
SECONDS = 120.0  # without a byte; the library itself would wait for ever


class Repository:
    """Files by their paths; each call raises what the hub's answer means for the runner."""

    def __init__(self, name: str, place: str, *, endpoint: str | None, token: str | None) -> None:
        self.name, self._place, self._endpoint, self._token = name, place, endpoint, token

    def make(self) -> Any:
        """See that it is there; returns what the hub says about it."""
        with self._translated():
            self._api.create_repo(self.name, repo_type=DATASET, private=True, exist_ok=True)
            return self._api.dataset_info(self.name)

    def is_private(self) -> bool:
        with self._translated():
            return bool(self._api.dataset_info(self.name, expand=["private"]).private)

    def head(self) -> str:
        """The newest commit."""
        with self._translated():
            branches = self._api.list_repo_refs(self.name, repo_type=DATASET).branches
        found = [branch.target_commit for branch in branches if branch.name == BRANCH]
        if not found:
            raise StoreLost(f"{self._place}: has no branch {BRANCH}")
        return str(found[0])

    def look(self, paths: Sequence[str], revision: str = BRANCH) -> dict[str, Any]:
        """What is known of those that are there: size, hashes, and the commit that wrote it."""
        if not paths:
            return {}
        with self._translated():
            found = self._api.get_paths_info(self.name, paths, revision=revision, expand=True, repo_type=DATASET)
        return {one.path: one for one in found if hasattr(one, "blob_id")}

    def tree(self, below: str | None = None, *, expand: bool = False) -> list[Any]:
        with self._translated():
            there = self._api.list_repo_tree(self.name, below, recursive=True, expand=expand, repo_type=DATASET)
            return [one for one in there if hasattr(one, "blob_id")]

    def answer(self, path: str, revision: str = BRANCH, headers: Mapping[str, str] | None = None) -> Any:
        """The file in an answer of the hub's, whose headers say more. Raises NotStored."""
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(self.name, path, repo_type=DATASET, revision=revision, endpoint=self._api.endpoint)
        return self._ask("get", url, {"Accept-Encoding": "identity", **(headers or {})})

    def part(self, path: str, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        answer = self.answer(path, headers={"Range": f"bytes={start}-{end - 1}"})
        body: bytes = answer.content
        return body if answer.status_code == 206 else body[start:end]

    def send(self, file: Path, path: str, sha256: str, progress: Progress | None) -> Any:
        """The bytes, where nobody sees them before the addition that is returned is committed."""
        from huggingface_hub import CommitOperationAdd

        with Told(file) as reading, self._translated():
            addition = CommitOperationAdd(path_in_repo=path, path_or_fileobj=reading)
            addition.upload_info.sha256 = bytes.fromhex(sha256)
            reading.progress = progress
            self._api.preupload_lfs_files(self.name, [addition], repo_type=DATASET)
            if addition.path_or_fileobj is reading:  # small enough to be part of the commit itself
                addition.path_or_fileobj = file.read_bytes()
        return addition

    def add(self, additions: Sequence[Any]) -> None:
        """One commit, behind whatever came before."""
        self._commit(additions, None)

    def remove(self, paths: Sequence[str], parent: str) -> None:
        """One commit behind `parent`. Raises Moved where another one is there."""
        from huggingface_hub import CommitOperationDelete

        self._commit([CommitOperationDelete(path_in_repo=path, is_folder=False) for path in paths], parent)

    def _commit(self, operations: Sequence[Any], parent: str | None) -> None:
        more = f" and {len(operations) - 1} more" if len(operations) > 1 else ""
        title = f"{operations[0].path_in_repo}{more}"
        with self._translated():
            self._api.create_commit(
                self.name, operations, commit_message=title, parent_commit=parent, repo_type=DATASET
            )

    def write(self, files: Mapping[str, bytes], parent: str) -> None:
        """Small files, in one commit behind `parent`. Raises Moved where another one is there.

        Asked by ourselves: `create_commit` leaves out what somebody else has just written, and calls that done.
        """
        header = {"summary": next(iter(files)), "description": "", "parentCommit": parent}
        lines: list[dict[str, Any]] = [{"key": "header", "value": header}]
        for path, body in files.items():
            content = base64.b64encode(body).decode()
            lines.append({"key": "file", "value": {"content": content, "path": path, "encoding": "base64"}})
        asked = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        url = f"{self._api.endpoint}/api/datasets/{self.name}/commit/{BRANCH}"
        self._ask("post", url, {"Content-Type": "application/x-ndjson"}, content=asked)

    def drop(self, sha256s: Iterable[str]) -> None:
        """Delete bytes from the history too, by their hashes."""
        unused = [SimpleNamespace(file_oid=sha256) for sha256 in sorted(sha256s)]
        with self._translated():
            self._api.permanently_delete_lfs_files(self.name, unused, rewrite_history=False, repo_type=DATASET)

    def _ask(self, verb: str, url: str, headers: Mapping[str, str], **more: Any) -> Any:
        utils = _utils()
        with self._translated():
            asked = {**utils.build_hf_headers(token=self._token), **headers}
            answer = getattr(utils.get_session(), verb)(url, headers=asked, **more)
            utils.hf_raise_for_status(answer)
        return answer

    @property
    def _api(self) -> Any:
        from huggingface_hub import HfApi

        utils = _utils()
        utils.logging.set_verbosity_error()  # of each upload it would say that it is a plain one
        utils.disable_progress_bars()
        utils.get_session().timeout = SECONDS
        return HfApi(endpoint=self._endpoint, token=self._token)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except RunnerError:
            raise
        except Exception as error:
            raise meaning(self._place, error) from error


def is_name(text: str) -> bool:
    """Whether a repository can be called that: USER/REPO."""
    try:
        _utils().validate_repo_id(text)
    except ValueError:
        return False
    return text.count("/") == 1


def git_hash(body: bytes) -> str:
    """What the hub knows a file by that is no LFS file."""
    return hashlib.sha1(b"blob %d\0%b" % (len(body), body), usedforsecurity=False).hexdigest()


def _utils() -> Any:
    from huggingface_hub import utils

    return utils

"""push: an export as a model on the Hugging Face Hub, in one commit; repeated, it sends what is not there yet."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from runner.commands.results.tools import export
from runner.errors import RunnerError
from runner.queue import jobs
from runner.queue.database import open_queue
from runner.settings import Settings

TAG = "wake2vec"  # on the card of every export
BARE = frozenset({".gitattributes", "README.md"})
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def run(settings: Settings, name: str, to: str, *, private: bool, step: str, **asked: Any) -> None:
    """`asked`: fields of the export. Raises UnknownJob, RunnerError where the hub does not take it."""
    if not REPOSITORY.fullmatch(to):
        raise RunnerError(f"{to!r}: expected USER/NAME, as the hub shows it")
    with open_queue(settings.database) as queue:
        reached = jobs.get_job(queue, name).kept_step
    _require_free(to)  # before an export that may take half an hour
    kind = [word if choice is True else str(choice) for word, choice in asked.items() if choice]
    folder = settings.home / "push" / "-".join([name, step, str(reached), *kind])
    if not folder.is_dir():  # else an upload that was cut: an export appears whole or not at all
        export(settings, name, folder, step=step, **asked)
    print(f"{name}: is at {_upload(folder, to, name, private=private)}")
    shutil.rmtree(folder)


def _require_free(to: str) -> None:
    """Raises RunnerError for a repository that holds something else than a job's result."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        found = HfApi().model_info(to)
    except RepositoryNotFoundError:
        return
    except Exception as error:
        raise _refused(to, error) from error
    foreign = {file.rfilename for file in found.siblings or ()} - BARE
    if foreign and TAG not in (found.tags or ()):
        example = sorted(foreign)[0]
        raise RunnerError(f"{to}: is on the hub and holds another model ({example}); choose another name")


def _upload(folder: Path, to: str, job: str, *, private: bool) -> str:
    """One commit, so that nobody ever finds half of it; files that the hub has are not sent again."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = api.create_repo(to, private=private, exist_ok=True)
        # what an earlier push left and this one lacks would be loaded with it: another kind, another number of shards
        api.upload_folder(
            repo_id=to, folder_path=folder, commit_message=f"{job}, by wake2vec-runner", delete_patterns="*"
        )
    except Exception as error:
        raise _refused(to, error) from error
    return str(url)


def _refused(to: str, error: Exception) -> RunnerError:
    """What the hub's answer means for a person."""
    status = _status(error)
    said = str(error).strip().partition("\n")[0]
    causes = {
        401: ("the hub does not know this token", "`hf auth login`, or set HF_TOKEN to one that may write"),
        403: ("the hub does not let this account write there", "use a token of type write, and a name of your own"),
        413: ("the hub's quota for this account is full", "make room, or push with --adapter-only"),
        429: ("the hub asks for a pause", "push again in an hour: what was sent stays there"),
    }
    cause, remedy = causes.get(status, ("the hub did not take it", "push again: what was sent is not sent twice"))
    return RunnerError(f"{to}: {cause} ({said}); {remedy}")


def _status(error: BaseException | None) -> int:
    """Of the answer that began it; 0 where there was none."""
    while error is not None:
        if (response := getattr(error, "response", None)) is not None:
            return int(response.status_code)
        error = error.__cause__
    return 0

"""push: an export as a model on the Hugging Face Hub, in one commit; repeated, it sends what is not there yet."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.commands.results.fetch import use_trained
from runner.errors import RunnerError
from runner.queue import jobs
from runner.queue.database import open_queue
from runner.settings import Settings
from runner.store.hub.answers import FULL, SIGN_IN, said_by, status_of

TAG = "wake2vec"  # on the card of every export
BARE = frozenset({".gitattributes", "README.md"})
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
BY = ", by wake2vec-runner"  # at the end of the title of each commit, behind the job's name and what of it
SECONDS = 10.0  # for a question whose answer is not needed


def run(settings: Settings, name: str, to: str, *, private: bool, step: str, if_new: bool, **asked: Any) -> None:
    """`asked`: fields of the export. Raises UnknownJob, RunnerError where the hub does not take it."""
    pushed_to(to)
    with open_queue(settings.database) as queue:
        job = jobs.get_job(queue, name)
    kind = [word if choice is True else str(choice) for word, choice in asked.items() if choice]
    title = f"{name}, {' '.join([step, 'of', str(job.kept_step), *kind])}{BY}"
    if _require_free(to, name) == title and if_new:  # before an export that may take half an hour
        print(f"{name}: is at {to} already")
        return
    base = job.spec.model.base if job.spec.model is not None else ""
    licence = "" if asked.get("adapter_only") else _licence(base)
    folder = settings.home / "push" / "-".join([name, step, str(job.kept_step), *kind])
    if not folder.is_dir():  # else an upload that was cut: an export appears whole or not at all
        use_trained(settings, "export", name, out=folder, step=step, **asked)
    _say_licence(folder, licence)
    print(f"{name}: is at {_upload(folder, to, title, private=private)}")
    shutil.rmtree(folder)


def pushed_to(to: str) -> str:
    """The address itself. Raises RunnerError for one that is none."""
    if not REPOSITORY.fullmatch(to):
        raise RunnerError(f"{to!r}: expected USER/NAME, as the hub shows it")
    return to


def _require_free(to: str, job: str) -> str:
    """The title of what this program pushed there last. Raises RunnerError where this job may not go there."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        _require_rights(HfApi().whoami(), to)
        found = HfApi().model_info(to)
        titles = [commit.title for commit in HfApi().list_repo_commits(to) if commit.title.endswith(BY)]
    except RepositoryNotFoundError:
        return ""
    except RunnerError:
        raise
    except Exception as error:
        raise _refused(to, error) from error
    foreign = {file.rfilename for file in found.siblings or ()} - BARE
    if foreign and TAG not in (found.tags or ()):
        example = sorted(foreign)[0]
        raise RunnerError(f"{to}: is on the hub and holds another model ({example}); choose another name")
    last = titles[0] if titles else ""
    if foreign and last and (other := last.removesuffix(BY).partition(",")[0]) != job:
        raise RunnerError(f"{to}: holds the result of another job, {other}; choose another name")
    return last


def _require_rights(me: dict[str, Any], to: str) -> None:
    """Raises RunnerError where it is known that this token may not write there."""
    owner, mine = to.partition("/")[0], {me.get("name"), *(one.get("name") for one in me.get("orgs") or ())}
    if owner not in mine:
        raise RunnerError(f"{to}: {owner} is neither you nor an organisation of yours; you are {me.get('name')}")
    if me.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise RunnerError(f"{to}: this token may only read; {SIGN_IN}")


def _licence(base: str) -> str:
    """That of the base, as the hub knows it; empty where it does not. Raises RunnerError for one that forbids this."""
    from huggingface_hub import HfApi

    licence = ""
    if REPOSITORY.fullmatch(base):
        with suppress(Exception):  # a hub that does not know it, or is slow to say so
            card: Any = HfApi().model_info(base, timeout=SECONDS).card_data
            licence = str(card.to_dict().get("license") or "") if card else ""
    if re.search(r"(^|-)nd(-|$)", licence):
        raise RunnerError(
            f"{base}: its licence, {licence}, does not allow changed copies; --adapter-only pushes none of it"
        )
    return licence


def _say_licence(folder: Path, licence: str) -> None:
    """In the head of the card: what holds for the base holds for what is made of it."""
    from huggingface_hub import ModelCard

    card = folder / "README.md"
    if licence and card.is_file():
        found = ModelCard.load(card)
        found.data.license = licence
        found.save(card)


def _upload(folder: Path, to: str, title: str, *, private: bool) -> str:
    """One commit, so that nobody ever finds half of it; files that the hub has are not sent again."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in sorted(files.items())]
    try:
        url = api.create_repo(to, private=private, exist_ok=True)
        # what an earlier push left and this one lacks would be loaded with it: another kind, another number of shards
        left = sorted(set(api.list_repo_files(to)) - files.keys() - {".gitattributes"})
        gone = [CommitOperationDelete(path_in_repo=name) for name in left]
        api.create_commit(to, [*gone, *added], commit_message=title)
    except Exception as error:
        raise _refused(to, error) from error
    return str(url)


def _refused(to: str, error: Exception) -> RunnerError:
    """What the hub's answer means for a person."""
    status = 413 if FULL.search(str(error)) else status_of(error)
    causes = {
        401: ("the hub does not know this token", SIGN_IN),
        403: ("the hub does not let this account write there", "use a token of type write, and a name of your own"),
        413: ("the hub's quota for this account is full", "make room, or push with --adapter-only"),
        429: ("the hub asks for a pause", "push again in an hour: what was sent stays there"),
    }
    cause, remedy = causes.get(status, ("the hub did not take it", "push again: what was sent is not sent twice"))
    return RunnerError(f"{to}: {cause} ({said_by(error)}); {remedy}")

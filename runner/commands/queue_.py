"""queue move: copy the queue of a home into a database that several homes share, or back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runner.errors import RunnerError
from runner.machine.home import only_daemon
from runner.queue.database import Queue, open_queue
from runner.queue.moving import copy_queue
from runner.settings import Settings, holder_of, read_settings
from wake2vec.contract.files import counted


def move(here: Settings, old: str, new: str) -> None:
    """Each is the folder of a home or the address of a PostgreSQL database. Raises DaemonRunning, QueueUnavailable,
    IllegalTransition where a runner works on the one or the other."""
    if old == new:
        raise RunnerError(f"{old}: is both the queue to copy and the place for it")
    with ExitStack() as stack:
        source, home = stack.enter_context(_open(here, old, is_there=True))
        target, _ = stack.enter_context(_open(here, new, is_there=False))
        count = copy_queue(source, target, holder_of(home), here.numbers.lease_seconds)
        print(f"{counted(count, 'job')} with all their rows are in {target.place} now")
        print(f"{source.place} was left as it is: start no runner on it again")


@contextmanager
def _open(here: Settings, place: str, *, is_there: bool) -> Iterator[tuple[Queue, Path]]:
    """The queue, and the home that it is of; nobody else may be at work in a home's own."""
    with ExitStack() as stack:
        if "://" in place:
            settings = read_settings(here.home, here.store_url, {"WAKE2VEC_DB": place})
        else:
            settings = read_settings(Path(place), here.store_url, {})
            if is_there and not (settings.home / "runner.db").is_file():
                raise RunnerError(f"{place}: holds no queue; name the folder of a home, or postgresql+psycopg://…")
            stack.enter_context(only_daemon(settings.home))
        yield stack.enter_context(open_queue(settings.database)), settings.home

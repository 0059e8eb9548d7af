"""Where this runner works and how: the home, the store, and the numbers a person may set in `settings.toml`."""

from __future__ import annotations

import os
import secrets
import socket
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_dir
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from runner.children import QUEUE_VARIABLE, STORE_VARIABLE
from runner.discretion import hide
from runner.errors import HomeUnusable, RunnerError
from runner.states import Foreign

HOLDER = "holder"  # in the home: its name in stores
LEASE_SECONDS = 180.0  # a dozen signs of life of a home, four of a job's holder (SEEN_SECONDS, BEAT_SECONDS)
DAEMON_LOCK = "daemon.lock"  # in the home: held by the daemon that lives there
TRANSFERS = "transfers"  # in the home: under which ids files are being stored


class Numbers(BaseModel):
    """What `settings.toml` in the home may say; every duration carries its unit in its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tick_seconds: float = Field(1.0, gt=0)
    sync_seconds: float = Field(2.0, gt=0)
    grace_seconds: float = Field(60.0, gt=0, description="From SIGTERM to SIGKILL of a trainer.")
    hang_minutes: float = Field(30.0, gt=0, description="A heartbeat that stays the same for so long is a hang.")
    lease_seconds: float = Field(
        LEASE_SECONDS, gt=0, description="A rival whose heartbeat stays the same for so long is gone."
    )
    backoff_first_seconds: float = Field(60.0, ge=0)
    backoff_last_seconds: float = Field(1800.0, ge=0)
    bandwidth_mib_per_second: float | None = Field(None, gt=0, description="Cap on uploads.")
    allow: list[Foreign] = Field(
        [], description="What jobs that another machine queued may run here besides P1 and P2."
    )
    cpu_cards: int = Field(1, ge=1, le=64, description="Places for trainers where there is no card.")
    shared: Path | None = Field(None, description="Folder that every host of a cluster sees: runs and texts lie there.")
    trainer: list[str] | None = Field(None, description="The trainer command; the run directory is appended.")


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where a queue lies that several homes share."""

    url: str
    home: str  # what this home is called there
    silent_seconds: float = LEASE_SECONDS  # another home that is not heard for so long is gone

    def __str__(self) -> str:
        return hide(self.url)


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True)

    home: Path
    store_url: str
    numbers: Numbers = Numbers()
    queue_url: str = ""  # of a shared queue

    @property
    def store_shown(self) -> str:
        """The store's address as it may be seen."""
        return hide(self.store_url)

    @property
    def database(self) -> Path | Server:
        """Where the queue lies: a file of this home, or what WAKE2VEC_DB names."""
        if self.queue_url:
            lease = self.numbers.lease_seconds
            return Server(url=self.queue_url, home=holder_of(self.home), silent_seconds=lease)
        return self.home / "runner.db"

    @property
    def inputs(self) -> Path:
        return (self.numbers.shared or self.home) / "inputs"

    @property
    def runs(self) -> Path:
        return (self.numbers.shared or self.home) / "runs"

    @property
    def locks(self) -> Path:
        return self.home / "locks"

    @property
    def daemon_lock(self) -> Path:
        return self.home / DAEMON_LOCK

    @property
    def daemon_log(self) -> Path:
        return self.home / "runner.log"


def read_settings(home: Path | None, store: str | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Command line first, then environment, then `settings.toml`, then defaults. Raises RunnerError naming the key."""
    place = Path(home or environment.get("WAKE2VEC_HOME") or user_data_dir("wake2vec-runner", appauthor=False))
    place = place.expanduser().absolute()
    if place.exists() and not place.is_dir():
        raise HomeUnusable(f"{place}: is a file, not a folder; choose another --home")
    file = place / "settings.toml"
    try:
        table = tomllib.loads(file.read_text("utf-8")) if file.is_file() else {}
        saved_store = table.pop("store", None)
        numbers = Numbers(**table)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunnerError(f"{file}: not TOML: {error}; mend it or remove it") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise RunnerError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    url = store or environment.get(STORE_VARIABLE) or saved_store or f"dir:{place / 'store'}"
    return Settings(home=place, store_url=str(url), numbers=numbers, queue_url=_queue_url(environment))


def _queue_url(environment: Mapping[str, str]) -> str:
    url = environment.get(QUEUE_VARIABLE, "").strip()
    if url and not url.startswith(("postgresql://", "postgresql+psycopg://")):
        shown = hide(url, url)
        raise RunnerError(f"{QUEUE_VARIABLE}: {shown}: write it as postgresql+psycopg://USER:PASSWORD@HOST/DATABASE")
    return url


def holder_of(home: Path) -> str:
    """Who this home is in a store and in a shared queue: the same after every restart, another one in every home.

    The second line of its file is the file's inode, which a home that is renamed keeps and a copy has not.
    """
    path = home / HOLDER
    if not (path.is_file() and path.read_text()):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # empty, as a full disk leaves it
        with suppress(FileExistsError), path.open("x") as file:  # of two that begin at once the first names the home
            file.write(f"{socket.gethostname()}-{secrets.token_hex(4)}\n{os.fstat(file.fileno()).st_ino}\n")
    return path.read_text().partition("\n")[0]

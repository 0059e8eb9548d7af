"""Repeat what a store could not do at once: full jitter, or as long as the store asks for."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from runner.errors import StoreBusy
from runner.store.base import Progress, Properties, Quota, Stat, Store
from wake2vec.contract.files import FileDigest

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Waits grow as base, 2·base, 4·base … up to `cap`, each drawn evenly between 0 and that.

    Full jitter: Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015.
    """

    base_seconds: float = 0.5
    cap_seconds: float = 60.0
    give_up_seconds: float = 300.0
    told_seconds: float = 120.0  # a longer pause is asked of whoever can tell a person of it

    def wait(self, attempt: int, asked: float | None, draw: float) -> float:
        """Seconds before the next attempt; what the store asked for is the least."""
        jitter = draw * min(self.cap_seconds, self.base_seconds * 2.0 ** min(attempt, 32))
        return max(jitter, asked or 0.0)


@dataclass(frozen=True, kw_only=True)
class Busy:
    """A call that is being repeated now, for whoever tells a person; seconds since 1970."""

    said: str
    since_at: float
    again_at: float


class _Moving:
    """Passes progress on and remembers whether an object got further than ever before."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._furthest = 0
        self._seen = 0

    def __call__(self, size: int) -> None:
        self._furthest = max(self._furthest, size)
        if self._progress:
            self._progress(size)

    def moved(self) -> bool:
        """Whether bytes arrived since the last time this was asked."""
        seen, self._seen = self._seen, self._furthest
        return self._furthest > seen


class RetryingStore:
    """A store that repeats StoreBusy calls of another one. Every call of a store may be repeated; see `Store`."""

    def __init__(
        self,
        store: Store,
        *,
        backoff: Backoff | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.inner = store
        self._backoff = backoff or Backoff()
        self._monotonic = monotonic
        self._sleep = sleep
        self._draw = draw
        self.busy: Busy | None = None  # written by whichever thread repeats a call, read by any

    def _repeat(self, call: Callable[[], T], progress: _Moving | None = None) -> T:
        """Patience counts from the last byte that moved, not from the start: a long upload may meet many failures."""
        since, attempt, began_at = self._monotonic(), 0, time.time()
        try:
            while True:
                try:
                    return call()
                except StoreBusy as error:
                    now = self._monotonic()
                    if progress and progress.moved():
                        since, attempt = now, 0
                    wait = self._backoff.wait(attempt, error.retry_after_seconds, self._draw())
                    asked = error.retry_after_seconds or 0.0
                    if now + wait - since > self._backoff.give_up_seconds or asked > self._backoff.told_seconds:
                        raise
                    self.busy = Busy(said=str(error), since_at=began_at, again_at=time.time() + wait)
                    self._sleep(wait)
                    attempt += 1
        finally:
            self.busy = None

    @property
    def properties(self) -> Properties:
        return self.inner.properties

    def root_id(self) -> str:
        return self._repeat(self.inner.root_id)

    def renew_root(self) -> None:
        self._repeat(self.inner.renew_root)

    def new_ids(self, names: Sequence[str]) -> list[str]:
        return self._repeat(lambda: self.inner.new_ids(names))

    def put(self, path: Path, *, id: str, name: str, digest: FileDigest, progress: Progress | None = None) -> None:
        moving = _Moving(progress)
        self._repeat(lambda: self.inner.put(path, id=id, name=name, digest=digest, progress=moving), moving)

    def get(self, id: str, path: Path, *, digest: FileDigest, progress: Progress | None = None) -> None:
        moving = _Moving(progress)
        self._repeat(lambda: self.inner.get(id, path, digest=digest, progress=moving), moving)

    def stat(self, id: str) -> Stat | None:
        return self._repeat(lambda: self.inner.stat(id))

    def delete(self, *ids: str) -> None:
        self._repeat(lambda: self.inner.delete(*ids))

    def find(self, folder: str) -> Iterator[Stat]:
        return iter(self._repeat(lambda: list(self.inner.find(folder))))

    def quota(self) -> Quota:
        return self._repeat(self.inner.quota)

    def create(self, id: str, body: bytes, *, name: str) -> bool:
        return self._repeat(lambda: self.inner.create(id, body, name=name))

    def read(self, id: str) -> bytes | None:
        return self._repeat(lambda: self.inner.read(id))

    def read_head(self, id: str) -> tuple[bytes, str] | None:
        return self._repeat(lambda: self.inner.read_head(id))

    def silence(self, id: str) -> float | None:
        return self._repeat(lambda: self.inner.silence(id))

    def swap_head(self, id: str, body: bytes, tag: str | None, *, name: str) -> bool:
        return self._repeat(lambda: self.inner.swap_head(id, body, tag, name=name))

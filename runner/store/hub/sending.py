"""On the way to the hub: files that tell how far they were read, and what is brought at the same time as one commit."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from runner.store.base import Progress


class Told(io.BufferedReader):
    """A file that tells how far it was read, once somebody listens."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self.progress: Progress | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        if self.progress:
            self.progress(self.tell())
        return chunk


class Together:
    """What threads bring at the same time, as one commit: whoever is ready last makes it, and the others wait."""

    def __init__(self, commit: Callable[[Sequence[Any]], None]) -> None:
        self._commit, self._lock = commit, threading.Lock()
        self._coming, self._ready = 0, list[tuple[Any, Future[None]]]()

    def add(self, prepare: Callable[[], Any]) -> None:
        """Returns once what `prepare` made is committed. Raises what kept it from that."""
        mine, made = Future[None](), None
        with self._lock:
            self._coming += 1
        try:
            made = prepare()
        finally:
            with self._lock:
                self._coming -= 1
                self._ready += [(made, mine)] if made is not None else []
                batch = [] if self._coming else self._ready
                self._ready = self._ready if self._coming else []
            if batch:
                self._conclude(batch)
        mine.result()

    def _conclude(self, batch: Sequence[tuple[Any, Future[None]]]) -> None:
        try:
            self._commit([made for made, _ in batch])
        except BaseException as error:
            for _, waiting in batch:
                waiting.set_exception(error)
        else:
            for _, waiting in batch:
                waiting.set_result(None)

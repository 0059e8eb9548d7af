"""Tell a webhook what a person wants to hear: done, failed, needs you, best so far. Never waits for it."""

from __future__ import annotations

import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from runner.screen.snapshot import JobPart, Snapshot

Kind = Literal["done", "failed", "needs-you", "best"]
TIMEOUT_SECONDS = 10.0
PAUSES_SECONDS = (1.0, 5.0, 30.0)  # before each repetition
MOST_WAITING = 100


class AddressUnusable(ValueError):
    """Nothing can be sent there; the message holds no part of the address."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """The JSON body of one call."""

    kind: Kind
    job: str | None
    text: str
    figures: dict[str, float | int | None] = field(default_factory=dict)
    at: float
    format: int = 1


def notices(before: Snapshot, after: Snapshot) -> list[Notice]:
    """What happened between two pictures that is worth a call."""
    then = {job.name: job for job in before.jobs}
    found = [notice for job in after.jobs if (old := then.get(job.name)) for notice in _of_job(old, job, after.at)]
    for need in after.needs_since(before):
        if not any(notice.job == need.job and notice.kind == "failed" for notice in found):
            text = f"{need.cause}; {need.command}" if need.command else need.cause
            found.append(Notice(kind="needs-you", job=need.job, text=text, at=after.at))
    return found


def _of_job(old: JobPart, new: JobPart, at: float) -> list[Notice]:
    best = new.best
    figures: dict[str, float | int | None] = {"step": new.trained, "steps": new.steps}
    if best is not None:
        figures |= {"best_loss": best.loss, "best_step": best.step, "bits_per_byte": best.bits_per_byte}
    if new.state == "succeeded" != old.state:
        said = f", best held-out loss {best.loss:.4f} at step {best.step}" if best and best.loss is not None else ""
        return [Notice(kind="done", job=new.name, text=f"{new.name} is done{said}", figures=figures, at=at)]
    if new.state == "failed" != old.state:
        text = f"{new.name} failed: {new.says}" + (f"; {new.command}" if new.command else "")
        return [Notice(kind="failed", job=new.name, text=text, figures=figures, at=at)]
    if best is not None and old.best is not None and best.step > old.best.step and best.loss is not None:
        text = f"{new.name}: best so far, {best.loss:.4f} nats at step {best.step}"
        return [Notice(kind="best", job=new.name, text=text, figures=figures, at=at)]
    return []


def post(url: str, notice: Notice) -> None:
    """One call: JSON to an http address, a message to any other that apprise knows (ntfy, Discord, Slack, mail …).

    Raises OSError (urllib's errors are) when it does not get through, AddressUnusable for one that nobody knows.
    """
    if service := messenger(url):
        if not service.notify(title="wake2vec-runner", body=notice.text):
            raise OSError("the service did not take it")
        return
    body = json.dumps(asdict(notice), ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "wake2vec-runner"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=TIMEOUT_SECONDS):
        pass


def messenger(url: str) -> Any:
    """What passes messages on to an address that is not http; None for one that is. Raises AddressUnusable."""
    if url.startswith(("http://", "https://")):
        return None
    try:
        import apprise
    except ImportError as error:
        raise AddressUnusable("not an http address; others need: pip install apprise") from error
    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its warnings show the address
    service = apprise.Apprise()
    if not service.add(url):
        raise AddressUnusable("no address that apprise knows")
    return service


class Webhook:
    """Looks at the picture now and then in a thread of its own, and calls the webhook from there."""

    def __init__(
        self,
        url: str,
        see: Callable[[float], Snapshot],
        *,
        say: Callable[[str], None],
        every_seconds: float = 5.0,
        pauses_seconds: tuple[float, ...] = PAUSES_SECONDS,
    ) -> None:
        self._url, self._see, self._say = url, see, say
        self._every, self._pauses = every_seconds, pauses_seconds
        self._waiting: deque[Notice] = deque(maxlen=MOST_WAITING)  # a dead webhook must not fill the memory
        self._end = threading.Event()
        self._is_failing = False
        self._last: Snapshot | None = None
        self._thread = threading.Thread(target=self._run, name="bell", daemon=True)

    def start(self) -> None:
        self._look()
        self._thread.start()

    def close(self, patience_seconds: float = 15.0) -> None:
        """One last look, and what can be said in that time; a webhook that hangs is left behind."""
        self._end.set()
        self._thread.join(patience_seconds)

    def _run(self) -> None:
        try:
            messenger(self._url)  # a person is told at the start, not when the first job has failed
        except AddressUnusable as error:
            self._give_up(error, True)
        while not self._end.wait(self._every):
            self._look()
            self._ring()
        self._look()
        self._ring()

    def _look(self) -> None:
        try:
            now = self._see(time.time())
        except Exception as error:  # the picture is somebody else's; it must not silence the webhook for good
            self._say(f"notifications: no picture: {error}")
            return
        if self._last is not None:
            self._waiting.extend(notices(self._last, now))
        self._last = now

    def _ring(self) -> None:
        while self._waiting:
            if not self._try(self._waiting[0]):
                return
            self._waiting.popleft()

    def _try(self, notice: Notice) -> bool:
        for pause in (*self._pauses, None):
            try:
                post(self._url, notice)
            except Exception as error:  # also what a service's own library may raise: the thread must live on
                permanent = isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and error.code != 429
                if pause is None or permanent or self._end.wait(pause):
                    return self._give_up(error, permanent)
            else:
                self._is_failing = False
                return True
        return False

    def _give_up(self, error: Exception, permanent: bool) -> bool:
        """Say it once; the address stays out of it, because it is often a secret. True drops the notice."""
        if not self._is_failing:
            cause = f"HTTP {error.code}" if isinstance(error, urllib.error.HTTPError) else _cause(error)
            self._say(f"notifications do not get through: {cause}; see WAKE2VEC_NOTIFY")
        self._is_failing = True
        return permanent


def _cause(error: Exception) -> str:
    """Our own words; those of a library may show the address."""
    return str(error) if isinstance(error, AddressUnusable) else type(error).__name__

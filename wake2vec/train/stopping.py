"""Remember that a stop was asked for, by a signal or by a known end of the session."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

from wake2vec.contract.rundir import STOP_SIGNALS


class Stop:
    """Asked once, true for ever; looked at after every micro-batch, since a step can outlast the grace time."""

    def __init__(self, stop_by: float | None = None) -> None:
        self._event = threading.Event()
        self._stop_by = stop_by
        self.reason = ""

    @property
    def is_asked(self) -> bool:
        return self._event.is_set()

    def ask(self, reason: str) -> None:
        if not self._event.is_set():
            self.reason = reason
            self._event.set()

    def seconds_left(self) -> float | None:
        """Until the known end of the session, by the wall clock; None when no end is known."""
        return None if self._stop_by is None else self._stop_by - time.time()

    def listen(self) -> None:
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.ask(f"asked to stop by {signal.Signals(number).name}")

"""What can go wrong between a client and Drive: one fault a call, by plan or by chance."""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["status", "after", "drop", "cut", "no_answer", "half_answer", "stall", "html", "expire", "slow"]


@dataclass(frozen=True)
class Fault:
    """
    status       refuse with this status and do nothing          after      do it, then answer with this status
    drop         close the connection before doing anything      cut        take half of the request's body, then close
    no_answer    do it, then close without a word                half_answer do it, send half of the answer, then close
    stall        answer nothing until the client gives up        html       a front end's page in place of an answer
    expire       forget the upload session                       slow       `bytes_per_second`, after `seconds`
    """

    kind: Kind
    status: int = 503
    reason: str = "backendError"
    retry_after: str | None = None
    bytes_per_second: float = 1 << 20
    seconds: float = 0.0


@dataclass
class Rule:
    """The fault meets calls whose "METHOD /path" contains `match`, after `skip` of them, `times` times."""

    fault: Fault
    match: str = ""
    skip: int = 0
    times: int = 1


CHANCES: tuple[Fault, ...] = (
    Fault("status", 503),
    Fault("status", 500, "internalError"),
    Fault("status", 429, "rateLimitExceeded", "0"),
    Fault("status", 403, "userRateLimitExceeded"),
    Fault("after", 503),
    Fault("drop"),
    Fault("cut"),
    Fault("no_answer"),
    Fault("half_answer"),
    Fault("html", 502),
    Fault("html", 200),
    Fault("html", 404),
    Fault("expire"),
)


@dataclass
class Faults:
    """Rules first, then chance: each call meets a random fault with probability `rate`."""

    rules: list[Rule] = field(default_factory=list)
    rate: float = 0.0
    chances: tuple[Fault, ...] = CHANCES
    random: random.Random = field(default_factory=lambda: random.Random(0))
    met: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, call: str) -> Fault | None:
        with self.lock:
            self.calls += 1
            fault = self._planned(call) or self._chance(call)
            if fault:
                self.met[fault.kind] += 1
            return fault

    def _planned(self, call: str) -> Fault | None:
        for rule in self.rules:
            if rule.match not in call or rule.times <= 0:
                continue
            if rule.skip > 0:
                rule.skip -= 1
                continue
            rule.times -= 1
            return rule.fault
        return None

    def _chance(self, call: str) -> Fault | None:
        if self.random.random() >= self.rate:
            return None
        fault = self.random.choice(self.chances)
        is_idle = fault.kind == "expire" and "/session/" not in call
        return Fault("drop") if is_idle else fault

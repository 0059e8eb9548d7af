"""What each answer of Drive means."""

from __future__ import annotations

import json

import pytest

from runner.errors import Damaged, NotStored, RunnerError, SignInNeeded, StoreBusy, StoreFull, StoreUnavailable
from runner.store.drive.errors import IdTaken, TagMoved, retry_after, verdict

HTML = b"<!DOCTYPE html><html><body>That is all we know.</body></html>"


def google(reason: str, message: str = "") -> bytes:
    return json.dumps({"error": {"errors": [{"reason": reason}], "message": message}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, google("authError"), SignInNeeded),
        (403, google("userRateLimitExceeded"), StoreBusy),
        (403, google("rateLimitExceeded"), StoreBusy),
        (403, google("storageQuotaExceeded"), StoreFull),
        (403, google("accessNotConfigured"), StoreUnavailable),
        (403, google("insufficientPermissions"), StoreUnavailable),
        (403, google("appNotAuthorizedToFile"), StoreUnavailable),
        (403, HTML, StoreBusy),
        (404, google("notFound"), NotStored),
        (404, HTML, StoreBusy),
        (408, b"", StoreBusy),
        (409, google("fileIdInUse"), IdTaken),
        (412, google("conditionNotMet"), TagMoved),
        (416, google("requestedRangeNotSatisfiable"), Damaged),
        (429, google("rateLimitExceeded"), StoreBusy),
        (500, google("internalError"), StoreBusy),
        (502, HTML, StoreBusy),
        (503, google("backendError"), StoreBusy),
        (200, HTML, StoreBusy),
        (400, google("invalid"), StoreUnavailable),
    ],
)
def test_an_answer_has_one_meaning(status: int, body: bytes, kind: type[RunnerError]) -> None:
    assert type(verdict("a call", status, {}, body, now=0.0)) is kind


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("17", 17.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 60.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("soon", None),
    ],
)
def test_how_long_to_wait_is_read_as_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after({} if value is None else {"retry-after": value}, now=40.0) == seconds


def test_every_stop_names_a_way_out() -> None:
    assert "login" in str(verdict("x", 401, {}, google("authError"), now=0.0))
    assert "bin" in str(verdict("x", 403, {}, google("storageQuotaExceeded"), now=0.0))
    assert "enable it" in str(verdict("x", 403, {}, google("accessNotConfigured"), now=0.0))
    assert "same OAuth client" in str(verdict("x", 403, {}, google("appNotAuthorizedToFile"), now=0.0))

"""What an answer of Google Drive means for the store: pure, from status, headers and body to one of our errors."""

from __future__ import annotations

import email.utils
import json
from collections.abc import Mapping

from runner.errors import Damaged, NotStored, RunnerError, SignInNeeded, StoreBusy, StoreFull, StoreUnavailable

RATE_LIMITS = {
    "userRateLimitExceeded",
    "rateLimitExceeded",
    "sharingRateLimitExceeded",
    "backendError",
    "internalError",
}
FULL = {"storageQuotaExceeded", "quotaExceeded", "numChildrenInNonRootLimitExceeded"}
FOREIGN = {"appNotAuthorizedToFile", "insufficientFilePermissions", "forbidden"}

SIGN_IN = (
    "run `wake2vec-runner login` where there is a browser; on Colab or Kaggle put the new token into the secret "
    "WAKE2VEC_DRIVE_TOKEN. A consent screen left in `Testing` ends every token after 7 days: publish it"
)
REMEDIES = {
    "accessNotConfigured": "the Drive API is switched off in the Cloud project of the OAuth client; enable it there",
    "insufficientPermissions": "the token lacks the scope drive.file; run `wake2vec-runner login` again",
    "dailyLimitExceeded": "the Cloud project has used up its day; it goes on tomorrow",
}


class IdTaken(RunnerError):
    """Something is stored under that id already."""


class TagMoved(RunnerError):
    """The document is not the one that was read, or Drive moved its tag by itself."""


def verdict(place: str, status: int, headers: Mapping[str, str], body: bytes, *, now: float) -> RunnerError:
    """The error that says what happened; `now` in seconds since 1970 only reads a Retry-After that is a date."""
    reason, message = _reason(body)
    text = f"Google Drive: {place}: {status} {reason or ''} {message}".rstrip()
    if status == 401:
        return SignInNeeded(f"{text}; {SIGN_IN}")
    if status == 404 and reason == "notFound":
        return NotStored(f"{text}; it was deleted, or made by another OAuth client, whose files this one cannot see")
    if status == 409:
        return IdTaken(text)
    if status == 412:
        return TagMoved(text)
    if status == 416:
        return Damaged(f"{text}; it is shorter than its record says")
    if reason in FULL:
        return StoreFull(
            f"{text}. What trains here goes on, uploads wait: empty the bin, or make room there "
            "(service accounts have none: sign in as a person)"
        )
    if reason in REMEDIES:
        return StoreUnavailable(f"{text}; {REMEDIES[reason]}")
    if status in (408, 429) or status >= 500 or reason in RATE_LIMITS or reason is None:
        # no reason at all is a page of some front end or proxy, whatever its status: nothing is known, so ask again
        return StoreBusy(text, retry_after_seconds=retry_after(headers, now))
    if reason in FOREIGN:
        return StoreUnavailable(f"{text}; with drive.file only files of the same OAuth client can be used: keep to one")
    return StoreUnavailable(f"{text}; `wake2vec-runner doctor` tells more")


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the answer asks to wait: a number or a date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (TypeError, ValueError):
        return None


def _reason(body: bytes) -> tuple[str | None, str]:
    """Google's reason word and message; (None, …) when the body is not Google's, such as a page of HTML."""
    try:
        error = json.loads(body)["error"]
        return str(error["errors"][0]["reason"]), str(error.get("message", ""))
    except (ValueError, KeyError, TypeError, IndexError):
        return None, ""

"""What an answer of the Hugging Face Hub means, for a store that lives there and for what is pushed to it."""

from __future__ import annotations

import re
from typing import Any

from runner.errors import NotStored, RunnerError, SignInNeeded, StoreBusy, StoreFull, StoreLost

AN_HOUR_ASKED_SECONDS = 300.0  # of a limit by the hour: its window slides, so that room comes back before the hour ends
FULL = re.compile(r"storage (limit|patterns)|quota", re.IGNORECASE)
LOGIN = "hf auth login"
SIGN_IN = f"`{LOGIN}`, or set HF_TOKEN to a token that may write"


class Moved(StoreBusy):
    """Somebody committed since the parent was read."""


def meaning(place: str, error: Exception) -> RunnerError:
    """The runner's own error for one of huggingface_hub's, which shows no address with a token in it."""
    from huggingface_hub import errors

    status, said = status_of(error), f"{place}: {said_by(error)}"
    if isinstance(error, errors.EntryNotFoundError):
        return NotStored(said)
    if isinstance(error, errors.RevisionNotFoundError):  # squashed by a person since it was read
        return Moved(f"{place}: its history has been written anew")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return StoreBusy(f"{place}: HF_HUB_OFFLINE is set, and the store is on the hub; unset it")
    if status == 401 or isinstance(error, errors.LocalTokenNotFoundError):
        said = f"{place}: the hub does not know this token, or there is none; {SIGN_IN}"
        return SignInNeeded(said, command=LOGIN)
    if status in (413, 507) or (status in (0, 402, 403) and FULL.search(str(error))):
        return StoreFull(f"{said}; make room on the hub, or choose another --store")
    if status == 403:
        return SignInNeeded(f"{said}; this token may not do that there: {SIGN_IN}", command=LOGIN)
    if status == 404:
        return StoreLost(f"{place}: there is no such repository, or this token may not see it")
    if status in (409, 412):
        return Moved(f"{place}: somebody else has committed there in between")
    if status == 429:
        return StoreBusy(f"{said}; it asks for a pause", retry_after_seconds=pause_asked(error))
    return StoreBusy(said)


def said_by(error: BaseException) -> str:
    """The hub's own words where it sent some, in one line."""
    began = error
    while (
        began.__cause__ is not None and getattr(began, "response", None) is None
    ):  # an upload's own words are in front
        began = began.__cause__
    words = str(getattr(began, "server_message", None) or "") or f"{type(began).__name__} {began}"
    return " ".join(words.split())[:300].rstrip(".")


def status_of(error: BaseException | None) -> int:
    """Of the answer that began it; 0 where there was none."""
    response = _response(error)
    return 0 if response is None else int(response.status_code)


def pause_asked(error: Exception) -> float | None:
    """Seconds, by `Retry-After`, by the window of a limit that is used up, or for a limit by the hour."""
    headers = getattr(_response(error), "headers", {})
    asked = str(headers.get("retry-after", ""))
    window = re.search(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", str(headers.get("ratelimit", "")))
    if asked.isdigit() or window:
        return float(asked if asked.isdigit() else window[1])  # type: ignore[index]
    return AN_HOUR_ASKED_SECONDS if "hour" in str(error) else None


def _response(error: BaseException | None) -> Any:
    while error is not None:
        if (response := getattr(error, "response", None)) is not None:
            return response
        error = error.__cause__
    return None

"""login: sign in to Google Drive once; the token stays in the home, readable by its owner alone."""

from __future__ import annotations

import json
from pathlib import Path

from runner.errors import RunnerError
from runner.settings import Settings
from runner.store.drive_auth import save_token
from runner.store.drive_login import sign_in
from runner.store.open import open_store


def run(settings: Settings, client: Path, *, paste: bool) -> None:
    """Raises SignInNeeded when nobody granted it, RunnerError for a file that is no OAuth client."""
    try:
        table = json.loads(client.read_text("utf-8"))
    except OSError as error:
        raise RunnerError(f"{client}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunnerError(f"{client}: not JSON: {error}; download it again from the Google Cloud console") from error
    token = sign_in(table, show=_show, receive=_ask if paste else None)
    print(f"signed in; the token is in {save_token(settings.home, token)}")
    if settings.store_url.startswith("drive:"):
        open_store(settings.store_url, settings.home).root_id()
        print(f"{settings.store_url} is ready")
    else:
        print("use it with --store drive:FOLDER, or WAKE2VEC_STORE=drive:FOLDER")


def _show(address: str) -> None:
    print(f"open this address in a browser, on any machine:\n\n  {address}\n", flush=True)


def _ask() -> str:
    print("allow it, then copy the address of the page that cannot be reached, and paste it here:")
    return input("> ").strip()

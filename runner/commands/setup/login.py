"""login: sign in to Google Drive once; the token stays in the home, readable by its owner alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from runner.errors import RunnerError, SignInNeeded
from runner.settings import Settings
from runner.store.base import Store
from runner.store.drive.auth import Token, save_token, token_path
from runner.store.drive.login import sign_in
from runner.store.log import Log
from runner.store.open import open_store
from runner.store.root import jobs
from wake2vec.contract.files import open_regular

MOST_BYTES = 1 << 20


def run(settings: Settings, client: Path, *, paste: bool) -> None:
    """Raises SignInNeeded when nobody granted it, RunnerError for a file that is no OAuth client."""
    try:
        with open_regular(client) as file:
            table = json.loads(file.read(MOST_BYTES))
    except OSError as error:
        raise RunnerError(f"{client}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunnerError(f"{client}: not JSON: {error}; download it again from the Google Cloud console") from error
    token = replace(sign_in(table, show=_show, receive=_ask if paste else None), folders=_pins(settings.home))
    print(f"signed in; the token is in {save_token(settings.home, token)}")
    if settings.store_url.startswith("drive:"):
        print(f"{settings.store_url} is ready; {whose(open_store(settings.store_url, settings.home), token.client_id)}")
    else:
        print("use it with --store drive:FOLDER, or WAKE2VEC_STORE=drive:FOLDER")


def whose(store: Store, client_id: str) -> str:
    """What this sign-in sees there: each sees only what it made itself."""
    first_id = store.root_id()
    found = jobs(Log.open(store, first_id, holder="login").records) if store.read(first_id) is not None else {}
    if found:
        return f"the client {client_id} made what is there: {', '.join(sorted(found))}"
    return (
        f"the client {client_id} has made nothing there yet. What another sign-in made, such as Colab's own, it never "
        "sees: `wake2vec-runner repair --yes` in a home that has it takes it along"
    )


def _pins(home: Path) -> dict[str, str]:
    """The folders that the token before knew by id: a second sign-in is to the same store."""
    try:
        return Token.from_json(token_path(home).read_text(), str(token_path(home))).folders
    except (OSError, ValueError, SignInNeeded):
        return {}


def _show(address: str) -> None:
    print(f"open this address in a browser, on any machine:\n\n  {address}\n", flush=True)


def _ask() -> str:
    print("allow it, then copy the address of the page that cannot be reached, and paste it here:")
    return input("> ").strip()

"""The token that lets a machine into Google Drive without a person: where it lies, and how it renews itself."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from runner.children import TOKEN_VARIABLE
from runner.errors import SignInNeeded
from runner.store.drive_errors import SIGN_IN

SCOPE = "https://www.googleapis.com/auth/drive.file"  # sees only what this OAuth client made; needs no review by Google
TIMEOUT_SECONDS = 60.0
COLAB = "colab"  # as the value of TOKEN_VARIABLE: use what `google.colab.auth.authenticate_user()` left behind


@dataclass(frozen=True, kw_only=True)
class Token:
    """All that a machine needs to reach the store: whoever has it can read and write what the runner put there."""

    client_id: str
    client_secret: str = field(repr=False)
    refresh_token: str = field(repr=False)
    token_uri: str = "https://oauth2.googleapis.com/token"
    folders: dict[str, str] = field(
        default_factory=dict
    )  # pinned ids of root folders by name: listings lag, ids do not

    @classmethod
    def from_json(cls, text: str, place: str) -> Token:
        """Also reads what PyDrive2's SaveCredentials wrote. Raises SignInNeeded, without quoting what it read."""
        try:
            table = json.loads(text)
            known = {key: table[key] for key in cls.__dataclass_fields__ if key in table}
            token = cls(**known)
        except (ValueError, TypeError):
            raise SignInNeeded(f"{place}: holds no Drive token; {SIGN_IN}") from None
        if not token.refresh_token:
            raise SignInNeeded(f"{place}: the token cannot be renewed; {SIGN_IN}")
        return token


def token_path(home: Path) -> Path:
    return home / "drive-token.json"


def load_token(home: Path, environ: Mapping[str, str]) -> Token | None:
    """The token of the environment (its text, or a path to it) or of the home; None means Colab's own credentials.

    Raises SignInNeeded when there is none.
    """
    value = environ.get(TOKEN_VARIABLE, "").strip()
    if value == COLAB:
        return None
    if value.startswith("{"):
        return Token.from_json(value, TOKEN_VARIABLE)
    path = Path(value) if value else token_path(home)
    try:
        return Token.from_json(path.read_text(), str(path))
    except OSError as error:
        if not value and "COLAB_RELEASE_TAG" in environ:
            return None
        raise SignInNeeded(f"{path}: there is no Drive token; {SIGN_IN}") from error


def save_token(home: Path, token: Token) -> Path:
    """Written as 0600 from its first byte."""
    path = token_path(home)
    home.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(handle, "w") as file:
        json.dump(asdict(token), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return path


def pin_folder(home: Path, name: str, id: str) -> None:
    """Remember a root folder's id in the token of this home, so that it travels wherever the token goes."""
    if token_path(home).exists():
        token = Token.from_json(token_path(home).read_text(), str(token_path(home)))
        save_token(home, replace(token, folders={**token.folders, name: id}))


def pinned_folder(token: Token | None, name: str) -> str | None:
    return None if token is None else token.folders.get(name)


def authorise(token: Token | None, timeout_seconds: float) -> Any:
    """A pydrive2 GoogleAuth that renews itself for ever, never opens a browser and never waits without a limit."""
    from oauth2client.client import OAuth2Credentials
    from oauth2client.contrib.gce import AppAssertionCredentials
    from pydrive2.auth import GoogleAuth

    auth = GoogleAuth(settings_file=None, http_timeout=timeout_seconds)
    if token is None:
        # no refresh token here: pydrive2's own renewal asks for a browser after an hour, oauth2client's does not
        auth.credentials = AppAssertionCredentials()
    else:
        auth.credentials = OAuth2Credentials(
            None, token.client_id, token.client_secret, token.refresh_token, None, token.token_uri, "wake2vec-runner"
        )
    return auth

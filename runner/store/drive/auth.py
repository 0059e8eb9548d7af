"""The token that lets a machine into Google Drive without a person: where it lies, and how it renews itself."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from runner.children import TOKEN_VARIABLE
from runner.errors import SignInNeeded
from runner.store.drive.errors import SIGN_IN
from runner.store.drive.not_a_token import what_it_is

SCOPE = "https://www.googleapis.com/auth/drive.file"  # sees only what this OAuth client made; needs no review by Google
TIMEOUT_SECONDS = 60.0
MAX_PATH = 1024
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
        token = cls._read(text)
        if token is None:  # said out here: a traceback would show the error below, and what it was about
            raise SignInNeeded(f"{place}: {what_it_is(text)}. Or {SIGN_IN}")
        if not token.refresh_token:
            raise SignInNeeded(f"{place}: the token cannot be renewed; {SIGN_IN}")
        return token

    @classmethod
    def _read(cls, text: str) -> Token | None:
        try:
            table = json.loads(text)
            known = {key: table[key] for key in cls.__dataclass_fields__ if key in table}
            folders = known.get("folders", {})
            texts = [value for key, value in known.items() if key != "folders"] + [*folders, *folders.values()]
            return cls(**known) if all(isinstance(value, str) for value in texts) else None
        except (ValueError, TypeError, AttributeError, RecursionError):
            return None


def token_path(home: Path) -> Path:
    return home / "drive-token.json"


def load_token(home: Path, environ: Mapping[str, str], refused: Container[str] = ()) -> Token | None:
    """The token of the environment (its text, or a path to it) or of the home; None means Colab's own credentials.

    Where Google has refused the one of the environment, `refused` holds its refresh token: the home's is newer.
    Raises SignInNeeded when there is none, or when what is there is none.
    """
    value = environ.get(TOKEN_VARIABLE, "").strip()
    if value == COLAB:
        return None
    if value:
        token = _given(value)
        if token.refresh_token not in refused or not token_path(home).is_file():
            return token
    path = token_path(home)
    if path.is_file():
        return Token.from_json(_text(path), str(path))
    if "COLAB_RELEASE_TAG" in environ:
        return None
    raise SignInNeeded(f"{path}: there is no Drive token; {SIGN_IN}")


def _given(value: str) -> Token:
    """What the environment says. Only the name of a file that is there is ever shown: all else may be a secret."""
    path = Path(value).expanduser() if "\0" not in value and len(value) < MAX_PATH and value[0] not in "{~'\"" else None
    if path is not None and path.is_file():
        return Token.from_json(_text(path), str(path))
    return Token.from_json(value, TOKEN_VARIABLE)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise SignInNeeded(f"{path}: cannot be read: {error.strerror}; {SIGN_IN}") from None


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

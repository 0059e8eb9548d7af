"""Tokens and signing in, against the loopback token server."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
import threading
import traceback
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.children import TOKEN_VARIABLE
from runner.errors import RunnerError, SignInNeeded, StoreBusy
from runner.store.drive.auth import Token, load_token, pin_folder, save_token, token_path
from runner.store.drive.login import PASTE_REDIRECT, sign_in
from runner.store.drive.store import open_drive
from runner.store.drive.transfer import Throttle
from tests.drive_server.faults import Fault, Rule
from tests.drive_server.server import DriveServer

TOKEN = Token(client_id="c", client_secret="hush", refresh_token="hush-hush")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DriveServer]:
    with DriveServer(tmp_path / "google") as server:
        yield server


def client(server: DriveServer) -> dict[str, dict[str, str]]:
    return {"installed": {"client_id": "c", "client_secret": "s", "token_uri": f"{server.url}token"}}


def test_a_saved_token_is_for_its_owner_only(tmp_path: Path) -> None:
    path = save_token(tmp_path / "home", TOKEN)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_token(tmp_path / "home", {}) == TOKEN


def test_a_token_comes_from_the_environment_as_text_or_as_a_path(tmp_path: Path) -> None:
    path = save_token(tmp_path / "dataset", TOKEN)

    assert load_token(tmp_path, {TOKEN_VARIABLE: path.read_text()}) == TOKEN
    assert load_token(tmp_path, {TOKEN_VARIABLE: str(path)}) == TOKEN
    assert load_token(tmp_path, {TOKEN_VARIABLE: "colab"}) is None


def test_a_token_never_shows_itself(tmp_path: Path) -> None:
    assert "hush" not in repr(TOKEN)
    with pytest.raises(SignInNeeded) as told:
        load_token(tmp_path, {TOKEN_VARIABLE: '{"refresh_token": "hush"}'})
    assert "hush" not in str(told.value)


@pytest.mark.parametrize("text", ["{}", "{", '{"client_id": "a", "client_secret": "b", "refresh_token": ""}'])
def test_what_is_no_token_says_how_to_get_one(tmp_path: Path, text: str) -> None:
    with pytest.raises(SignInNeeded, match="wake2vec-runner login"):
        load_token(tmp_path, {TOKEN_VARIABLE: text})


SECRET = "REFRESHSECRETxyz"
WHOLE = '{"client_id": "c", "client_secret": "CLIENTSECRETxyz", "refresh_token": "1//REFRESHSECRETxyz"}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"'{WHOLE}'", "quotes"),
        (f'"{WHOLE}"', "quotes"),
        (f"`{WHOLE}`", "quotes"),
        (f"“{WHOLE}”", "quotes"),
        (f"\ufeff{WHOLE}", "byte-order mark"),
        (f"WAKE2VEC_DRIVE_TOKEN={WHOLE}", "name of the variable"),
        (f"1//{SECRET}", "refresh token alone"),
        (f"ya29.{SECRET}", "access token"),
        (f"GOCSPX-{SECRET}", "secret of an OAuth client"),
        (base64.b64encode(WHOLE.encode()).decode(), "base64"),
        (f"client_id: c\nrefresh_token: {SECRET}", "YAML"),
        (f"client_id = 'c'\nrefresh_token = '{SECRET}'", "INI or TOML"),
        (WHOLE.replace('"', "'"), "single quotes"),
        (WHOLE[:-3], "not whole JSON"),
        (WHOLE.replace("SECRET", "\n", 1), "line break"),
        (f"[{WHOLE}]", "list"),
        (f'{{"installed": {WHOLE}}}', "OAuth client"),
        ('{"type": "service_account", "private_key": "REFRESHSECRETxyz"}', "service account"),
        (WHOLE.replace('"c"', "5"), "lacks client_id"),
        ('{"refresh_token":' * 5000, "JSON"),
        (f"/content/{SECRET}.json", "file that can be read"),
        (f"{SECRET}\0", "file that can be read"),
        (SECRET * 500, "file that can be read"),
        ("\udce9" + SECRET, "file that can be read"),
    ],
)
def test_what_is_no_token_is_named_without_a_byte_of_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SignInNeeded, match=said) as told:
        load_token(tmp_path, {TOKEN_VARIABLE: text})

    told_whole = "".join(traceback.format_exception(told.value)) + repr(told.value.__context__)
    assert "SECRET" not in told_whole
    assert told.value.exit_code == 17


def test_a_file_that_holds_no_token_is_named_without_a_byte_of_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "token.json"
    for body in (WHOLE.encode("utf-16"), b"\xff" + WHOLE.encode(), f"'{WHOLE}'".encode()):
        path.write_bytes(body)
        with pytest.raises(SignInNeeded, match=r"token\.json") as told:
            load_token(tmp_path, {TOKEN_VARIABLE: str(path)})
        assert "SECRET" not in "".join(traceback.format_exception(told.value))
    path.write_bytes(b"\xef\xbb\xbf" + WHOLE.encode())  # an editor's mark before a sound token is no harm in a file
    assert load_token(tmp_path, {TOKEN_VARIABLE: str(path)}).client_id == "c"  # type: ignore[union-attr]


def test_a_new_token_is_taken_by_a_store_that_is_open(server: DriveServer, tmp_path: Path) -> None:
    old = {"client_id": "c", "client_secret": "s", "refresh_token": "old", "token_uri": f"{server.url}token"}
    environ = {**server.environ(), TOKEN_VARIABLE: json.dumps(old)}
    store = open_drive("w", tmp_path, environ, Throttle())
    server.drive.revoked = True
    with pytest.raises(SignInNeeded):
        store.quota()
    server.drive.revoked = False
    save_token(tmp_path, Token(client_id="c", client_secret="s", refresh_token="new", token_uri=f"{server.url}token"))

    assert store.quota().total == 15 << 30
    assert load_token(tmp_path, environ, {"old"}).refresh_token == "new"  # type: ignore[union-attr]


def test_no_token_at_all_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(SignInNeeded, match="wake2vec-runner login"):
        load_token(tmp_path, {})


def test_a_pinned_folder_travels_with_the_token(tmp_path: Path) -> None:
    save_token(tmp_path, TOKEN)

    pin_folder(tmp_path, "wake2vec", "id-1")

    assert json.loads(token_path(tmp_path).read_text())["folders"] == {"wake2vec": "id-1"}
    assert stat.S_IMODE(token_path(tmp_path).stat().st_mode) == 0o600


def test_signing_in_by_paste_gives_a_token_that_works(server: DriveServer, tmp_path: Path) -> None:
    shown: list[str] = []

    def paste() -> str:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(shown[0]).query)
        assert query["scope"] == ["https://www.googleapis.com/auth/drive.file"]
        assert query["access_type"] == ["offline"]
        assert query["redirect_uri"] == [PASTE_REDIRECT]
        assert "code_challenge" in query
        return f"{PASTE_REDIRECT}?state={query['state'][0]}&code=good-code"

    save_token(tmp_path / "home", sign_in(client(server), show=shown.append, receive=paste))

    store = open_drive("w", tmp_path / "home", {"WAKE2VEC_DRIVE_ROOT": server.url}, Throttle())
    assert store.quota().total == 15 << 30
    store.root_id()
    assert load_token(tmp_path / "home", {}).folders == {"w": store.folder_id}  # type: ignore[union-attr]


def test_signing_in_with_a_browser_on_this_machine(server: DriveServer) -> None:
    browsers: list[threading.Thread] = []

    def browse(url: str) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
        back = f"{query['redirect_uri'][0]}?state={query['state'][0]}&code=good-code"

        def visit() -> None:
            for address in (f"{query['redirect_uri'][0]}favicon.ico", back):
                with urllib.request.urlopen(address, timeout=120) as page:
                    page.read()

        browsers.append(threading.Thread(target=visit))
        browsers[0].start()

    token = sign_in(client(server), show=browse)
    browsers[0].join()

    assert token.refresh_token == "refresh"


@pytest.mark.parametrize(
    "answer", ["state=other&code=good-code", "state={state}&error=access_denied", "code=good-code", ""]
)
def test_an_answer_that_is_not_ours_is_refused(server: DriveServer, answer: str) -> None:
    shown: list[str] = []

    def paste() -> str:
        state = urllib.parse.parse_qs(urllib.parse.urlsplit(shown[0]).query)["state"][0]
        return f"{PASTE_REDIRECT}?{answer.format(state=state)}"

    with pytest.raises(SignInNeeded, match="login"):
        sign_in(client(server), show=shown.append, receive=paste)


def test_a_code_that_google_refuses_is_said_so(server: DriveServer) -> None:
    shown: list[str] = []

    def paste() -> str:
        state = urllib.parse.parse_qs(urllib.parse.urlsplit(shown[0]).query)["state"][0]
        return f"{PASTE_REDIRECT}?state={state}&code=bad-code"

    with pytest.raises(SignInNeeded, match="did not accept"):
        sign_in(client(server), show=shown.append, receive=paste)


def test_a_client_file_of_another_kind_is_said_so() -> None:
    with pytest.raises(RunnerError, match="Desktop app"):
        sign_in({"type": "service_account", "private_key": "x"}, show=print)


def test_a_token_that_google_no_longer_takes_wants_a_person(server: DriveServer, tmp_path: Path) -> None:
    server.drive.revoked = True

    with pytest.raises(SignInNeeded, match=r"invalid_grant.*wake2vec-runner login"):
        open_drive("w", tmp_path, server.environ(), Throttle()).quota()


def test_a_token_server_that_is_down_wants_no_person(server: DriveServer, tmp_path: Path) -> None:
    server.faults.rules = [Rule(Fault("status", 503), "/token")]

    with pytest.raises(StoreBusy):
        open_drive("w", tmp_path, server.environ(), Throttle()).quota()


def test_an_access_token_that_ran_out_is_renewed_on_the_way(server: DriveServer, tmp_path: Path) -> None:
    store = open_drive("w", tmp_path, server.environ(), Throttle())
    store.quota()
    server.drive.tokens.clear()

    store.quota()

    assert server.drive.counts["token"] == 2


COLAB = """
import os, sys
from pathlib import Path
from runner.store.drive.store import open_drive
from runner.store.drive.transfer import Throttle

store = open_drive("w", Path(sys.argv[1]), os.environ, Throttle())
store.quota()
print("asked once", flush=True)
sys.stdin.readline()
store.quota()
"""


def test_colabs_own_credentials_outlive_their_hour(server: DriveServer, tmp_path: Path) -> None:
    host = server.url.removeprefix("http://").rstrip("/")
    environ = {**os.environ, **server.environ(), TOKEN_VARIABLE: "colab", "GCE_METADATA_ROOT": host}
    command = [sys.executable, "-c", COLAB, str(tmp_path)]
    with subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        server.drive.tokens.clear()  # the hour is over
        process.stdin.write(b"on\n")

    assert process.returncode == 0
    assert server.drive.counts["token"] == 2

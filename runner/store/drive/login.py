"""Sign a person in to Google Drive: one visit to a browser, on this machine or on any other."""

from __future__ import annotations

import http.server
import secrets
import urllib.parse
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from runner.errors import RunnerError, SignInNeeded
from runner.store.drive.auth import SCOPE, TIMEOUT_SECONDS, Token

PASTE_REDIRECT = "http://localhost:1/"  # nothing listens there: the browser's address line then holds the code
WAIT_SECONDS = 300.0


def sign_in(
    client: Mapping[str, Any], *, show: Callable[[str], None], receive: Callable[[], str] | None = None
) -> Token:
    """Let a person grant the scope drive.file to the OAuth client whose downloaded JSON (type "Desktop app") this is.

    `show` gets the address to open. Without `receive` a loopback server of this machine catches the answer; with it the
    browser may be anywhere, and `receive` returns the address on which it ended (paste flow).
    Raises SignInNeeded when the grant was refused or nobody came.
    """
    import httplib2
    from oauth2client.client import FlowExchangeError

    config = _config(client)
    state = secrets.token_urlsafe(16)
    with _Listener(("127.0.0.1", 0), _Answer) as listener:
        redirect = PASTE_REDIRECT if receive else f"http://127.0.0.1:{listener.server_port}/"
        flow = _flow(config, redirect)
        show(flow.step1_get_authorize_url(state=state))
        answer = receive() if receive else listener.wait()
    try:
        with closing(httplib2.Http(timeout=TIMEOUT_SECONDS)) as connection:
            credentials = flow.step2_exchange(_code(answer, state), http=connection)
    except FlowExchangeError as error:
        raise SignInNeeded(f"Google did not accept the sign-in ({error}); run `wake2vec-runner login` again") from error
    return Token(
        client_id=config["client_id"],
        client_secret=config["client_secret"],
        token_uri=config["token_uri"],
        refresh_token=credentials.refresh_token or "",
    )


def _config(client: Mapping[str, Any]) -> dict[str, str]:
    table = client.get("installed", client)
    try:
        return {key: str(table[key]) for key in ("client_id", "client_secret", "token_uri")}
    except (KeyError, TypeError) as error:
        raise RunnerError(
            f"the client file has no {error}; create an OAuth client of type `Desktop app` in the Google Cloud console "
            "and download its JSON"
        ) from error


def _flow(config: Mapping[str, str], redirect: str) -> Any:
    from oauth2client.client import OAuth2WebServerFlow

    return OAuth2WebServerFlow(
        scope=SCOPE,
        redirect_uri=redirect,
        auth_uri="https://accounts.google.com/o/oauth2/v2/auth",
        pkce=True,
        access_type="offline",
        prompt="consent",  # without it a second sign-in brings no refresh token
        **config,
    )


def _code(answer: str, state: str) -> str:
    """The code in the address that the browser ended on; a foreign state is an answer to somebody else's sign-in."""
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(answer.strip()).query)
    if "error" in query:
        raise SignInNeeded(f"Google refused: {query['error'][0]}; run `wake2vec-runner login` again")
    if query.get("state") != [state] or "code" not in query:
        raise SignInNeeded("that address is not the answer to this sign-in; run `wake2vec-runner login` again")
    return query["code"][0]


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if "state=" in self.path:  # not the icon that a browser asks for
            self.server.answer = self.path  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.end_headers()
        self.wfile.write(b"You are signed in; go back to wake2vec-runner.")

    def log_message(self, format: str, *args: object) -> None:
        pass  # the request line holds the code


class _Listener(http.server.HTTPServer):
    answer = ""
    timeout = WAIT_SECONDS

    def wait(self) -> str:
        while not self.answer:
            self.handle_request()
        return self.answer

    def handle_timeout(self) -> None:
        raise SignInNeeded(f"nobody signed in within {WAIT_SECONDS:.0f} s; run `wake2vec-runner login` again")

"""Single calls to Drive v2 over PyDrive2's connection: every one has a timeout, and every failure one of our names."""

from __future__ import annotations

import datetime
import email.utils
import http.client
import importlib.resources
import json
import re
import threading
import time
import weakref
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

from runner.errors import SignInNeeded, StoreBusy
from runner.store.drive.auth import TIMEOUT_SECONDS, Token, authorise
from runner.store.drive.errors import SIGN_IN, verdict

FIELDS = "id,title,mimeType,fileSize,md5Checksum,sha256Checksum,createdDate,etag,properties,labels(trashed)"
FOLDER_TYPE = "application/vnd.google-apps.folder"
ROOT_URL = "https://www.googleapis.com/"

Answer = tuple[int, Mapping[str, str], bytes]


@dataclass(frozen=True, kw_only=True)
class _Resources:
    """The collections of the service, each made once: the library takes 5 ms to make one."""

    files: Any
    about: Any


class DriveApi:
    """The service and http objects of PyDrive2; usable from any thread, nothing is asked before the first call."""

    def __init__(
        self,
        token: Callable[[Container[str]], Token | None],  # given the refresh tokens that Google has refused
        *,
        root_url: str = ROOT_URL,
        timeout_seconds: float = TIMEOUT_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._token = token
        self.root_url = root_url if root_url.endswith("/") else f"{root_url}/"
        self._timeout_seconds = timeout_seconds
        self._now = now
        self._lock = threading.Lock()
        self._auth: Any = None
        self._refused: set[str] = set()
        self._drive: Any = None

    def call(self, place: str, request: Callable[[Any], Any], *, headers: Mapping[str, str] | None = None) -> Any:
        """Execute what `request` makes of the service, such as `lambda drive: drive.about.get()`; a table."""
        answer = _table(self._execute(place, request, headers or {}), place)
        if not isinstance(answer, dict):  # the library hands a front end's page on as text when its status is 200
            raise StoreBusy(f"Google Drive: {place}: the answer is not Google's")
        return answer

    def delete(self, id: str) -> None:
        if self._execute(f"delete {id}", lambda drive: drive.files.delete(fileId=id), {}):
            raise StoreBusy(f"Google Drive: delete {id}: the answer is not Google's")

    def media(self, id: str, headers: Mapping[str, str]) -> Answer:
        """Ask for an object's bytes, or for the range that the headers name. Raises NotStored."""
        if not re.fullmatch(r"[\w-]+", id):  # it becomes part of an address, and came from a log
            raise ValueError(f"{id!r}: not an id of Drive")
        place = f"read {id} {headers.get('range', '')}".rstrip()
        # identity: a compressed range is a range of something else
        answer = self.send(
            place,
            "GET",
            f"{self.root_url}drive/v2/files/{id}?alt=media",
            headers={**headers, "accept-encoding": "identity"},
        )
        if answer[0] not in (200, 206) or answer[1].get("content-type", "").startswith("text/html"):
            raise self.fail(place, answer)
        return answer

    def written_at(self, id: str) -> tuple[float | None, float | None]:
        """When an object was last written, and what time it is, both by Google's clock; None where it does not say."""
        url = f"{self.root_url}drive/v2/files/{id}?fields=modifiedDate"
        status, headers, body = self.send(f"look at {id}", "GET", url, headers={})
        if status != 200:
            return None, None
        try:
            written = datetime.datetime.fromisoformat(json.loads(body)["modifiedDate"].replace("Z", "+00:00"))
            return written.timestamp(), email.utils.parsedate_to_datetime(headers["date"]).timestamp()
        except (ValueError, KeyError, TypeError, AttributeError):
            return None, None

    def _execute(self, place: str, request: Callable[[Any], Any], headers: Mapping[str, str]) -> Any:
        from googleapiclient.errors import HttpError

        connection = self._http()
        prepared = request(self._drive)
        prepared.headers.update(headers)
        prepared.http = connection
        with _Translated(place, self._sign_in_anew):
            try:
                return prepared.execute()
            except HttpError as error:
                raise self.fail(place, (int(error.resp.status), error.resp, error.content)) from error

    def send(self, place: str, method: str, url: str, *, body: bytes = b"", headers: Mapping[str, str]) -> Answer:
        """One bare request; the caller judges the status. Bodies are bytes: a stream cannot be sent a second time."""
        connection = self._http()
        with _Translated(place, self._sign_in_anew):
            answer, content = connection.request(url, method=method, body=body, headers=dict(headers))
            return int(answer.status), answer, content

    def fail(self, place: str, answer: Answer) -> Exception:
        error = verdict(place, *answer, now=self._now())
        if isinstance(error, SignInNeeded):
            self._sign_in_anew()
        return error

    def _sign_in_anew(self) -> None:
        """The token was refused: read it again for the next call, since a person may have brought another."""
        with self._lock:
            if self._auth is not None and getattr(self._auth.credentials, "refresh_token", None):
                self._refused.add(self._auth.credentials.refresh_token)
            self._auth = None

    def _signed_in(self) -> Any:
        """PyDrive2's GoogleAuth with its service set, made at the first call."""
        with self._lock:
            if self._auth is None:
                auth = authorise(self._token(self._refused), self._timeout_seconds)
                auth.service = _build(self.root_url, auth.Get_Http_Object())
                self._drive = _Resources(files=auth.service.files(), about=auth.service.about())
                self._auth = auth
            return self._auth

    def _http(self) -> Any:
        """A connection of this thread's own: httplib2 has none that can be shared."""
        auth = self._signed_in()
        if getattr(auth.thread_local, "http", None) is None:
            connection = auth.Get_Http_Object()
            weakref.finalize(connection, _hang_up, connection.connections)  # when its thread ends, or the program
            auth.thread_local.http = connection
        return auth.thread_local.http


class _Table(dict[str, Any]):
    """A JSON object of an answer: what it lacks makes it an answer that is not Google's."""

    place = ""

    def __missing__(self, key: str) -> Any:
        raise StoreBusy(f"Google Drive: {self.place}: the answer is not Google's (it has no {key})")


def _table(value: Any, place: str) -> Any:
    if isinstance(value, list):
        return [_table(item, place) for item in value]
    if not isinstance(value, dict):
        return value
    table = _Table({key: _table(item, place) for key, item in value.items()})
    table.place = place
    return table


def _build(root_url: str, connection: Any) -> Any:
    """The packaged description of Drive v2 with another root: only this moves plain calls and uploads together."""
    from googleapiclient.discovery import build_from_document

    packaged = importlib.resources.files("googleapiclient.discovery_cache.documents") / "drive.v2.json"
    document = json.loads(packaged.read_text())
    document["rootUrl"] = root_url
    document["baseUrl"] = root_url + document["servicePath"]
    return build_from_document(document, http=connection)


def _hang_up(connections: dict[str, Any]) -> None:
    for connection in connections.values():
        connection.close()


class _Translated:
    """Whatever the libraries raise below a call becomes StoreBusy or SignInNeeded."""

    def __init__(self, place: str, refused: Callable[[], None]) -> None:
        self._place, self._refused = place, refused

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        import httplib2
        from oauth2client.client import AccessTokenRefreshError

        if isinstance(error, AccessTokenRefreshError):
            status = getattr(error, "status", None)
            if status is None or int(status) == 429 or int(status) >= 500:
                raise StoreBusy(f"Google's token server: {error}") from error
            self._refused()
            raise SignInNeeded(f"Google no longer accepts the token ({error}); {SIGN_IN}") from error
        if isinstance(error, OSError | http.client.HTTPException | httplib2.HttpLib2Error):
            raise StoreBusy(f"Google Drive: {self._place}: {type(error).__name__} {error}".rstrip()) from error
        if isinstance(error, ValueError | KeyError | TypeError):  # a page of HTML, or other JSON, than was promised
            raise StoreBusy(f"Google Drive: {self._place}: the answer is not Google's ({error})") from error

"""Large files to and from Drive: whole chunks, resumed at the exact byte after anything, proved by the server's md5."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from runner.errors import Damaged, NotStored, StoreBusy
from runner.store.base import Progress
from runner.store.download import ahead
from runner.store.drive.api import FIELDS, DriveApi
from runner.store.drive.errors import IdTaken
from wake2vec.contract.files import FileDigest, read_json, write_json

UNIT_BYTES = 256 << 10  # every chunk but the last is a multiple: Drive's rule
CHUNK_BYTES = 32 * UNIT_BYTES
PIECE_BYTES = 16 * UNIT_BYTES  # of a download
PIECES_AT_ONCE = 4  # on a connection each, since most of a call to a far Drive is waiting; all are in memory
FILES_AT_ONCE = 2  # of an upload: the bytes of one file go out in order, so only files can go side by side


@dataclass(frozen=True, kw_only=True)
class Throttle:
    """A cap on bandwidth: after each chunk, wait as long as it should have taken."""

    bytes_per_second: float | None = None
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    @property
    def chunk_bytes(self) -> int:
        """About two seconds of the cap, so that the line is never taken for long."""
        if self.bytes_per_second is None:
            return CHUNK_BYTES
        return max(1, min(CHUNK_BYTES, int(2 * self.bytes_per_second)) // UNIT_BYTES) * UNIT_BYTES

    def at_once(self, most: int) -> int:
        """How many connections: with a cap one, which then holds for all that moves."""
        return most if self.bytes_per_second is None else 1

    def wait(self, size: int, since: float) -> None:
        if self.bytes_per_second is not None:
            self.sleep(max(0.0, since + size / self.bytes_per_second - self.monotonic()))


class Upload:
    """One file on its way to one id. The session's address is in the journal before the first byte is sent."""

    def __init__(
        self,
        api: DriveApi,
        journal: Path,
        path: Path,
        *,
        body: Mapping[str, Any],
        digest: FileDigest,
        throttle: Throttle,
        progress: Progress | None,
    ) -> None:
        self._api = api
        self._journal = journal / f"{body['id']}.json"
        self._path = path
        self._body = body
        self._digest = digest
        self._throttle = throttle
        self._progress = progress

    def run(self) -> None:
        """Returns when Drive holds every byte, proved. After StoreBusy the same call goes on where this one stopped.

        Raises Damaged when Drive received other bytes, which are deleted, or held others under the id, which stay.
        """
        id = self._body["id"]
        try:
            found, is_new = self._transfer(), True
        except IdTaken:  # an earlier try got through although its answer was lost
            found = self._api.call(f"look at {id}", lambda drive: drive.files.get(fileId=id, fields=FIELDS))
            is_new = False
        is_right = (int(found["fileSize"]), found["md5Checksum"]) == (self._digest.size, self._digest.md5)
        if is_new and not is_right:
            self._api.delete(id)
        self._journal.unlink(missing_ok=True)
        if not is_right:
            raise Damaged(f"{self._path}: Drive has other bytes under {id} than its manifest says")

    def _transfer(self) -> dict[str, Any]:
        """Send what Drive does not have yet; its description of the file."""
        session = self._journalled()
        state: int | dict[str, Any] = 0
        if session is None:
            session = self._begin()
        else:
            state = self._send(session, b"", f"bytes */{self._digest.size}")
        with open(self._path, "rb") as file:
            while isinstance(state, int):
                state = self._send_chunk(session, file, state)
        return state

    def _begin(self) -> str:
        url = f"{self._api.root_url}upload/drive/v2/files?uploadType=resumable&fields={FIELDS}"
        headers = {
            "content-type": "application/json; charset=UTF-8",
            "x-upload-content-type": "application/octet-stream",
            "x-upload-content-length": str(self._digest.size),
        }
        place = f"begin {self._body['title']}"
        answer = self._api.send(place, "POST", url, body=json.dumps(dict(self._body)).encode(), headers=headers)
        if answer[0] == 400:
            raise NotStored(
                f"Google Drive: {place}: the id {self._body['id']} cannot be used; the next try takes another"
            )
        if answer[0] != 200 or not str(answer[1].get("location", "")).startswith("http"):
            raise self._api.fail(place, answer)
        session = str(answer[1]["location"])
        self._journal.parent.mkdir(parents=True, mode=0o700, exist_ok=True)  # a session's address is a key to write
        write_json(self._journal, {"session": session, "sha256": self._digest.sha256})
        return session

    def _journalled(self) -> str | None:
        found = read_json(self._journal)
        return str(found["session"]) if found and found["sha256"] == self._digest.sha256 else None

    def _send_chunk(self, session: str, file: BinaryIO, start: int) -> int | dict[str, Any]:
        began = self._throttle.monotonic()
        size = self._digest.size
        file.seek(start)
        chunk = file.read(min(self._throttle.chunk_bytes, size - start))
        end = start + len(chunk)
        if end < min(start + 1, size):
            raise Damaged(f"{self._path}: ends at byte {end} of {size}; it changed since its manifest was written")
        state = self._send(session, chunk, f"bytes {start}-{end - 1}/{size}" if chunk else f"bytes */{size}")
        if isinstance(state, int) and state <= start:
            raise StoreBusy(f"Google Drive: send {self._path.name}: Drive took none of the bytes from {start} on")
        self._throttle.wait(len(chunk), began)
        if self._progress:
            self._progress(state if isinstance(state, int) else size)
        return state

    def _send(self, session: str, chunk: bytes, content_range: str) -> int | dict[str, Any]:
        """How many bytes Drive has now, or its description of the file when that was the last of them."""
        place = f"send {self._path.name} {content_range}"
        answer = self._api.send(place, "PUT", session, body=chunk, headers={"content-range": content_range})
        status, headers, body = answer
        if status == 308:
            return _received(place, headers)
        if status in (200, 201):
            return described(place, body)
        if status in (404, 410):
            self._journal.unlink(missing_ok=True)
            raise StoreBusy(f"Google Drive: {place}: the upload session has expired; a new one begins")
        if status in (400, 416):
            raise StoreBusy(f"Google Drive: {place}: {status}; asking again where to go on")
        raise self._api.fail(place, answer)


def _received(place: str, headers: Mapping[str, str]) -> int:
    """Bytes that Drive says it has; whatever stands in the way of Google answers 308 too."""
    said = headers.get("range")
    if said is None:
        return 0
    if (found := re.fullmatch(r"(?:bytes=)?0-(\d{1,18})", said.strip())) is None:
        raise StoreBusy(f"Google Drive: {place}: the answer is not Google's (range {said[:80]!r})")
    return int(found[1]) + 1


def described(place: str, body: bytes) -> dict[str, Any]:
    try:
        found = dict(json.loads(body))
        return {**found, "fileSize": int(found["fileSize"]), "md5Checksum": str(found["md5Checksum"])}
    except (ValueError, KeyError, TypeError) as error:
        raise StoreBusy(f"Google Drive: {place}: the answer is not Google's ({error})") from error


def ranged(api: DriveApi, id: str, size: int, throttle: Throttle) -> Callable[[int], Iterator[bytes]]:
    """For `download`: the bytes of an object from any offset on, one piece a request, several requests at once."""
    step = min(PIECE_BYTES, throttle.chunk_bytes)

    def piece(start: int) -> bytes:
        began, end = throttle.monotonic(), min(size, start + step)
        body = api.media(id, {"range": f"bytes={start}-{end - 1}"})[2]
        if len(body) != end - start:
            raise Damaged(f"Google Drive: {id}: {len(body)} bytes where {start} to {end} were asked for")
        throttle.wait(len(body), began)
        return body

    return lambda start: ahead(piece, range(start, size, step), at_once=throttle.at_once(PIECES_AT_ONCE))

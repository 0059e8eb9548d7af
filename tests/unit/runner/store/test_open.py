"""An address that can be no store is refused with what was meant, and no password of one is ever seen."""

from __future__ import annotations

import builtins
import traceback
from pathlib import Path
from typing import Any

import pytest

from runner.daemon.logs import describe
from runner.discretion import hide
from runner.errors import RunnerError, SignInNeeded, StoreBusy
from runner.settings import read_settings
from runner.store.open import open_store
from runner.store.places.fsspec import FsStore


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("gdrive:foo", "did you mean drive:foo?"),
        ("Drive:/foo", "did you mean drive:foo?"),
        ("google:foo", "did you mean drive:foo?"),
        ("drvie:foo", "did you mean drive:foo?"),
        ("DIR:/x", "did you mean dir:/x?"),
        ("/x/y", "did you mean dir:/x/y?"),
        ("~/store", "did you mean dir:~/store?"),
        ("C:\\store", "did you mean dir:C:"),
        ("s3://bucket/x", "did you mean fs:s3://bucket/x?"),
        ("file:///x", "did you mean fs:file:///x?"),
        ("fs:", "use dir:PATH, drive:FOLDER, hub:USER/REPO or fs:URL"),
        ("frob", "use dir:PATH, drive:FOLDER, hub:USER/REPO or fs:URL"),
        ("", "use dir:PATH, drive:FOLDER, hub:USER/REPO or fs:URL"),
        ("drive:../up", "cannot be the name of a folder"),
        ("dir:/x\0y", "NUL"),
        ("fs:s4://bucket", "did you mean fs:s3"),
        ("fs:memory://x", "nothing can be kept there"),
        ("fs:https://example.org/x", "nothing can be kept there"),
    ],
)
def test_what_is_no_store_is_refused_with_what_was_meant(tmp_path: Path, url: str, said: str) -> None:
    with pytest.raises(RunnerError) as told:
        open_store(url, tmp_path)

    assert said in str(told.value)


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs"), ("sftp", "paramiko")])
def test_a_missing_package_is_told_as_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, package: str
) -> None:
    found = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(f"No module named {name!r}", name=name)
        return found(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RunnerError, match=f"pip install {package}"):
        open_store(f"fs:{protocol}://user:hush-hush@host/x", tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "sftp://user:hush-hush@host/x",
        "s3://KEY:hush/hush@bucket/x",
        "ftp://user:hush@hush@host/x",
        "simplecache::s3://key:hush-hush@bucket",
        "abfs://box@account.example/x?sig=hush-hush",
        "sftp://user:hush%2Fhush@host",
    ],
)
def test_no_password_of_an_address_is_seen(tmp_path: Path, url: str) -> None:
    settings = read_settings(tmp_path, f"fs:{url}", {})
    error = StoreBusy(f"cannot reach {url} as user with hush/hush")

    assert "hush" not in settings.store_shown
    assert "hush" not in hide(f"x {url} and {url}")
    assert "hush" not in str(describe(error, ["--store", f"fs:{url}", "start"])).replace("hush/hush", "")
    for wrong in (url, f"frob:{url}", f"fs:frob{url}"):
        with pytest.raises(RunnerError) as told:
            open_store(wrong, tmp_path)
        assert "hush" not in "".join(traceback.format_exception(told.value))


def test_what_is_no_password_stays_as_it_is() -> None:
    for text in ("dir:/x/y", "drive:wake2vec", "fs:s3://bucket/x", "fs:sftp://user@host:22/x", "at 12:30, a@b"):
        assert hide(text) == text


class Talkative:
    """A file system whose errors quote the address that it was opened with."""

    protocol = "sftp"

    def __init__(self, error: Exception) -> None:
        self._error = error

    def unstrip_protocol(self, root: str) -> str:
        return f"sftp://{root}"

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any, **__: Any) -> Any:
            raise self._error

        return fail


class LineIsDown(Exception):
    """What a package of its own may raise."""

    __module__ = "paramiko.ssh_exception"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError("user:hush-hush@host: refused"), StoreBusy),
        (PermissionError("hush-hush is wrong"), SignInNeeded),
        (LineIsDown("sftp://user:hush-hush@host"), StoreBusy),
    ],
)
def test_errors_of_a_file_system_are_told_without_its_password(error: Exception, kind: type[Exception]) -> None:
    url = "sftp://user:hush-hush@host/x"
    store = FsStore(Talkative(error), "user:hush-hush@host/x", conditional=False, url=url)

    assert "hush" not in store.properties.place
    with pytest.raises(kind) as told:
        store.read("jobs/a")
    assert "hush" not in str(told.value)

"""A real PostgreSQL server with data, port and password of its own, which is gone with its folder.

It takes the programs of the system's package (`apt-get install postgresql`), and as root runs them as another user,
since the server refuses root.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PASSWORD = "swim-in-the-liffey"
ENABLED = "WAKE2VEC_TEST_POSTGRES"


def program(name: str) -> str:
    places = [Path(found) for found in [shutil.which(name)] if found]
    places += sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    assert places, f"{name} is not here: apt-get install postgresql"
    return str(places[0].resolve())


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass(kw_only=True)
class PostgresServer:
    folder: Path
    settings: tuple[str, ...] = ("fsync=off",)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def _user(self) -> dict[str, Any]:
        if os.getuid() != 0:
            return {}
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def make(self) -> None:
        word = self.folder / "password"
        word.write_text(PASSWORD)
        if who := self._user:
            for path in (self.folder, word):
                os.chown(path, who["user"], who["group"])
        command = [program("initdb"), "-D", "data", "-U", "wake", f"--pwfile={word}", "-A", "scram-sha-256", "-N"]
        command += ["-E", "UTF8", "--locale=C.UTF-8"]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True, **self._user)

    def start(self) -> None:
        words = [f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}"]
        with (self.folder / "log").open("ab") as log:
            chosen = [part for one in (*words, *self.settings) for part in ("-c", one)]
            self.process = subprocess.Popen(
                [program("postgres"), "-D", "data", *chosen],
                cwd=self.folder, stdout=log, stderr=log, **self._user,
            )  # fmt: skip
        give_up = time.monotonic() + 60
        while True:
            with contextlib.suppress(Exception):
                self.sql("SELECT 1")
                return
            assert time.monotonic() < give_up, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def stop(self) -> None:
        """At once, and with every connection."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
            self.process = None

    def sql(self, statement: str, database: str = "postgres") -> None:
        import psycopg

        url = self.url(database).replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement.encode())

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://wake:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The address of an empty one."""
        name = f"queue{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)


@contextlib.contextmanager
def running(*settings: str) -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix="wake2vec-postgres-"))
    server = PostgresServer(folder=folder, settings=settings or ("fsync=off",))
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)

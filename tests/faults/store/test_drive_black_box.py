"""The product against Google's own addresses, over TLS through a proxy, with no hook at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drive_server.authority import authority
from tests.drive_server.server import DriveServer

CLIENT = """
import sys
from pathlib import Path
from runner.store.open import open_store
from runner.store.records import Genesis
from runner.store.root import add_job, open_root
from runner.store.lease import Watch, acquire
from wake2vec.contract.files import digest_file

home = Path(sys.argv[1])
store = open_store("drive:wake2vec", home)
log = add_job(open_root(store, holder="a"), "q", Genesis(fingerprint="f"))
acquire(log, Watch(), at=0.0).beat()
source = home / "in"
source.write_bytes(bytes(range(256)) * 40_000)
name = "jobs/q/checkpoints/checkpoint-1.*/state.json"
[id] = store.new_ids([name])
store.put(source, id=id, name=name, digest=digest_file(source))
store.get(id, home / "out", digest=digest_file(source))
print(store.properties.place, len(log.records))
"""


def test_it_works_over_tls_through_a_proxy(tmp_path: Path) -> None:
    pytest.importorskip("socks", reason="without PySocks httplib2 ignores proxies")
    home = tmp_path / "home"
    home.mkdir()
    trusted, context = authority(tmp_path)
    token = {"client_id": "c", "client_secret": "s", "refresh_token": "r"}
    with DriveServer(tmp_path / "google") as server:
        server.tls = context
        environ = {
            **os.environ,
            "https_proxy": server.url,
            "HTTPLIB2_CA_CERTS": str(trusted),
            "WAKE2VEC_DRIVE_TOKEN": json.dumps(token),
        }
        for hidden in ("HTTPS_PROXY", "no_proxy", "NO_PROXY", "WAKE2VEC_DRIVE_ROOT"):
            environ.pop(hidden, None)
        command = [sys.executable, "-c", CLIENT, str(home)]
        said = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)

    assert said.stderr == ""
    assert said.stdout.split() == ["Google", "Drive,", "folder", "wake2vec", "2"]
    assert (home / "out").read_bytes() == (home / "in").read_bytes()
    assert server.drive.counts["inserted"] >= 8

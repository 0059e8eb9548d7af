"""serve: queue and reports for a browser on this machine, which can read them and nothing else."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.publish.pictures import reconstruct
from tests.e2e.test_report_in_a_browser import CHROMIUM
from tests.machine import JOBS, Machine
from wake2vec.contract.options import ReportOptions
from wake2vec.show.write import write_artefacts
from wake2vec.use.__main__ import use


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    root = tmp_path_factory.mktemp("serve")
    machine = Machine(home=root / "home", store=root / "store")
    machine.run("enqueue", str(JOBS / "tiny_p1.toml"), str(JOBS / "tiny_p2.toml"))
    run, job, facts = reconstruct(root / "long")
    write_artefacts(run, job=job, facts=facts)
    page = machine.run_dir("tiny_p1").root / "report.html"
    page.parent.mkdir(parents=True)
    assert use(ReportOptions(out=page, runs=[run.root])) == 0
    return machine


@pytest.fixture(scope="module")
def address(machine: Machine) -> Iterator[str]:
    command = machine.command("serve", "--port", "0")
    with subprocess.Popen(command, env=machine.surroundings, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().split()[0]
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0


def ask(address: str, path: str = "/", method: str = "GET", host: str | None = None) -> tuple[int, str]:
    place = urlsplit(address).netloc
    connection = http.client.HTTPConnection(place, timeout=30)
    connection.putrequest(method, path, skip_host=True)  # as it stands, whatever leads out of it
    connection.putheader("Host", host or place)
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_the_queue_is_shown_with_a_way_to_each_report(address: str) -> None:
    status, page = ask(address)

    assert status == 200
    assert '<a href="/report/tiny_p1">tiny_p1</a>' in page
    assert "queued" in page
    assert "<td>tiny_p2</td>" in page  # nothing to look at yet
    assert ask(address, "/report/tiny_p1")[0] == 200


@pytest.mark.parametrize(
    "path",
    ["/report/tiny_p2", "/report/", "/report/../runner.db", "/report/%2e%2e/runner.db", "/../../etc/passwd",
     "/report//etc/passwd", "/report/tiny_p1/spec.json", "/runner.db"],
)  # fmt: skip
def test_no_other_path_leads_anywhere(address: str, path: str) -> None:
    assert ask(address, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_it_can_only_be_read(address: str, method: str) -> None:
    assert ask(address, method=method)[0] == 501


def test_a_site_whose_name_leads_here_is_refused(address: str) -> None:
    assert ask(address, host="evil.example")[0] == 403


def test_other_machines_cannot_reach_it(address: str) -> None:
    port = urlsplit(address).port
    others = {str(one[4][0]) for one in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for other in others - {"127.0.0.1"}:
        with pytest.raises(OSError):
            socket.create_connection((other, port), timeout=5).close()


def test_a_platform_that_forbids_pages_and_a_port_that_is_taken_are_told(machine: Machine, address: str) -> None:
    for mark, name in (("COLAB_RELEASE_TAG", "Colab"), ("KAGGLE_KERNEL_RUN_TYPE", "Kaggle")):
        machine.environment = {mark: "1"}
        assert f"{name} does not allow web pages" in machine.run("serve", expect=1)
    machine.environment = {}
    assert "choose another with --port" in machine.run("serve", "--port", str(urlsplit(address).port), expect=1)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: install it to see the page in a browser")
@pytest.mark.parametrize(("path", "heading"), [("/", "Queue"), ("/report/tiny_p1", "Curves")])
def test_a_browser_shows_the_pages(address: str, tmp_path: Path, path: str, heading: str) -> None:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-proxy-server"]
    shown = subprocess.run(
        [*command, f"--user-data-dir={tmp_path}", "--window-size=390,800", "--dump-dom", address.rstrip("/") + path],
        check=True, capture_output=True, text=True, timeout=180,
    )  # fmt: skip

    assert f">{heading}</h" in shown.stdout

"""The report in a real browser: light and dark, phone and desktop, nothing run and nothing fetched."""

from __future__ import annotations

import html
import json
import math
import os
import queue
import re
import shutil
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.publish.pictures import reconstruct
from wake2vec.contract.options import ReportOptions
from wake2vec.contract.rundir import RunDir
from wake2vec.show.geometry.film import add_frame, read_film, write_film
from wake2vec.show.geometry.matrix import InMemory
from wake2vec.show.samples import SampleRow, write_sample_rows
from wake2vec.show.write import write_artefacts
from wake2vec.use.__main__ import use

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: install it to see the report in a browser")

ATTACK = "<script>top.attacked=1</script><img src=x onerror='top.attacked=1'>" + "long" * 80
# The page under test lies in frames of two widths; this page, not the report, runs the script that measures them.
MEASURE = """<!DOCTYPE html><body>%s<script>
onload = () => {
  const facts = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement, seen = e => e.getBoundingClientRect();
    const pictures = [...page.querySelectorAll("svg")].filter(e => seen(e).width > 0);
    return {
      width: root.clientWidth, content: root.scrollWidth, attacked: window.attacked === 1,
      background: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
      ink: frame.contentWindow.getComputedStyle(page.body).color,
      pictures: pictures.length, label: pictures.length ? Math.min(...pictures.map(e => {
        const text = e.querySelector("text"); return seen(text).height; })) : 0,
      fetched: frame.contentWindow.performance.getEntriesByType("resource").map(e => e.name),
      headings: [...page.querySelectorAll("h3")].map(e => e.textContent),
      cells: Math.min(...[...page.querySelectorAll(".cards div")].map(e => seen(e).width)),
    };
  });
  document.body.innerHTML = "<pre id=facts></pre>";
  document.getElementById("facts").textContent = JSON.stringify(facts);
};
</script>"""

WATCH = """<!DOCTYPE html><body><iframe src="/film" style="width:600px;height:500px"></iframe><script>
onload = () => {
  const page = document.querySelector("iframe").contentDocument, step = page.querySelector("output");
  const tell = () => step.textContent !== "step 0" && fetch("/", {
    method: "POST", body: JSON.stringify([page.querySelector("h1").textContent, step.textContent])});
  new MutationObserver(tell).observe(step, {childList: true, characterData: true, subtree: true});
  tell();
};
</script>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two jobs: 3,000 steps over 41 sessions, and a small one whose every name is an attack."""
    root = tmp_path_factory.mktemp("report")
    run, job, facts = reconstruct(root / "long")
    write_artefacts(run, job=job, facts=facts)
    hostile = RunDir(root=root / "hostile")
    hostile.metrics.parent.mkdir(parents=True)
    rows: list[dict[str, Any]] = [{"kind": "event", "step": 1, "event": "oom", "text": ATTACK}]
    rows += [
        {"kind": "evaluation", "step": step, "loss": 5 / step, "tokens": 9, "bits_per_byte": 2 / step, "new_loss": 1.0}
        for step in (1, 2, 3)
    ]
    hostile.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    write_sample_rows(
        hostile,
        [SampleRow(step=3, number=0, prompt=ATTACK, seed=1, text=ATTACK, tokens=9, new_tokens=2, overlap=ATTACK)],
    )
    (root / "facts.json").write_text(json.dumps({"hostile": {"state": ATTACK, "events": [{"text": ATTACK}]}}), "utf-8")
    assert use(ReportOptions(out=root / "report.html", runs=[run.root, hostile.root], facts=root / "facts.json")) == 0
    return root / "report.html"


@pytest.fixture(scope="module", params=["light", "dark"])
def measured(request: pytest.FixtureRequest, report: Path) -> tuple[str, list[dict[str, Any]]]:
    inner = html.escape(report.read_text("utf-8"), quote=True)
    frames = "".join(
        f'<iframe srcdoc="{inner}" style="border:0;width:{width}px;height:800px"></iframe>' for width in (390, 1280)
    )
    outer = report.with_name(f"measure-{request.param}.html")
    outer.write_text(f'<meta charset="utf-8">{MEASURE % frames}', "utf-8")
    assert CHROMIUM is not None
    scheme = {"dark": 0, "light": 1}[request.param]
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--blink-settings=preferredColorScheme={scheme}",
    ]
    profile = f"--user-data-dir={report.with_name(f'profile-{request.param}')}"
    shown = subprocess.run(
        [*command, profile, "--window-size=1400,900", "--dump-dom", outer.as_uri()],
        check=True, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    found = re.search(r'<pre id="facts">(.*?)</pre>', shown.stdout, re.S)
    assert found, shown.stdout[-2000:]
    return request.param, json.loads(html.unescape(found[1]))


def test_nothing_runs_and_nothing_is_fetched(measured: tuple[str, list[dict[str, Any]]]) -> None:
    for frame in measured[1]:
        assert not frame["attacked"]
        assert [name for name in frame["fetched"] if not name.startswith("data:")] == []


def test_no_page_is_wider_than_its_screen(measured: tuple[str, list[dict[str, Any]]]) -> None:
    assert [frame["width"] for frame in measured[1]] == pytest.approx([390, 1280], abs=20)  # less a scroll bar
    for frame in measured[1]:
        assert frame["content"] <= frame["width"]
        assert frame["cells"] > 120


def test_the_colours_follow_the_scheme_and_can_be_read(measured: tuple[str, list[dict[str, Any]]]) -> None:
    scheme, frames = measured
    for frame in frames:
        paper, ink = luminance(frame["background"]), luminance(frame["ink"])
        assert (paper < 0.2) == (scheme == "dark")
        brighter, darker = max(paper, ink), min(paper, ink)
        assert (brighter + 0.05) / (darker + 0.05) > 7  # WCAG 2.1, level AAA


def test_every_chart_shows_once_with_labels_that_can_be_read(measured: tuple[str, list[dict[str, Any]]]) -> None:
    phone, desktop = measured[1]

    assert phone["pictures"] == desktop["pictures"] > 4
    assert phone["label"] > 9
    assert desktop["label"] > 9


def test_the_sections_are_there(measured: tuple[str, list[dict[str, Any]]]) -> None:
    for frame in measured[1]:
        assert {"Curves", "Evaluations", "Samples", "Sessions: memory and time", "Environment", "Events"} <= set(
            frame["headings"]
        )


def test_the_drift_film_runs(tmp_path: Path) -> None:
    run, chance = RunDir(root=tmp_path), np.random.default_rng(1)
    words = [f"word{n}" for n in range(9)] + ["</script><b>"]
    base, rows = chance.standard_normal((50, 8)), chance.standard_normal((10, 8))
    for step in (0, 100, 200):
        add_frame(run, step, InMemory(rows + step / 100), InMemory(base), words)
    film = write_film(run, "a <b>title</b>", read_film(run))
    assert film is not None

    heading, step_shown = watch_until_the_step_moves(film, tmp_path / "profile")

    assert heading == "a <b>title</b>"
    found = re.fullmatch(r"step (\d+)", step_shown)
    assert found, step_shown
    assert 0 < int(found[1]) <= 200


def watch_until_the_step_moves(film: Path, profile: Path) -> tuple[str, str]:
    """Play the film in a frame of a page that tells when its step changed, however few frames a second there are."""
    seen: queue.Queue[list[str]] = queue.Queue()

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = film.read_bytes() if self.path == "/film" else WATCH.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            seen.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    assert CHROMIUM is not None
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-proxy-server"]
        browser = subprocess.Popen(
            [*command, "--remote-debugging-port=0", f"--user-data-dir={profile}", address],  # the port: stay open
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            heading, step = seen.get(timeout=300)
            return heading, step
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
            server.shutdown()


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`, WCAG 2.1."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.03928 else math.pow((part + 0.055) / 1.055, 2.4) for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

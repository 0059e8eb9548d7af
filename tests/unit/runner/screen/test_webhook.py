from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from runner.screen.build import build_snapshot
from runner.screen.webhook import Webhook, notices
from runner.states import State
from tests.unit.runner.moments import NOW, evaluation, job, nothing, running_moment, running_surroundings


def _picture(state=State.RUNNING, evaluations=((100, 7.0),), around=None, **extra):
    moment = running_moment(
        jobs=[job(state=state, **extra)], evaluations={"a": [evaluation(step, loss) for step, loss in evaluations]}
    )
    return build_snapshot(moment, around or running_surroundings(), NOW)


@contextmanager
def _webhook(answers, *, hang=None):
    """A loopback server that answers with these codes in turn, then 200; its list holds the bodies it got."""
    bodies: list[dict] = []
    codes = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if hang is not None:
                hang.wait(60)
            bodies.append(body)
            self.send_response(codes.pop(0) if codes else 200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/secret", bodies
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _ring(url, pictures, **extra):
    said: list[str] = []
    queue = list(pictures)
    webhook = Webhook(
        url,
        lambda now: queue.pop(0) if len(queue) > 1 else queue[0],
        say=said.append,
        every_seconds=0.01,
        pauses_seconds=(0.0, 0.0),
        **extra,
    )
    webhook.start()
    return webhook, said


def test_the_end_of_a_job_is_told_with_its_best_figures():
    (notice,) = notices(_picture(), _picture(State.SUCCEEDED))

    assert (notice.kind, notice.job) == ("done", "a")
    assert notice.text == "a is done, best held-out loss 7.0000 at step 100"
    assert notice.figures["best_loss"] == 7.0


def test_a_failure_is_told_once_with_its_cause_and_command():
    (notice,) = notices(_picture(), _picture(State.FAILED, reason="diverged again"))

    assert notice.kind == "failed"
    assert notice.text == "a failed: diverged again; wake2vec-runner retry a"


def test_a_new_best_is_told_and_a_first_or_worse_evaluation_is_not():
    before = _picture()

    assert [one.kind for one in notices(before, _picture(evaluations=[(100, 7.0), (200, 6.5)]))] == ["best"]
    assert notices(before, _picture(evaluations=[(100, 7.0), (200, 7.5)])) == []
    assert notices(_picture(evaluations=[]), before) == []


def test_what_needs_a_person_is_told_when_it_begins_to():
    alone = _picture(around=nothing())

    (notice,) = notices(_picture(), alone)

    assert notice.kind == "needs-you"
    assert notice.text.endswith("wake2vec-runner start")
    assert notices(alone, dataclasses.replace(alone, at=NOW + 60)) == []


def test_nothing_new_is_no_notice():
    assert notices(_picture(), _picture()) == []


def test_the_webhook_gets_one_json_body_for_each_notice():
    with _webhook([]) as (url, bodies):
        webhook, said = _ring(url, [_picture(), _picture(State.SUCCEEDED)])
        webhook.close()

    assert [(body["kind"], body["job"], body["format"]) for body in bodies] == [("done", "a", 1)]
    assert said == []


def test_a_webhook_that_fails_at_first_is_called_again():
    with _webhook([500, 429]) as (url, bodies):
        webhook, said = _ring(url, [_picture(), _picture(State.SUCCEEDED)])
        while len(bodies) < 3:
            time.sleep(0.01)
        webhook.close()

    assert [body["kind"] for body in bodies] == ["done"] * 3
    assert said == []


def test_a_webhook_that_is_gone_is_said_once_and_without_its_address():
    with _webhook([404] * 9) as (url, bodies):
        best = [
            _picture(evaluations=[(step, 7.0 - step / 1000) for step in range(0, last, 100)]) for last in (200, 300)
        ]
        webhook, said = _ring(url, [_picture(), *best, _picture(State.SUCCEEDED)])
        while len(bodies) < 2:
            time.sleep(0.01)
        webhook.close()

    assert said == ["notifications do not get through: HTTP 404; see WAKE2VEC_NOTIFY"]
    assert "secret" not in said[0]


def test_a_webhook_that_hangs_holds_nobody_up():
    hang = threading.Event()
    with _webhook([], hang=hang) as (url, _bodies):
        webhook, _said = _ring(url, [_picture(), _picture(State.SUCCEEDED)])
        webhook.close(patience_seconds=0.2)  # returns although the call is still open
        hang.set()
        webhook.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "no address at all", "ftp://x/"])
def test_an_address_that_cannot_work_only_says_so(url):
    webhook, said = _ring(url, [_picture(), _picture(State.SUCCEEDED)])
    while not said:
        time.sleep(0.01)
    webhook.close()

    assert said[0].startswith("notifications do not get through")


def test_other_services_get_the_same_as_a_message():
    pytest.importorskip("apprise")
    with _webhook([]) as (url, bodies):
        webhook, said = _ring(url.replace("http://", "json://"), [_picture(), _picture(State.SUCCEEDED)])
        while not bodies:
            time.sleep(0.01)
        webhook.close()

    assert (bodies[0]["title"], said) == ("wake2vec-runner", [])
    assert bodies[0]["message"].startswith("a is done, best held-out loss")


def test_a_service_that_nobody_knows_is_said_without_its_address():
    pytest.importorskip("apprise")
    webhook, said = _ring("secret://token@nowhere", [_picture(), _picture(State.SUCCEEDED)])
    while not said:
        time.sleep(0.01)
    webhook.close()

    assert said == ["notifications do not get through: no address that apprise knows; see WAKE2VEC_NOTIFY"]


def test_an_address_that_can_reach_nobody_is_said_before_there_is_anything_to_tell(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    webhook, said = _ring("discord://number/secret", [_picture()])
    webhook.close()

    assert said == [
        "notifications do not get through: not an http address; others need: pip install apprise; see WAKE2VEC_NOTIFY"
    ]


def test_a_picture_that_cannot_be_taken_does_not_silence_the_bell():
    pictures = iter([_picture(), None, _picture(State.SUCCEEDED)])

    def see(now):
        picture = next(pictures, None)
        if picture is None:
            raise RuntimeError("locked")
        return picture

    said: list[str] = []
    with _webhook([]) as (url, bodies):
        webhook = Webhook(url, see, say=said.append, every_seconds=0.01)
        webhook.start()
        while not bodies:
            time.sleep(0.01)
        webhook.close()

    assert bodies[0]["kind"] == "done"
    assert said[0] == "notifications: no picture: locked"

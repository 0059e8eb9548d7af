"""Real trainers that start in no time: forks of one process that has imported everything.

`command()` is a trainer's command line for the runner: a small process that asks for a fork, hands on the signals it
gets, dies when the fork does and the fork when it does. What a test proves about processes as they are started by users
(their imports, waiting trainers, several ranks), and what libraries read from the environment when they are imported
(HF_HOME), takes the real command instead.
"""

from __future__ import annotations

import array
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@functools.cache
def command() -> list[str]:
    """Starts the process to fork from, once in each test process; it ends when that does."""
    address = str(Path(tempfile.mkdtemp(prefix="zygote-")) / "socket")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen(
        [sys.executable, "-c", f"from tests.zygote import serve; serve({address!r})"],
        cwd=ROOT, env=environment, stdin=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    command.server = server  # type: ignore[attr-defined]  # its standard input stays open as long as we live
    return [sys.executable, "-S", "-E", str(Path(__file__)), address]


def quick_machine(**fields: Any) -> Any:
    """A machine whose trainers are forks."""
    from tests.machine import Machine

    return Machine(trainer=command(), **fields)


def ask(address: str, run: str) -> None:
    """Be the trainer of a run: the one that a runner sees."""
    pid, waiting = 0, []

    def hand_on(number: int, _: object) -> None:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
        else:
            waiting.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, hand_on)
    link = _connected(address)
    told = json.dumps({"run": run, "folder": os.getcwd(), "environment": dict(os.environ)}).encode() + b"\n"
    link.sendmsg([told[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [1, 2]))])
    link.sendall(told[1:])
    answers = link.makefile("r")
    pid = int(answers.readline() or 0)
    for number in waiting:
        hand_on(number, None)
    code = int(answers.readline() or 99)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _connected(address: str) -> socket.socket:
    give_up = time.monotonic() + 120  # its imports, on a machine that does much else
    while True:
        link = socket.socket(socket.AF_UNIX)
        try:
            link.connect(address)
        except OSError:
            link.close()
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        else:
            return link


def serve(address: str) -> None:
    """Fork for whoever asks, until standard input ends."""
    from tests.faults.warm import warm_up
    from wake2vec.train.waiting import import_all

    warm_up()
    import_all("p2")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    children: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([0, listener, *children.values()], [], [], 0.01)
        if 0 in ready:
            for pid in children:
                _kill(pid)
            return
        for link in ready:
            if link is listener:
                asking, _ = listener.accept()
                pid = _fork(asking, listener)
                children[pid] = asking
                with contextlib.suppress(OSError):
                    asking.sendall(f"{pid}\n".encode())
        for pid, link in list(children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                with contextlib.suppress(OSError):
                    link.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                children.pop(pid).close()
            elif link in ready:  # nothing is ever sent: it is gone
                _kill(pid)


def _kill(pid: int) -> None:
    for end in (os.killpg, os.kill):  # a fork that has no group of its own yet
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)


def _fork(link: socket.socket, listener: socket.socket) -> int:
    first, handles, _, _ = socket.recv_fds(link, 1, 2)
    told = json.loads(first + link.makefile("rb").readline())
    pid = os.fork()
    if pid:
        for handle in handles:
            os.close(handle)
        return pid
    code = 99
    try:
        os.setsid()
        listener.close()
        link.close()
        for stream, handle in zip((1, 2), handles, strict=True):
            os.dup2(handle, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(told["environment"])
        os.chdir(told["folder"])
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
        from wake2vec.__main__ import main

        code = main([told["run"]])
        sys.stdout.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    ask(*sys.argv[1:])

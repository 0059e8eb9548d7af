"""Real processes that start in no time: forks of one that has imported everything.

`fork()` is `python -m MODULE WORDS` for a test that holds it as a `Child`. `python()` is a command line for whoever
starts processes himself, as the runner starts trainers: a small process that asks for a fork, hands on the signals it
gets, dies when the fork does and the fork when it does. What a test proves about processes as they are started by users
(their imports, several ranks), and what libraries read from the environment when they are imported (HF_HOME alone is
looked at anew), takes the real command instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Mapping
from typing import IO, Any

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# what each of the processes that we fork from calls first
WARM = {"ZYGOTE_OF_RUNNERS": "tests.faults.driver:import_runner", "ZYGOTE_OF_TRAINERS": "tests.faults.warm:warm_up"}
RUNNERS, TRAINERS = WARM
MOST_BYTES = 1 << 17  # of what one fork is told


def server(kind: str) -> str:
    """The address of a process to fork from: started once by a test process, known to all its forks, gone with it."""
    if kind not in os.environ:
        import atexit
        import subprocess
        import tempfile

        address = f"{tempfile.mkdtemp(prefix='zygote-')}/socket"
        program = f"import sys; sys.path[0] = {ROOT!r}; from tests.zygote import serve; serve({address!r}, {kind!r})"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", program]
        process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, start_new_session=True)
        atexit.register(process.communicate)  # its standard input stays open as long as we live
        os.environ[kind] = address
    return os.environ[kind]


def python(module: str, *words: Any) -> list[str]:
    """In place of `python -m`."""
    kind = RUNNERS if module.split(".")[0] == "runner" else TRAINERS
    return [sys.executable, "-S", "-E", os.path.abspath(__file__), server(kind), module, *map(str, words)]


def fork(
    module: str,
    *words: str,
    out: IO[bytes],
    err: IO[bytes],
    environment: Mapping[str, str],
    kind: str = RUNNERS,
    folder: str = ROOT,
) -> Child:
    known = {kind: server(kind) for kind in WARM}
    with open(os.devnull) as nothing:
        streams = [nothing.fileno(), out.fileno(), err.fileno()]
        return Child(module, asked(known[kind], module, words, {**environment, **known}, folder, streams))


class Child:
    """A fork as its test holds it, with what tests use of a Popen; it dies with its test."""

    def __init__(self, name: str, link: socket.socket) -> None:
        self._name, self._link = name, link
        self.pid = int(link.recv(16) or 0)
        self.returncode: int | None = None

    def __del__(self) -> None:
        self._link.close()

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        if (code := self._ended(timeout)) is None:
            from subprocess import TimeoutExpired

            raise TimeoutExpired(self._name, timeout or 0)
        return code

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _ended(self, seconds: float | None) -> int | None:
        if self.returncode is None and select.select([self._link], [], [], seconds)[0]:
            self.returncode = int(self._link.recv(16) or 99)
            self._link.close()
        return self.returncode


def start_ranks(serve: Any, args: tuple[Any, ...], **more: Any) -> Any:
    """In place of torch's `start_processes`: forks too, of a server that multiprocessing keeps."""
    import multiprocessing

    from torch.multiprocessing.spawn import start_processes

    multiprocessing.set_forkserver_preload(["tests.warm_ranks", "tests.zygote"])
    more |= {"start_method": "forkserver"}
    return start_processes(in_environment, args=(dict(os.environ), serve, *args), **more)


def in_environment(rank: int, environment: dict[str, str], serve: Any, *args: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    serve(rank, *args)


def ask(address: str, module: str, *words: str) -> None:
    """Be the process that was asked for: the one that who started it sees."""
    pid, waiting = 0, []

    def hand_on(number: int, _: object) -> None:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)
        else:
            waiting.append(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, hand_on)
    link = asked(address, module, words, os.environ, os.getcwd(), [0, 1, 2])
    pid = int(link.recv(16) or 0)
    for number in waiting:
        hand_on(number, None)
    code = int(link.recv(16) or 99)
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no other
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


def asked(
    address: str, module: str, words: Any, environment: Mapping[str, str], folder: str, streams: list[int]
) -> socket.socket:
    """The line to a new fork, which tells its pid and then how it ended."""
    give_up = time.monotonic() + 240  # its imports, on a machine that does much else
    while True:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            link.connect(address)
        except OSError:
            link.close()
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)
        else:
            break
    told = {"module": module, "words": words, "folder": folder, "environment": dict(environment)}
    socket.send_fds(link, [json.dumps(told).encode()], streams)
    return link


def serve(address: str, kind: str) -> None:
    """Fork for whoever asks, until standard input ends. A fork leaves by its exit."""
    import gc
    from importlib import import_module

    module, name = WARM[kind].split(":")
    getattr(import_module(module), name)()
    gc.freeze()  # nothing of ours is ever looked at again
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen(64)
    children: dict[socket.socket, tuple[int, int]] = {}  # the line to who asked: pid, and a handle that shows its end
    while True:
        ends = {handle: link for link, (_, handle) in children.items()}
        ready, _, _ = select.select([0, listener, *children, *ends], [], [])
        if 0 in ready:
            for pid, _ in children.values():
                kill(pid)
            return
        for one in ready:
            if one is listener:
                link, _ = listener.accept()
                told, streams, _, _ = socket.recv_fds(link, MOST_BYTES, 3)
                if (pid := os.fork()) == 0:
                    for inherited in (listener, *children):
                        inherited.close()
                    for handle in ends:
                        os.close(handle)
                    lead(link, streams)
                    become(**json.loads(told))
                for stream in streams:
                    os.close(stream)
                children[link] = pid, os.pidfd_open(pid)
            elif one in ends:
                pid, handle = children.pop(ends[one])
                _, status = os.waitpid(pid, 0)
                with contextlib.suppress(OSError):
                    ends[one].send(str(os.waitstatus_to_exitcode(status)).encode())
                ends[one].close()
                os.close(handle)
            elif one in children:  # nothing is ever sent: who asked is gone
                kill(children[one][0])


def kill(pid: int) -> None:
    for end in (os.killpg, os.kill):  # a fork that has no group of its own yet
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)


def lead(link: socket.socket, streams: list[int]) -> None:
    """Lead a session and say so: from then on whoever asked may signal."""
    os.setsid()
    for stream, handle in enumerate(streams):
        os.dup2(handle, stream)
        os.close(handle)
    link.send(str(os.getpid()).encode())
    link.close()


def become(module: str, words: list[str], folder: str, environment: dict[str, str]) -> None:
    """What `python -m` does."""
    import runpy

    os.environ.clear()
    os.environ.update(environment)
    if (hub := sys.modules.get("huggingface_hub.constants")) and (home := environment.get("HF_HOME")):
        hub.HF_HOME, hub.HF_HUB_CACHE = home, f"{home}/hub"  # type: ignore[attr-defined]
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    os.chdir(folder)
    sys.argv = [module, *words]
    with contextlib.suppress(OSError):  # who has kept hold of it writes through it too, but for a pipe
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    # anew: those from before the fork know whether what they led to then could be sought in
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(one, mode, closefd=False) for one, mode in enumerate("rww"))
    sys.stdout.reconfigure(write_through=True, line_buffering=True)
    sys.stderr.reconfigure(write_through=True, errors="backslashreplace")
    sys.modules.pop(module, None)  # it is to run under another name
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    ask(*sys.argv[1:])

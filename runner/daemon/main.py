"""The daemon: hold the home's lock, restore what is missing, run the two loops, and stop so that everything is safe."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from types import FrameType

from runner.context import DaemonContext, read_clocks
from runner.daemon.dispatch import keep_warm
from runner.daemon.ending import conclusion, last_code, lost_cluster, unread
from runner.daemon.loops import MOST_TROUBLES_IN_A_ROW, Loops, start_loops
from runner.daemon.safety import bring_to_safety, end_without_queue, safe_report
from runner.errors import (
    BUG,
    INTERRUPTED,
    ClusterLost,
    HomeUnusable,
    QueueUnavailable,
    RunnerError,
    StoreLost,
    StoreUnavailable,
    Unsent,
)
from runner.machine import vram
from runner.machine.cards import visible
from runner.machine.home import Say, check_home, only_daemon, open_or_set_aside
from runner.machine.launcher import Launcher
from runner.machine.session import session_end, this_machine
from runner.queue import attempts, jobs, sharing, waiting
from runner.queue.checkpoints import log_state
from runner.queue.database import Queue
from runner.queue.history import mark_of
from runner.queue.ledger import add_event
from runner.queue.view import see
from runner.screen.daemon_note import MISSING, read_note
from runner.settings import Settings, holder_of
from runner.states import Engine, Foreign
from runner.store.known import ROOT
from runner.store.open import open_store
from runner.sync.copies import mirror
from runner.sync.job_in_store import SyncContext
from runner.sync.loop import release_all
from runner.sync.rebuild import restore
from runner.sync.trust import check, holdings, unconfirmed
from wake2vec.contract.errors import NoGpu
from wake2vec.contract.files import counted
from wake2vec.contract.rundir import STOP_SIGNALS


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How long the person wants the daemon to run, and what it may do."""

    until_empty: bool = False
    max_hours: float | None = None
    stop_at: str | None = None
    take_over: bool = False
    engine: Engine = Engine.LOCAL
    address: str | None = None  # of the Ray cluster
    allow_network_home: bool = False
    allow: tuple[Foreign, ...] = ()
    patience_minutes: float = 10.0  # for the store, when nothing is left to train


Attend = Callable[[SyncContext], None]  # told of the daemon's memory before it begins to work


def run_daemon(settings: Settings, wanted: Wanted, say: Say = print, attend: Attend = lambda context: None) -> int:
    """Work until stopped; returns the exit code. Raises DaemonRunning, HomeUnusable, StoreUnavailable at the start."""
    check_home(settings.home, allow_network=wanted.allow_network_home)
    with only_daemon(settings.home), open_or_set_aside(settings, say) as queue, at_work(settings, queue):
        _tell_what_is_missing(settings, queue, say)
        return _work(settings, wanted, queue, say, attend)


@contextmanager
def at_work(settings: Settings, queue: Queue) -> Iterator[None]:
    """Be known to the other homes of a shared queue."""
    if not queue.is_shared:
        yield
        return
    sharing.enter(queue, version("wake2vec-runner"), settings.numbers.lease_seconds)
    try:
        yield
    finally:
        with suppress(QueueUnavailable):
            sharing.leave(queue)


def _work(settings: Settings, wanted: Wanted, queue: Queue, say: Say, attend: Attend) -> int:
    daemon = furnish(settings, wanted, queue)
    context = SyncContext(daemon=daemon)
    attend(context)
    loops = Loops()
    with listening(loops, say), closing(daemon.launcher):
        if _will_train(daemon):
            keep_warm(daemon, [[gpu] for gpu in daemon.gpus if daemon.launcher.holder(gpu) is None], time.time())
        _restore(context, wanted, say)
        _require_card(daemon)
        scheduler = start_loops(daemon, context, loops)
        try:
            end = wait(daemon, context, loops, wanted, say)
            # a store that is away was waited for long enough
            is_away, is_alone = isinstance(end, Unsent | StoreLost), isinstance(end, ClusterLost)
            bring_to_safety(
                daemon, context, say, lambda: show_events(queue, loops, say),
                for_trainers=not is_alone, for_the_store=not is_away,
            )  # fmt: skip
        except QueueUnavailable as error:
            say(f"error: {error}")
            end_without_queue(daemon, say)
            return error.exit_code
        finally:
            scheduler.shutdown(wait=False)
        is_free = context.busy.acquire(timeout=settings.numbers.grace_seconds)
        if is_free and not is_away:
            release_all(context, read_clocks())
            mirror(context, read_clocks(), leaving=True)
        show_events(queue, loops, say)
        doubts = unconfirmed(context, read_clocks()) if is_free else {}
        for line in safe_report(queue, settings, doubts):
            say(line)
        for job, why in unread(daemon).items():
            say(f"{job}: the store lists it and cannot show it: {why}")
        for line in str(end).splitlines() if isinstance(end, RunnerError) else ():
            say(f"error: {line}")
        code = last_code(end.exit_code if isinstance(end, RunnerError) else end, daemon, doubts)
        if not is_free or is_alone:  # a call to the store hangs, or Ray's end would: nobody waits for them
            sys.stdout.flush()
            os._exit(code)
    return code


def _tell_what_is_missing(settings: Settings, queue: Queue, say: Say) -> None:
    """A database that ends before what was seen in it is sound, perhaps, but has lost something."""
    note = read_note(settings.home)
    if note is not None and mark_of(queue).event < note.newest_event:
        say(f"{settings.database}: {MISSING}")
        add_event(queue, time.time(), "lost", f"{settings.database}: {MISSING}")


def furnish(settings: Settings, wanted: Wanted, queue: Queue) -> DaemonContext:
    now = time.time()
    machine = this_machine(os.environ)
    read_cards = vram.read_cards if wanted.engine is Engine.LOCAL else list  # a cluster's are Ray's to deal out
    cards = visible(read_cards(), os.environ.get("CUDA_VISIBLE_DEVICES"))
    session = attempts.open_session(
        queue,
        machine=machine.id,
        platform=machine.platform,
        gpu=", ".join(card.name for card in cards),
        started_at=machine.started_at if machine.platform != "plain" else now,
        now=now,
    )
    settings.locks.mkdir(parents=True, exist_ok=True)
    return DaemonContext(
        settings=settings,
        queue=queue,
        store=open_store(settings.store_url, settings.home),
        launcher=_launcher(settings, wanted),
        session=session,
        holder=holder_of(settings.home),
        cards=cards,
        read_cards=read_cards,
        stop_by=session_end(machine, now, max_hours=wanted.max_hours, stop_at=wanted.stop_at),
        take_over=wanted.take_over,
        allow=frozenset((*settings.numbers.allow, *wanted.allow)),
    )


def context_of(settings: Settings, queue: Queue) -> SyncContext:
    """For a command that does once what the sync loop does."""
    return SyncContext(daemon=furnish(settings, Wanted(), queue))


def _launcher(settings: Settings, wanted: Wanted) -> Launcher:
    if wanted.engine is Engine.LOCAL:
        return Launcher(settings.numbers.trainer, settings.locks)
    from runner.machine.ray_launcher import RayLauncher

    return RayLauncher(settings.numbers.trainer, holder_of(settings.home), wanted.address)


def _restore(context: SyncContext, wanted: Wanted, say: Say) -> None:
    try:
        check(context, read_clocks())
        new = restore(context, read_clocks(), say)
    except StoreUnavailable as error:
        if isinstance(error, StoreLost):
            say(holdings(context, ROOT))
        if not _can_go_on_without_store(context):
            raise
        say(f"{error}\ntraining goes on here; the store is tried again")
        return
    if new:
        say(f"restored {counted(len(new), 'job')} from {context.daemon.store.properties.place}")


def _require_card(daemon: DaemonContext) -> None:
    """Raises NoGpu where a notebook was opened without the card that its jobs need."""
    moving = waiting.unfinished(jobs.list_jobs(daemon.queue))
    loads = {job.name: job.spec.model.load for job in moving if job.spec.model is not None}
    if reason := vram.no_card(daemon.session.platform, daemon.cards, loads):
        raise NoGpu(reason)


def _will_train(daemon: DaemonContext) -> bool:
    """Whether torch will be needed, as far as can be known before the store was asked: a new home knows no job."""
    every = jobs.list_jobs(daemon.queue)
    return not every or any(job.phase != "command" for job in waiting.unfinished(every))


def _can_go_on_without_store(context: SyncContext) -> bool:
    """Whether something runs, or may run because the store had it before; a new job waits for a store."""
    queue = context.daemon.queue
    moving = waiting.unfinished(jobs.list_jobs(queue))
    known = [job for job in moving if log_state(queue, job.name).created_at is not None]
    return bool(known or see(queue).attempts)


@contextmanager
def listening(loops: Loops, say: Say) -> Iterator[None]:
    """The first signal asks for a clean stop; a second one leaves at once, and the trainers save by themselves."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        loops.signals += 1
        if loops.signals > 1:
            say("left at once; a trainer that still saves is adopted by the next start")
            sys.stdout.flush()
            os._exit(INTERRUPTED)
        say(f"{signal.Signals(number).name}: saving, then leaving; once more leaves at once")
        loops.stop.set()

    before = {number: signal.signal(number, on_signal) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def wait(daemon: DaemonContext, context: SyncContext, loops: Loops, wanted: Wanted, say: Say) -> int | RunnerError:
    """Sleep until there is a reason to stop; returns the exit code, or the error to end with."""
    while not loops.stop.wait(min(0.2, daemon.settings.numbers.tick_seconds)):
        with suppress(QueueUnavailable):  # which the loops tell
            show_events(daemon.queue, loops, say)
        if max(loops.bugs.values(), default=0) >= MOST_TROUBLES_IN_A_ROW:
            return _give_up(daemon, loops, say)
        if not daemon.settings.home.is_dir():
            return HomeUnusable(f"{daemon.settings.home}: is gone: deleted or unmounted under a runner at work")
        if (lost := lost_cluster(daemon, loops)) is not None:
            return lost
        if loops.last_error is not None and str(loops.last_error) != loops.last_text:
            loops.last_text = str(loops.last_error)
            say(f"trouble: {loops.last_text}; trying again")
        if daemon.stop_by is not None and time.time() > daemon.stop_by:
            say("the session's time is over")
            return 0
        with suppress(QueueUnavailable):
            if (
                wanted.until_empty
                and (end := conclusion(daemon, context, loops, wanted.patience_minutes, say)) is not None
            ):
                return end
    return INTERRUPTED


def _give_up(daemon: DaemonContext, loops: Loops, say: Say) -> int | RunnerError:
    error = loops.last_error
    if isinstance(error, ClusterLost):
        return error
    say(f"error: {error}\nthe same trouble again and again: the daemon ends; details in {daemon.settings.daemon_log}")
    return error.exit_code if isinstance(error, RunnerError) else BUG


def show_events(queue: Queue, loops: Loops, say: Say) -> None:
    from runner.queue.ledger import list_events

    events = list_events(queue, since=loops.shown, limit=50)
    view = see(queue) if events and queue.is_shared else None
    for event in events if loops.shown else []:
        if view is None or event.job is None or view.is_mine(event.job):
            say(f"{time.strftime('%H:%M:%S', time.localtime(event.at))} {event.text}")
    loops.shown = events[-1].id if events else loops.shown or 1

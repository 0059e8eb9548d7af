"""Start what can start: the next job for every free card, with its order written first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence

import psutil

from runner.context import DaemonContext, Now, Ready, order_of
from runner.errors import IllegalTransition
from runner.figures import size
from runner.machine.cards import group, too_few, unequal
from runner.machine.launcher import trainer_environment
from runner.machine.vram import reason_not_to_start
from runner.queue import attempts, jobs, sharing, waiting
from runner.queue.ledger import add_event
from runner.queue.rows import Job
from runner.queue.view import View
from runner.states import State, is_due
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.files import write_json
from wake2vec.contract.manifest import saved_steps
from wake2vec.contract.spec import TrainingSpec

SHORTEST_SESSION_SECONDS = 120.0
SPARE_BYTES = 64 << 20
WARM_AFTER_SECONDS = 60.0  # until then the trainer itself loads
WARM_BYTES = 4 << 30
MOST_KEPT = 4  # jobs of a shared queue for each free card, while none of them can be made ready
PASSED_SECONDS = 60.0  # until a job that cannot start here is looked at again


def dispatch(daemon: DaemonContext, moment: Now) -> None:
    """Claim and start. A job that could start but is not ready is named to the sync loop."""
    now, view, unready, obstacles = moment.wall, daemon.sight.view, [], {}
    unfit = []  # for this host
    soon: list[Sequence[int]] = []  # cards that will be asked for
    taken = {gpu for attempt in view.attempts for gpu in view.gpus(attempt)}
    free = [gpu for gpu in daemon.gpus if gpu not in taken and daemon.launcher.holder(gpu) is None]
    if free and daemon.queue.is_shared and not daemon.is_stopping:
        view = take_some(daemon, len(free), moment)
    waits = waiting.claimable(view.jobs) if free and not daemon.is_stopping else []
    waits = [job for job in waits if view.may_start(job.name)]
    there = cards_there(daemon) if waits else {}
    together = (daemon.launcher.places_of_a_host or len(there)) if waits else 0
    free = [gpu for gpu in free if gpu in there]
    here = obstacle(daemon, free[0], now) if free else ""
    for job in waits:
        if not free:
            break
        if not is_due(job.not_before, now, daemon.settings.numbers.backoff_last_seconds):
            continue
        train = job.spec.train if isinstance(job.spec, TrainingSpec) else None
        wanted, most = (train.cards, train.batch) if train else (1, 1)
        least = 1
        if train and train.spread == "layers" and wanted != 1:
            least, most = 2, len(there)
        if wanted == "auto":
            most = min(most, together)
        gpus = group(wanted, there, free, least=least)[:most]
        unfitting = unequal(wanted, there) or too_few(least, there, together)
        if reason := here or lack_of_room(daemon, view.largest.get(job.name, 0)) or unfitting:
            obstacles[job.name] = reason
            unfit.append(job.name)
            if reason != job.reason:
                jobs.update_job(daemon.queue, job.name, reason=reason)
        elif reason := next(filter(None, (obstacle(daemon, gpu, now) for gpu in gpus[1:])), ""):
            obstacles[job.name] = reason
        elif not gpus:
            obstacles[job.name] = f"waits until {least if wanted == 'auto' else wanted} cards are free at once"
            break  # nobody overtakes it, or it would wait for ever for all its cards to be free at once
        elif ready := daemon.handover.take(job.name):
            start(daemon, job, ready, gpus, now)
            free = [gpu for gpu in free if gpu not in gpus]
        else:
            unready.append(job.name)
            soon += [gpus] if job.phase != "command" else []
    keep_warm(daemon, soon, now)
    daemon.obstacles = obstacles
    daemon.handover.ask(unready)
    if daemon.queue.is_shared and unfit:
        leave_to_others(daemon, unfit, moment)


def take_some(daemon: DaemonContext, free: int, now: Now) -> View:
    """Of a shared queue, keep a job for each free card; one that the sync loop cannot make ready does not count."""
    view, numbers = daemon.sight.view, daemon.settings.numbers
    have = [job for job in view.mine if job.state is State.QUEUED and view.may_start(job.name)]
    ready = [job for job in have if not view.log(job.name).problem]
    if len(ready) >= free or len(have) >= MOST_KEPT * free:
        return view
    passed = [name for name, since in daemon.passed.items() if now.monotonic - since < PASSED_SECONDS]
    taken = sharing.take(
        daemon.queue, free - len(ready), now.wall,
        living=daemon.living, longest_wait=numbers.backoff_last_seconds, without=passed,
    )  # fmt: skip
    return daemon.sight.look() if taken else view


def leave_to_others(daemon: DaemonContext, names: Sequence[str], now: Now) -> None:
    """Jobs that cannot start on this host may do so on another one."""
    daemon.passed |= dict.fromkeys(names, now.monotonic)
    sharing.let_go(daemon.queue, names)


def keep_warm(daemon: DaemonContext, soon: Iterable[Sequence[int]], now: float) -> None:
    """Imports take as long as all else before the first step: have them done while a job is made ready, and for the
    next attempt while one trains, if that leaves memory enough."""
    view = daemon.sight.view
    old = [view.gpus(one) for one in view.attempts if now - one.started_at > WARM_AFTER_SECONDS]
    for gpus in [*soon, *(old if old and psutil.virtual_memory().available > WARM_BYTES else ())]:
        if not daemon.is_stopping:
            daemon.launcher.warm(trainer_environment(os.environ, gpus, len(daemon.cards)))


def cards_there(daemon: DaemonContext) -> dict[int, str]:
    """The cards of this daemon that the driver still shows, by name."""
    if not daemon.cards:
        return dict.fromkeys(daemon.gpus, daemon.launcher.card)
    return {card.index: card.name for card in daemon.read_cards() if card.index in daemon.gpus}


def obstacle(daemon: DaemonContext, gpu: int, now: float) -> str:
    """What keeps every job from starting on this card."""
    if daemon.stop_by is not None and daemon.stop_by - now < SHORTEST_SESSION_SECONDS:
        # no countdown: what a job waits for is written down for each of them
        return f"the session ends in less than {SHORTEST_SESSION_SECONDS:.0f} s; the next one goes on"
    if not daemon.cards:
        return ""
    return reason_not_to_start({card.index: card for card in daemon.read_cards()}.get(gpu))


def lack_of_room(daemon: DaemonContext, checkpoint_bytes: int) -> str:
    needed, room = SPARE_BYTES + 3 * checkpoint_bytes, shutil.disk_usage(daemon.settings.home).free
    if room >= needed:
        return ""
    return f"the disk is full: {size(room)} free, {size(needed)} needed; make room in {daemon.settings.home}"


def start(daemon: DaemonContext, job: Job, ready: Ready, gpus: Sequence[int], now: float) -> None:
    """Claim the job for the cards, write the order, start the trainer."""
    run = daemon.run(job.name)
    first_step = max(saved_steps(run), default=0)
    try:
        attempt = attempts.claim(
            daemon.queue, job.name, session=daemon.session.id, gpu=gpus[0], more=gpus[1:], first_step=first_step,
            now=now, above=ready.last_attempt,
        )  # fmt: skip
    except IllegalTransition:
        return  # the person was faster: held or cancelled a moment ago
    failpoint("dispatch.claimed")
    # Left by an attempt that may have had this number, before the database was rebuilt.
    run.result.unlink(missing_ok=True)
    run.heartbeat.unlink(missing_ok=True)
    order = order_of(daemon, job, ready, attempt=attempt.id, gpus=gpus)
    write_json(run.order, order.model_dump(mode="json"))
    failpoint("dispatch.ordered")
    environment = trainer_environment(os.environ, gpus, len(daemon.cards))
    pid = daemon.launcher.start(run, attempt.id, environment)
    attempts.set_pid(daemon.queue, attempt.id, pid)
    said = f"{job.name} #{attempt.id}: started on {daemon.gpu_name(gpus)} from step {first_step}"
    add_event(daemon.queue, now, "started", said, job=job.name)

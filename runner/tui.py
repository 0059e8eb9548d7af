"""Draw a snapshot as lines of text that fit a width and a height. Pure: nothing is read, nothing printed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.text import Text

from runner import figures
from runner.snapshot import DetailPart, JobPart, Snapshot

LABEL = 9  # columns of the labels at the left
NARROW = 60  # below this there is no room for them
STATE_STYLES = {
    "running": "bold green",
    "queued": "cyan",
    "held": "yellow",
    "failed": "bold red",
    "cancelled": "dim",
    "succeeded": "green",
}
Item = Text | str | None


@dataclass(frozen=True, kw_only=True)
class Page:
    """What is drawn on."""

    width: int
    ascii_only: bool

    def text(self, words: str, style: str = "") -> Text:
        return Text(figures.plain(words) if self.ascii_only else words, style=style)


def render(snapshot: Snapshot, *, width: int, height: int | None = None, ascii_only: bool = False) -> Group:
    """The whole screen. With a height, events go first and then the queue's last rows; without one nothing is cut."""
    page = Page(width=max(width, 20), ascii_only=ascii_only)
    top = [_header(snapshot, page), *_needs(snapshot, page)]
    for detail in snapshot.details:
        top += [Text(), *_detail(snapshot, detail, page)]
    if not snapshot.jobs:
        top += [Text(), page.text("nothing is queued; next: wake2vec-runner enqueue FILE...")]
    top += [Text(), *_around(snapshot, page)]
    queue = _queue(snapshot, page)
    events = _events(snapshot, page)
    if height is not None:
        queue = _fit(queue, height - len(top), page)
        room = height - len(top) - len(queue)
        # The newest are at the end, below their heading.
        events = events[:2] + events[2:][-(room - 2) :] if room > 2 and len(events) > 2 else []
    return Group(*top, *queue, *events)


def _fit(lines: list[Text], room: int, page: Page) -> list[Text]:
    if len(lines) <= room:
        return lines
    if room < 3:
        return []
    return [*lines[: room - 1], page.text(f"  … and {len(lines) - room + 1} more", "dim")]


def _header(snapshot: Snapshot, page: Page) -> Text:
    runner = snapshot.runner
    if not runner.is_alive:
        state = page.text("no runner at work", "bold yellow" if snapshot.jobs else "dim")
    elif runner.since_at is None:
        state = page.text("runner at work", "green")
    else:
        state = page.text(f"runner at work for {figures.duration(snapshot.at - runner.since_at)}", "green")
    clock = time.strftime("%H:%M:%S", time.localtime(snapshot.at))
    line = Text.assemble(page.text("wake2vec-runner", "bold"), " ", state)
    fill = page.width - line.cell_len - len(clock) - 2
    if fill < 1:
        return _cut(line, page)
    return Text.assemble(line, " ", page.text("─" * fill, "dim"), " ", page.text(clock, "dim"))


def _needs(snapshot: Snapshot, page: Page) -> Iterable[Text]:
    for need in snapshot.needs:
        words = Text.assemble(page.text("needs you ", "bold red"), page.text(need.cause))
        yield from _wrap(words, page, indent=2)
        if need.command:
            prefix = "" if " " in need.command and need.command.split()[0] not in COMMANDS else "wake2vec-runner "
            yield from _wrap(page.text(f"  → {prefix}{need.command}", "bold"), page, indent=4)


COMMANDS = frozenset({"start", "retry", "release", "enqueue", "login", "cancel", "hold"})


def _detail(snapshot: Snapshot, detail: DetailPart, page: Page) -> list[Text]:
    job = next(job for job in snapshot.jobs if job.name == detail.job)
    lines = [_title(job, detail, page)]
    bar_width = min(page.width - 2, 100)
    if job.segments:
        present = _share_of_segment(job, detail)
        pieces = figures.segment_bar(job.segments_done, present, job.segments, bar_width, ascii_only=page.ascii_only)
        lines.append(page.text(pieces, "green"))
    elif detail.activity_progress is not None:
        lines.append(page.text(figures.bar(detail.activity_progress, bar_width, ascii_only=page.ascii_only), "green"))
    lines += _flow("steps", _steps(job, detail, page), page)
    if detail.is_alive:
        lines += _flow("cut now", _risk(detail, page), page)
    lines += _flow("loss", _losses(job, detail, page), page)
    lines += _flow("held-out", _held_out(job, detail, page), page)
    if detail.is_alive or job.state == "running":
        lines += _flow("speed", _speed(detail, page), page)
    lines += _flow("memory", _memory(detail, page), page)
    return lines


def _title(job: JobPart, detail: DetailPart, page: Page) -> Text:
    model = detail.model.rsplit("/", 1)[-1] if detail.model.startswith("/") else detail.model
    what = page.text(f"{job.phase.upper()} of {model}" if job.phase != "command" else model, "dim")
    line = Text.assemble(page.text(job.name, "bold cyan"), "  ", what)
    activity = job.state
    if detail.is_alive:
        activity = detail.activity or "starting"
        if detail.activity_detail and detail.activity in ("loading", "fitting", "exporting", "evaluating"):
            activity += f": {detail.activity_detail}"
        if detail.activity_progress is not None and detail.activity != "training":
            activity += f" {detail.activity_progress:.0%}"
    elif job.is_finishing:
        activity = "finishing"
    elif job.state == "running":
        activity = "no trainer alive"
    right = page.text(activity, STATE_STYLES.get(job.state, ""))
    gap = page.width - line.cell_len - right.cell_len
    if gap < 2:
        right.truncate(max(page.width - len(job.name) - 2, 8), overflow="ellipsis" if not page.ascii_only else "crop")
        line = Text.assemble(page.text(job.name, "bold cyan"), "  ")
        gap = max(0, page.width - line.cell_len - right.cell_len)
    return _cut(Text.assemble(line, " " * gap, right), page)


def _share_of_segment(job: JobPart, detail: DetailPart) -> float:
    if detail.segment_first is None or detail.segment_last is None:
        return 0.0
    # Closed segments are durable ones; what is trained beyond them shows in the first open piece.
    return max(0.0, min(1.0, (job.trained - detail.segment_first) / (detail.segment_last - detail.segment_first)))


def _steps(job: JobPart, detail: DetailPart, page: Page) -> list[Item]:
    share = f" ({job.trained / job.steps:.0%})" if job.steps else ""
    segment = f"segment {detail.segment} of {job.segments}" if detail.segment and job.segments else None
    return [
        page.text(f"trained {job.trained:,} of {job.steps:,}{share}" if job.steps else f"trained {job.trained:,}"),
        f"saved {job.saved:,}",
        page.text(f"durable {job.durable:,}", "green" if job.durable == job.trained else ""),
        segment,
        f"attempt {job.attempts}" if job.attempts > 1 else None,
    ]


def _risk(detail: DetailPart, page: Page) -> list[Item]:
    machine, trainer = detail.lost_if_machine_goes_seconds, detail.lost_if_trainer_goes_seconds
    if machine < 1:
        return [page.text("safe to close: nothing would be lost", "green")]
    style = "red" if machine > 900 else "yellow" if machine > 300 else ""
    return [
        page.text(f"costs {figures.duration(machine)} of work", style),
        f"{figures.duration(trainer)} if only the trainer dies",
    ]


def _losses(job: JobPart, detail: DetailPart, page: Page) -> list[Item]:
    if detail.loss is None:
        return []
    line = figures.curve(detail.losses, max(8, min(48, page.width - 46)), ascii_only=page.ascii_only)
    style = "green" if detail.learning.startswith("yes") else "yellow" if detail.learning.startswith("no") else ""
    return [Text.assemble(figures.loss(detail.loss), "  ", page.text(line, "cyan")), page.text(detail.learning, style)]


def _held_out(job: JobPart, detail: DetailPart, page: Page) -> list[Item]:
    last, best = job.last, job.best
    if last is None:
        return [f"first measured at step {detail.next_evaluation:,}"] if detail.next_evaluation else []
    items: list[Item] = [page.text(f"{figures.loss(last.loss)} nats at {last.step:,}", "bold")]
    if last.bits_per_byte is not None:
        items.append(f"{last.bits_per_byte:.3f} bits/byte")
    if last.new_loss is not None:
        items.append(f"new words {figures.loss(last.new_loss)}")
        items.append(f"others {figures.loss(last.base_loss)}")
    if best is not None and best.step != last.step:
        items.append(f"best {figures.loss(best.loss)} at {best.step:,}")
    elif best is not None:
        items.append(page.text("the best so far", "green"))
    if detail.ln_v is not None and best is not None and best.loss is not None:
        worse = best.loss >= detail.ln_v
        items.append(
            page.text(f"ln V {detail.ln_v:.2f}" + (": no better than a guess" if worse else ""), "red" * worse)
        )
    return items


def _speed(detail: DetailPart, page: Page) -> list[Item]:
    items: list[Item] = []
    if detail.seconds_per_step is not None:
        seconds = detail.seconds_per_step
        items.append(f"{seconds:.1f} s/step" if seconds >= 1 else f"{seconds * 1e3:.0f} ms/step")
    if detail.tokens_per_second is not None:
        items.append(f"{detail.tokens_per_second:,.0f} tokens/s")
    if detail.lr is not None:
        items.append(f"lr {detail.lr:.2e}")
    if detail.eta_seconds is not None:
        count = detail.eta_sessions
        sessions = f", {count} session{'s' if count != 1 else ''}" if count else ""
        items.append(page.text(f"{figures.duration(detail.eta_seconds)} to go{sessions}", "bold"))
    if detail.next_milestone is not None and detail.next_evaluation is not None:
        items.append(f"next: evaluation {detail.next_evaluation:,}, milestone {detail.next_milestone:,}")
    return items


def _memory(detail: DetailPart, page: Page) -> list[Item]:
    items: list[Item] = []
    memory = detail.memory
    if memory.peak_mib is not None:
        total = f" of {memory.total_mib / 1024:.1f}" if memory.total_mib else ""
        used = f"{memory.reserved_mib / 1024:.1f} held, " if memory.reserved_mib is not None else ""
        near = memory.total_mib is not None and memory.peak_mib > 0.93 * memory.total_mib
        items.append(page.text(f"{used}{memory.peak_mib / 1024:.1f}{total} GiB at the peak", "yellow" if near else ""))
    if detail.plan:
        items.append(_plan(detail.plan))
    if detail.ooms or items:
        items.append(page.text(f"{detail.ooms} OOM" if detail.ooms else "no OOM", "yellow" if detail.ooms else "dim"))
    if detail.regimes:
        items.append(page.text(f"{detail.regimes} change of regime" + "s" * (detail.regimes > 1), "yellow"))
    return items


def _plan(plan: dict[str, object]) -> str:
    """The plan in words; a key that is not known yet is shown as it is."""
    words = {"micro_batch": "{} blocks at a time", "layers": "layers {}", "embedding": "embedding on the {}"}
    quiet = {("embedding", "device"), ("head", "as-is"), ("block_splits", 1)}
    shown = [words.get(key, key + " {}").format(value) for key, value in plan.items() if (key, value) not in quiet]
    return ", ".join(sorted(shown, key=lambda one: not one[0].isdigit()))


def _around(snapshot: Snapshot, page: Page) -> list[Text]:
    lines: list[Text] = []
    session = snapshot.session
    if session is not None and snapshot.runner.is_alive:
        where = " ".join(part for part in (session.platform, session.gpu) if part and part != "plain") or "this machine"
        ends = f"ends in {figures.duration(session.stop_by - snapshot.at)}" if session.stop_by else None
        usual = f"usually {figures.duration(session.usual_minutes * 60)}"
        beats = [detail.heartbeat_at for detail in snapshot.details if detail.is_alive and detail.heartbeat_at]
        beat = f"heartbeat {figures.duration(max(snapshot.at - min(beats), 0))} ago" if beats else None
        clock = f"session {session.number}, {figures.duration(snapshot.at - session.started_at)} so far"
        lines += _flow("session", [where, clock, ends or usual, beat], page)
    for card in snapshot.cards:
        lines += _flow("card", [card.name, f"{card.used_mib / 1024:.1f} of {card.total_mib / 1024:.1f} GiB used"], page)
    return lines + _flow("store", _store(snapshot, page), page)


def _store(snapshot: Snapshot, page: Page) -> list[Item]:
    store = snapshot.store
    items: list[Item] = [store.place]
    if store.waiting:
        rate = f" at {figures.size(store.bytes_per_second)}/s" if store.bytes_per_second else ""
        checkpoints = f"{store.waiting} checkpoint{'s' if store.waiting != 1 else ''}"
        items.append(page.text(f"{checkpoints} to send, {figures.size(store.waiting_bytes)}{rate}", "yellow"))
    elif store.last_durable_at is not None:
        items.append(page.text("all sent", "green"))
    if store.last_durable_at is not None:
        items.append(f"last verified {figures.duration(snapshot.at - store.last_durable_at)} ago")
    if store.free_bytes is not None:
        room = (
            f", room for {store.room_for_checkpoints:,} checkpoints" if store.room_for_checkpoints is not None else ""
        )
        items.append(f"{figures.size(store.free_bytes)} free{room}")
    return items


def _queue(snapshot: Snapshot, page: Page) -> list[Text]:
    if not snapshot.jobs:
        return []
    lines = [Text(), page.text("queue", "bold")]
    order = {"running": 0, "queued": 1, "failed": 2, "held": 3, "succeeded": 4, "cancelled": 5}
    jobs = sorted(snapshot.jobs, key=lambda job: (order.get(job.state, 9), -job.priority))
    name = min(max(len(job.name) for job in jobs), max(10, page.width // 4))
    for job in jobs:
        lines.append(_queue_row(job, snapshot, name, page))
    return lines


def _queue_row(job: JobPart, snapshot: Snapshot, name_width: int, page: Page) -> Text:
    name = page.text(job.name)
    name.truncate(name_width, pad=True, overflow="ellipsis" if not page.ascii_only else "crop")
    state = "finishing" if job.is_finishing else job.state
    steps = f"{job.trained:,}/{job.steps:,}" if job.steps else f"{job.trained:,}/?" if job.trained else "?"
    says = job.says or (f"best {figures.loss(job.best.loss)} at {job.best.step:,}" if job.best else "")
    if job.name == snapshot.next_job and snapshot.runner.is_alive and not snapshot.is_working:
        says = "next"
    line = Text.assemble("  ", name, "  ", page.text(f"{state:<9}", STATE_STYLES.get(job.state, "")), "  ")
    if page.width >= NARROW:
        line.append_text(page.text(f"{steps:>13}  ", "dim"))
    return _cut(line.append_text(page.text(says)), page)


def _events(snapshot: Snapshot, page: Page) -> list[Text]:
    if not snapshot.events:
        return []
    lines = [Text(), page.text("lately", "bold")]
    for event in snapshot.events[-8:]:
        clock = time.strftime("%H:%M", time.localtime(event.at))
        lines.append(_cut(Text.assemble(page.text(f"  {clock}  ", "dim"), page.text(event.text)), page))
    return lines


def _flow(label: str, items: Sequence[Item], page: Page) -> list[Text]:
    """Items side by side, separated by dots, on as many lines as they need, under one label."""
    shown = [page.text(item) if isinstance(item, str) else item for item in items if item is not None]
    if not shown:
        return []
    indent = LABEL if page.width >= NARROW else 2
    dot = page.text(" · ", "dim")
    lines = [Text.assemble(page.text(f"{label:<{LABEL}}" if indent == LABEL else f"{label} ", "dim"))]
    is_first = True
    for item in shown:
        if not is_first and lines[-1].cell_len + dot.cell_len + item.cell_len > page.width:
            lines.append(Text(" " * indent))
            is_first = True
        if not is_first:
            lines[-1].append_text(dot)
        lines[-1].append_text(item)
        is_first = False
    return [part for line in lines for part in _wrap(line, page, indent=indent)]


def _wrap(line: Text, page: Page, *, indent: int) -> list[Text]:
    """Break a line that is longer than the page at words."""
    if line.cell_len <= page.width:
        return [line]
    words, lines = line.split(" ", include_separator=True), [Text()]
    for word in words:
        if lines[-1].cell_len + len(word.plain.rstrip()) > page.width and lines[-1].plain.strip():
            lines.append(Text(" " * indent))
        lines[-1].append_text(word)
    return [_cut(part, page) for part in lines]


def _cut(line: Text, page: Page) -> Text:
    line.truncate(page.width, overflow="crop" if page.ascii_only else "ellipsis")
    return line

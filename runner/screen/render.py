"""Draw a snapshot as lines of text that fit a width and a height. Pure: nothing is read, nothing printed."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Group
from rich.text import Text

from runner import figures
from runner.queue.waiting import NOTHING_QUEUED
from runner.screen.layout import NARROW, Item, Page, cut, flow, wrap
from runner.screen.render_job import STATE_STYLES, job_lines
from runner.screen.snapshot import JobPart, Snapshot

FORESEEN, SOON = 60 * 86_400.0, 2 * 86_400.0  # seconds ahead that a full store is told of, and warned of


def render(snapshot: Snapshot, *, width: int, height: int | None = None, ascii_only: bool = False) -> Group:
    """The whole screen. With a height, events go first and then the queue's last rows; without one nothing is cut."""
    page = Page(width=max(width, 20), ascii_only=ascii_only)
    top = [_header(snapshot, page), *_needs(snapshot, page)]
    for detail in snapshot.details:
        top += [Text(), *job_lines(snapshot, detail, page)]
    if not snapshot.jobs:
        top += [Text(), page.text(NOTHING_QUEUED)]
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
        return cut(line, page)
    return Text.assemble(line, " ", page.text("─" * fill, "dim"), " ", page.text(clock, "dim"))


def _needs(snapshot: Snapshot, page: Page) -> Iterable[Text]:
    for need in snapshot.needs:
        words = Text.assemble(page.text("needs you ", "bold red"), page.text(need.cause))
        yield from wrap(words, page, indent=2)
        if need.command:
            yield from wrap(page.text(f"  → {need.command}", "bold"), page, indent=4)


def _around(snapshot: Snapshot, page: Page) -> list[Text]:
    lines: list[Text] = []
    session = snapshot.session
    if session is not None and snapshot.runner.is_alive:
        where = " ".join(part for part in (session.platform, session.gpu) if part and part != "plain")
        so_far = f"{figures.duration(snapshot.at - session.started_at)} so far"
        usual = f", usually {figures.duration(session.usual_minutes * 60)}" if session.usual_minutes else ""
        ends = f", ends in {figures.duration(session.stop_by - snapshot.at)}" if session.stop_by else usual
        lines += flow("session", [f"{session.number}" + (f" on {where}" if where else ""), so_far + ends], page)
    if not any(detail.memory.peak_mib is not None for detail in snapshot.details):
        for card in snapshot.cards:
            used = f"{figures.size(card.used_mib << 20)} of {figures.size(card.total_mib << 20)} used"
            lines += flow("card", [card.name, used], page)
    return lines + flow("store", _store(snapshot, page), page)


def _store(snapshot: Snapshot, page: Page) -> list[Item]:
    store = snapshot.store
    items: list[Item] = [store.place]
    if store.problem and not store.remedy:
        items.append(page.text(store.problem, "red"))
    if store.waiting:
        rate = f" at {figures.size(store.bytes_per_second)}/s" if store.bytes_per_second else ""
        items.append(page.text(f"{store.waiting} to send, {figures.size(store.waiting_bytes)}{rate}", "yellow"))
    elif store.last_durable_at is not None and all_sent(snapshot):
        items.append(page.text("all sent", "green"))
    for upload in store.uploads:
        share = upload.done_bytes / max(upload.size, 1)
        bar = figures.bar(share, 8, ascii_only=page.ascii_only)
        items.append(page.text(f"{upload.told} {bar} {share:.0%}", "yellow"))
    if store.last_durable_at is not None:
        items.append(f"last verified {figures.duration(snapshot.at - store.last_durable_at)} ago")
    if store.free_bytes is not None:
        room = (
            f", room for {store.room_for_checkpoints:,} checkpoints" if store.room_for_checkpoints is not None else ""
        )
        items.append(f"{figures.size(store.free_bytes)} free{room}")
    if store.full_at is not None and store.full_at - snapshot.at < FORESEEN:
        style = "yellow" if store.full_at - snapshot.at < SOON else ""
        items.append(page.text(f"at this rate full on {figures.day(store.full_at)}", style))
    return items


def all_sent(snapshot: Snapshot) -> bool:
    """Whether nothing that was saved or made here is still on its way to the store, or cannot get there."""
    at_rest = all(job.saved <= job.durable and not job.is_finishing for job in snapshot.jobs)
    return at_rest and not snapshot.store.waiting and not snapshot.store.problem


def _queue(snapshot: Snapshot, page: Page) -> list[Text]:
    if not snapshot.jobs:
        return []
    lines = [Text(), page.text("queue", "bold")]
    order = {"running": 0, "queued": 1, "failed": 2, "held": 3, "succeeded": 4, "cancelled": 5}
    jobs = sorted(snapshot.jobs, key=lambda job: (order.get(job.state, 9), -job.priority))
    name = min(max(len(job.name) for job in jobs), max(10, page.width // 4))
    for job in jobs:
        lines += _queue_row(job, snapshot, name, page)
    return lines


def _queue_row(job: JobPart, snapshot: Snapshot, name_width: int, page: Page) -> list[Text]:
    name = page.text(job.name)
    name.truncate(name_width, pad=True, overflow="ellipsis" if not page.ascii_only else "crop")
    state = "finishing" if job.is_finishing else job.state
    steps = f"{job.trained:,}/{job.steps:,}" if job.steps else f"{job.trained:,}/?" if job.trained else "?"
    says = job.says or (
        f"best {figures.loss(job.best.loss)} at {job.best.step:,}" if job.best and job.best.step else ""
    )
    if job.name == snapshot.next_job and snapshot.runner.is_alive and not snapshot.is_working:
        says = "next"
    line = Text.assemble("  ", name, "  ", page.text(f"{state:<9}", STATE_STYLES.get(job.state, "")), "  ")
    if page.width >= NARROW:
        line.append_text(page.text(f"{steps:>13}  ", "dim"))
        return [cut(line.append_text(page.text(says)), page)]
    return [cut(line, page), *(wrap(page.text(f"    {says}"), page, indent=4) if says else ())]


def _events(snapshot: Snapshot, page: Page) -> list[Text]:
    if not snapshot.events:
        return []
    lines = [Text(), page.text("lately", "bold")]
    for event in snapshot.events[-8:]:
        is_old = snapshot.at - event.at > 20 * 3600
        clock = time.strftime("%d %b" if is_old else "%H:%M", time.localtime(event.at))
        lines.append(cut(Text.assemble(page.text(f"  {clock:<6}  ", "dim"), page.text(event.text)), page))
    return lines

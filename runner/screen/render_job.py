"""Draw what is known of one job at work: steps, what a cut costs, loss, speed, memory. Pure."""

from __future__ import annotations

from rich.text import Text

from runner import figures
from runner.screen.layout import LABEL, Item, Page, cut, flow
from runner.screen.snapshot import DetailPart, JobPart, Snapshot
from wake2vec.contract.files import counted

SILENT = 60.0  # seconds after which a heartbeat looks bad
STATE_STYLES = {
    "running": "bold green",
    "queued": "cyan",
    "held": "yellow",
    "failed": "bold red",
    "cancelled": "dim",
    "succeeded": "green",
}


def job_lines(snapshot: Snapshot, detail: DetailPart, page: Page) -> list[Text]:
    job = next(job for job in snapshot.jobs if job.name == detail.job)
    lines = [_title(snapshot, job, detail, page)]
    bar_width = min(page.width - 2, 100)
    if job.segments:
        present = _share_of_segment(job, detail)
        pieces = figures.segment_bar(job.segments_done, present, job.segments, bar_width, ascii_only=page.ascii_only)
        lines.append(page.text(pieces, "green"))
    elif detail.activity_progress is not None:
        lines.append(page.text(figures.bar(detail.activity_progress, bar_width, ascii_only=page.ascii_only), "green"))
    if detail.is_alive and detail.activity != "training":
        lines += flow("start", _start(detail), page)
    lines += flow("steps", _steps(job, detail, page), page)
    if detail.is_alive:
        lines += flow("cut now", _risk(snapshot, job, detail, page), page)
    lines += flow("loss", _losses(detail, page), page)
    lines += flow("held-out", _held_out(job, detail, page), page)
    if detail.is_alive or job.state == "running":
        lines += flow("speed", _speed(detail, page), page)
    lines += flow("memory" if detail.memory.peak_mib is not None else "plan", _memory(detail, page), page)
    return lines + [line for said in detail.layers for line in flow("layers", [page.text(said, "yellow")], page)]


def _title(snapshot: Snapshot, job: JobPart, detail: DetailPart, page: Page) -> Text:
    model = detail.model.rsplit("/", 1)[-1] if detail.model.startswith("/") else detail.model
    what = page.text(f"{job.phase.upper()} of {model}" if job.phase != "command" else model, "dim")
    line = Text.assemble(page.text(job.name, "bold cyan"), "  ", what)
    activity = job.state
    if detail.is_alive:
        activity = detail.activity or "starting"
        if detail.activity_detail and detail.activity != "training":
            activity += f": {detail.activity_detail}"
        if detail.activity_progress is not None and detail.activity != "training":
            share = detail.activity_progress
            activity += f" {figures.bar(share, 8, ascii_only=page.ascii_only)} {share:.0%}"
    elif job.is_finishing:
        activity = "finishing"
    elif job.state == "running":
        is_coming = snapshot.runner.is_alive and detail.heartbeat_at is None  # it has no lock yet
        activity = "starting" if is_coming else "no trainer alive"
    right = page.text(activity, STATE_STYLES.get(job.state, ""))
    if detail.is_alive and detail.heartbeat_at is not None:
        age = max(snapshot.at - detail.heartbeat_at, 0)
        ago = page.text(f" · heartbeat {figures.duration(age)} ago", "red" if age > SILENT else "dim")
        right = Text.assemble(right, ago)
    gap = page.width - line.cell_len - right.cell_len
    if gap < 2:
        right.truncate(max(page.width - len(job.name) - 2, 8), overflow="ellipsis" if not page.ascii_only else "crop")
        line = Text.assemble(page.text(job.name, "bold cyan"), "  ")
        gap = max(0, page.width - line.cell_len - right.cell_len)
    return cut(Text.assemble(line, " " * gap, right), page)


def _share_of_segment(job: JobPart, detail: DetailPart) -> float:
    if detail.segment_first is None or detail.segment_last is None:
        return 0.0
    # Closed segments are durable ones; what is trained beyond them shows in the first open piece.
    return max(0.0, min(1.0, (job.trained - detail.segment_first) / (detail.segment_last - detail.segment_first)))


def _steps(job: JobPart, detail: DetailPart, page: Page) -> list[Item]:
    share = f" ({job.trained / job.steps:.0%})" if job.steps else ""
    coming = f"evaluation at {detail.next_evaluation:,}" if detail.next_evaluation is not None else ""
    if detail.next_milestone is not None:
        coming += f", milestone at {detail.next_milestone:,}"
    return [
        page.text(f"trained {job.trained:,} of {job.steps:,}{share}" if job.steps else f"trained {job.trained:,}"),
        f"saved {job.saved:,}",
        page.text(f"durable {job.durable:,}", "green" if job.durable == job.trained else ""),
        f"segment {detail.segment} of {job.segments}" if detail.segment and job.segments else None,
        f"attempt {job.attempts}" if job.attempts > 1 else None,
        f"next {coming}" if coming and detail.is_alive else None,
    ]


def _start(detail: DetailPart) -> list[Item]:
    parts = {name: seconds for name, seconds in (detail.start_seconds or {}).items() if seconds >= 0.05}
    return [f"{sum(parts.values()):.1f} s so far" if parts else None, *(f"{name} {parts[name]:.1f}" for name in parts)]


def _risk(snapshot: Snapshot, job: JobPart, detail: DetailPart, page: Page) -> list[Item]:
    machine, trainer = detail.lost_if_machine_goes_seconds, detail.lost_if_trainer_goes_seconds
    if job.durable == job.trained and snapshot.store.problem:
        return [page.text("nothing, if the store still has what it had: it cannot be asked now", "yellow")]
    if job.durable == job.trained:
        return [page.text("safe to close: nothing would be lost", "green")]
    style = "red" if machine > 900 else "yellow" if machine > 300 else ""
    return [
        page.text(f"costs {figures.duration(machine)} of work", style),
        f"{figures.duration(trainer)} if only the trainer dies",
    ]


def _losses(detail: DetailPart, page: Page) -> list[Item]:
    if detail.loss is None:
        return []
    room = page.width - LABEL - len(figures.loss(detail.loss)) - len(detail.learning) - 5
    line = figures.curve(detail.losses, min(max(room, 12), 72), ascii_only=page.ascii_only)
    style = {True: "green", False: "yellow", None: ""}[detail.learns]
    return [Text.assemble(figures.loss(detail.loss), "  ", page.text(line, "cyan")), page.text(detail.learning, style)]


def _held_out(job: JobPart, detail: DetailPart, page: Page) -> list[Item]:
    last, best = job.last, job.best
    if last is None:
        if job.trained == 0 and job.phase != "command":
            return ["first measured before step 1"]
        return [f"first measured at step {detail.next_evaluation:,}"] if detail.next_evaluation else []
    is_best = best is not None and best.step == last.step
    said = f"{figures.loss(last.loss)} nats at {last.step:,}" + (", the best" if is_best and last.step else "")
    items: list[Item] = [page.text(said, "bold green" if is_best and last.step else "bold")]
    if last.bits_per_byte is not None:
        items.append(f"{last.bits_per_byte:.3f} bits/byte")
    if last.new_loss is not None:
        items.append(f"new words {figures.loss(last.new_loss)}")
        items.append(f"others {figures.loss(last.base_loss)}")
    if best is not None and not is_best:
        items.append(f"best {figures.loss(best.loss)} at {best.step:,}")
    if detail.ln_v is not None and best is not None and best.loss is not None:
        worse = best.loss >= detail.ln_v
        items.append(
            page.text(f"ln V {detail.ln_v:.2f}" + (": no better than a guess" if worse else ""), "red" * worse)
        )
    return items


def _speed(detail: DetailPart, page: Page) -> list[Item]:
    items: list[Item] = []
    if detail.seconds_per_step is not None:
        items.append(figures.pace(detail.seconds_per_step))
    if detail.tokens_per_second is not None:
        items.append(f"{detail.tokens_per_second:,.0f} tokens/s")
    if detail.lr is not None:
        mantissa, exponent = f"{detail.lr:.1e}".split("e")
        items.append(f"lr {mantissa}e{int(exponent)}" if detail.lr else "lr 0")
    if detail.eta_seconds is not None:
        count = detail.eta_sessions
        sessions = f", {counted(count, 'session')}" if count else ""
        items.append(page.text(f"{figures.hours(detail.eta_seconds)} to go{sessions}", "bold"))
    return items


def _memory(detail: DetailPart, page: Page) -> list[Item]:
    items: list[Item] = []
    memory = detail.memory
    if memory.peak_mib is not None:
        total = f" of {figures.size(memory.total_mib * 2**20)}" if memory.total_mib else ""
        held = f", {figures.size(memory.reserved_mib * 2**20)} held" if memory.reserved_mib is not None else ""
        near = memory.total_mib is not None and memory.peak_mib > 0.93 * memory.total_mib
        items.append(page.text(f"peak {figures.size(memory.peak_mib * 2**20)}{total}{held}", "yellow" if near else ""))
    if detail.ooms or items:
        items.append(page.text(f"{detail.ooms} OOM" if detail.ooms else "no OOM", "yellow" if detail.ooms else "dim"))
    if detail.cards:
        items.append(f"cards {', '.join(map(str, detail.cards))}")
    if detail.plan:
        items.append(_plan(detail.plan))
    if detail.regimes:
        items.append(page.text(counted(detail.regimes, "recorded change"), "yellow"))
    return items


def _plan(plan: dict[str, object]) -> str:
    """The plan in words; a key that is not known yet is shown as it is."""
    words = {"micro_batch": "micro-batch {}", "layers": "layers {}", "embedding": "embedding on the {}"}
    quiet = {("embedding", "device"), ("head", "as-is"), ("block_splits", 1)}
    ordered = sorted(plan.items(), key=lambda one: one[0] != "micro_batch")
    return ", ".join(words.get(key, key + " {}").format(value) for key, value in ordered if (key, value) not in quiet)

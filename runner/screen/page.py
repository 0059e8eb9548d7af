"""The queue as one HTML page for a browser on this machine: no script, nothing fetched, drawn anew by itself."""

from __future__ import annotations

import html
from collections.abc import Collection

from runner.screen.snapshot import JobPart, Snapshot

EVERY_SECONDS = 10
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = """body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}
:root{color-scheme:light dark}table{border-collapse:collapse;width:100%}div{overflow-x:auto}
th,td{text-align:left;padding:.4rem .6rem;border-bottom:1px solid #8886;overflow-wrap:anywhere}"""


def queue_page(snapshot: Snapshot, reported: Collection[str]) -> str:
    """`reported`: jobs that have a report to look at."""
    alive = "a runner is at work" if snapshot.runner.is_alive else "no runner is at work"
    rows = "".join(_row(job, is_linked=job.name in reported) for job in snapshot.jobs)
    head = "".join(f"<th>{name}</th>" for name in ("job", "state", "steps", "durable", "bits per byte", ""))
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="{EVERY_SECONDS}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>wake2vec</title>'
        f"<style>{STYLE}</style></head><body><h1>Queue</h1><p>{alive}</p>"
        f"<div><table><tr>{head}</tr>{rows}</table></div></body></html>\n"
    )


def _row(job: JobPart, *, is_linked: bool) -> str:
    name = html.escape(job.name)
    shown = f'<a href="/report/{name}">{name}</a>' if is_linked else name
    steps = f"{job.trained:,} of {'?' if job.steps is None else f'{job.steps:,}'}"
    best = job.best.bits_per_byte if job.best else None
    figure = "" if best is None else f"{best:.3f}"
    cells = (html.escape(job.state), steps, f"{job.durable:,}", figure, html.escape(job.says))
    return f"<tr><td>{shown}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"

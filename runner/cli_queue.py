"""The commands that fill, run and watch the queue; each imports its own module."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runner.arguments import A_DAY_SECONDS, A_YEAR_HOURS, MOST, Json, Name, Names, settings_of
from runner.states import Engine, Foreign, State


def enqueue(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Job files (TOML); all are queued, or none.")],
    again: Annotated[bool, typer.Option("--again", help="Train it once more, as NAME-2.")] = False,
    if_new: Annotated[bool, typer.Option("--if-new", help="Pass over jobs that are here or in the store.")] = False,
    instead: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="In place of what a file says; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="In place of the file's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check all of it and queue nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Check job files, freeze them with their texts, and queue them."""
    from runner.commands.enqueue import Asked, run
    from runner.jobfile.overrides import read_pair

    pairs = [*map(read_pair, instead or []), *([("name", name)] if name is not None else [])]
    run(
        settings_of(context), files, Asked(again=again, if_new=if_new, only_check=dry_run, pairs=pairs), as_json=as_json
    )


def new(
    wanted: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME...]", help="For example qwen_p1 qwen_p2; none: list them.")
    ] = None,
    as_list: Annotated[bool, typer.Option("--list", help="Show all, their size and the card they need.")] = False,
    as_json: Json = False,
) -> None:
    """Write job files that come with the program into this folder."""
    from runner.commands.setup.new import run

    run(wanted or [], as_list=as_list, as_json=as_json)


def study(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Job files and what is varied in them (TOML).")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The page; default: in the home.")] = None,
    as_json: Json = False,
) -> None:
    """Queue jobs that differ in a few values, and compare what they came to."""
    from runner.commands.study import run

    run(settings_of(context), file, out=out, as_json=as_json)


def import_(
    context: typer.Context,
    old: Annotated[
        list[Path],
        typer.Argument(metavar="OLD...", help="sentry_step_N.pt, embeddings.pt, adapter or tokenizer folders."),
    ],
    into: Annotated[Path, typer.Option("--into", metavar="FILE", help="Job file that the new job is made from.")],
    again: Annotated[bool, typer.Option("--again", help="Train it once more, as NAME-2.")] = False,
    as_json: Json = False,
) -> None:
    """Queue a job that begins where a run of the original scripts ended."""
    from runner.commands.import_ import run

    run(settings_of(context), old, into, again=again, as_json=as_json)


def start(
    context: typer.Context,
    until_empty: Annotated[bool, typer.Option("--until-empty", help="End when nothing can go on.")] = False,
    max_hours: Annotated[
        float | None,
        typer.Option(metavar="HOURS", min=0.0, max=A_YEAR_HOURS, help="The session ends then: be safe before."),
    ] = None,
    stop_at: Annotated[str | None, typer.Option(metavar="HH:MM", help="The same as a time of day.")] = None,
    take_over: Annotated[bool, typer.Option("--take-over", help="Fence a runner elsewhere that seems alive.")] = False,
    engine: Annotated[Engine, typer.Option(help="Who runs the trainers: this host, or a Ray cluster.")] = Engine.LOCAL,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Of the Ray cluster; default: the one that this host is in.")
    ] = None,
    allow_network_home: Annotated[
        bool, typer.Option("--allow-network-home", help="Insist on a home where locks may not be safe.")
    ] = False,
    allow: Annotated[
        list[Foreign] | None,
        typer.Option("--allow", help="Run such jobs too that other machines queued in this store; repeatable."),
    ] = None,
    store_patience: Annotated[
        float,
        typer.Option(
            metavar="MINUTES",
            min=0.0,
            max=60 * A_YEAR_HOURS,
            envvar="WAKE2VEC_STORE_PATIENCE",
            help="With --until-empty: how long to wait for the store when all is trained.",
        ),
    ] = 10.0,
) -> None:
    """Train what is queued until stopped; go on wherever it was."""
    from runner.commands.start import run
    from runner.daemon.main import Wanted

    wanted = Wanted(
        until_empty=until_empty,
        max_hours=max_hours,
        stop_at=stop_at,
        take_over=take_over,
        engine=engine,
        address=address,
        allow_network_home=allow_network_home,
        allow=tuple(allow or ()),
        patience_minutes=store_patience,
    )
    run(settings_of(context), wanted)


def status(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Show it once, also on a terminal.")] = False,
    as_json: Json = False,
    every_seconds: Annotated[
        float, typer.Option("--every", metavar="SECONDS", min=0.2, max=A_DAY_SECONDS, help="Refresh.")
    ] = 1.0,
) -> None:
    """Show what runs and what waits; Ctrl-C leaves it."""
    from runner.commands.status import run

    run(settings_of(context), once=once, as_json=as_json, every_seconds=every_seconds)


def list_(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[JOB...]", help="None: all.")] = None,
    state: Annotated[State | None, typer.Option(help="Only those.")] = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="0 all succeeded, 1 one failed, 22 one needs you, 26 still moving.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a line for every job, for scripts."""
    from runner.commands.list_ import run

    code = run(settings_of(context), names or [], state=state, as_json=as_json)
    raise typer.Exit(code if exit_code else 0)


def diff(
    context: typer.Context,
    first: Annotated[str, typer.Argument(metavar="JOB", help="A job, or a job file.")],
    second: Annotated[str, typer.Argument(metavar="OTHER", help="Another one.")],
    as_json: Json = False,
) -> None:
    """Show where two jobs differ, key by key; 1 when they do."""
    from runner.commands.diff import run

    raise typer.Exit(run(settings_of(context), first, second, as_json=as_json))


def log(
    context: typer.Context,
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it happens, until the job ends.")] = False,
    attempt: Annotated[int | None, typer.Option(metavar="N", min=1, max=MOST, help="Only this attempt.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=0, max=MOST, help="The last N; 0: all.")] = 40,
    as_json: Json = False,
) -> None:
    """Show what a job did, attempt by attempt."""
    from runner.commands.log import run

    run(settings_of(context), name, follow=follow, attempt=attempt, count=lines, as_json=as_json)


def hold(context: typer.Context, names: Names, as_json: Json = False) -> None:
    """Let jobs rest: a running one saves and stops first."""
    _control(context, "hold", names, as_json)


def release(context: typer.Context, names: Names, as_json: Json = False) -> None:
    """Let held jobs go on."""
    _control(context, "release", names, as_json)


def cancel(context: typer.Context, names: Names, as_json: Json = False) -> None:
    """End jobs for good; a running one saves first."""
    _control(context, "cancel", names, as_json)


def retry(context: typer.Context, names: Names, as_json: Json = False) -> None:
    """Queue failed or cancelled jobs again."""
    _control(context, "retry", names, as_json)


def kill(context: typer.Context, names: Names, as_json: Json = False) -> None:
    """End trainers at once, unsaved, and hold their jobs."""
    _control(context, "kill", names, as_json)


def set_(
    context: typer.Context,
    name: Name,
    pairs: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="For example checkpoint.every_steps=50.")],
    as_json: Json = False,
) -> None:
    """Change cadence, plan or priority of a job, never its result."""
    from runner.commands.change import set_values

    set_values(settings_of(context), name, pairs, as_json=as_json)


def extend(
    context: typer.Context,
    name: Name,
    steps: Annotated[int, typer.Argument(metavar="STEPS", min=1, max=MOST, help="How many in all.")],
    as_json: Json = False,
) -> None:
    """Give a job more steps."""
    from runner.commands.change import extend as run

    run(settings_of(context), name, steps, as_json=as_json)


def _control(context: typer.Context, verb: str, names: list[str], as_json: bool) -> None:
    from runner.commands.control import run

    run(settings_of(context), verb, names, as_json=as_json)


queue = typer.Typer(help="Where the queue lies.", no_args_is_help=True, rich_markup_mode=None)


@queue.command()
def move(
    context: typer.Context,
    old: Annotated[str, typer.Argument(metavar="FROM", help="Folder of a home, or postgresql+psycopg://…")],
    new: Annotated[str, typer.Argument(metavar="TO", help="The same; it must be empty.")],
) -> None:
    """Copy a queue between a home and a database that homes share."""
    from runner.commands.queue_ import move as run

    run(settings_of(context), old, new)


FILL = (new, enqueue, study, import_)
WATCH = (start, status, list_, diff, log)
COMMANDS = (*FILL, *WATCH, hold, release, cancel, retry, kill, set_, extend)

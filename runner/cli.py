"""The command line: what may be asked, and how an error becomes an exit code. Each command imports its own module."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.errors import RunnerError
from wake2vec.errors import Wake2vecError

if TYPE_CHECKING:
    from runner.settings import Settings

BUG = 3
HOME_UNUSABLE = 18
EXIT_CODES = """\b
Exit codes:
   0  done                            14  another trainer holds the GPU
   1  your input, or the job's state  15  out of memory, no plan is left
   2  usage                           16  the loss diverged
   3  a bug, see runner.log           17  the store wants you to sign in
  10  a runner is at work here        18  the home cannot be used
  11  the store cannot be reached     19  another runner took the job over
  12  stored bytes are missing or     20  another runner is at work on it
      damaged                        130  interrupted
  13  no usable GPU
"""

app = typer.Typer(
    name="wake2vec-runner",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help needs a third of the start-up time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@dataclass(frozen=True, kw_only=True)
class Global:
    """Options that every command takes."""

    home: Path | None
    store: str | None

    @property
    def settings(self) -> Settings:
        from runner.settings import read_settings

        return read_settings(self.home, self.store)


Names = Annotated[list[str], typer.Argument(metavar="JOB...", help="Names of jobs, as `status` shows them.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.callback(epilog=EXIT_CODES)
def options(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option(help="Folder of the queue and the runs [WAKE2VEC_HOME; default: your data folder].")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="dir:PATH or drive:FOLDER [WAKE2VEC_STORE; default: a folder in the home].")
    ] = None,
) -> None:
    """Train new-token rows and LoRA on GPUs that vanish: queue job files, start, and look in now and then."""
    context.obj = Global(home=home, store=store)


@app.command()
def enqueue(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Job files (TOML); all are queued, or none.")],
    again: Annotated[bool, typer.Option("--again", help="Train it once more, as NAME-2.")] = False,
    as_json: Json = False,
) -> None:
    """Check job files, freeze them with their texts, and queue them."""
    from runner.commands.enqueue import run

    run(_settings(context), files, again=again, as_json=as_json)


@app.command()
def start(
    context: typer.Context,
    until_empty: Annotated[bool, typer.Option("--until-empty", help="End when nothing is left to do.")] = False,
    max_hours: Annotated[
        float | None, typer.Option(metavar="HOURS", min=0.0, help="The session ends then: be safe before.")
    ] = None,
    stop_at: Annotated[str | None, typer.Option(metavar="HH:MM", help="The same as a time of day.")] = None,
    take_over: Annotated[bool, typer.Option("--take-over", help="Fence a runner elsewhere that seems alive.")] = False,
    allow_network_home: Annotated[
        bool, typer.Option("--allow-network-home", help="Insist on a home where locks may not be safe.")
    ] = False,
) -> None:
    """Train what is queued until stopped; go on wherever it was."""
    from runner.commands.start import run
    from runner.daemon import Wanted

    wanted = Wanted(
        until_empty=until_empty,
        max_hours=max_hours,
        stop_at=stop_at,
        take_over=take_over,
        allow_network_home=allow_network_home,
    )
    run(_settings(context), wanted)


@app.command()
def status(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Show it once, also on a terminal.")] = False,
    as_json: Json = False,
    every_seconds: Annotated[float, typer.Option("--every", metavar="SECONDS", min=0.2, help="Refresh.")] = 1.0,
) -> None:
    """Show what runs, what it will cost to cut it, and what waits; Ctrl-C leaves the screen alone."""
    from runner.commands.status import run

    run(_settings(context), once=once, as_json=as_json, every_seconds=every_seconds)


@app.command()
def log(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="JOB", help="Name of the job.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it happens, until the job ends.")] = False,
    attempt: Annotated[int | None, typer.Option(metavar="N", help="Only this attempt.")] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=0, help="The last N; 0: all.")] = 40,
    as_json: Json = False,
) -> None:
    """Show what a job did, attempt by attempt, and what its trainers printed."""
    from runner.commands.log import run

    run(_settings(context), name, follow=follow, attempt=attempt, count=lines, as_json=as_json)


@app.command()
def hold(context: typer.Context, names: Names, as_json: Json = False) -> None:
    """Let jobs rest: a running one saves and stops first."""
    _control(context, "hold", names, as_json)


@app.command()
def release(context: typer.Context, names: Names, as_json: Json = False) -> None:
    """Let held jobs go on."""
    _control(context, "release", names, as_json)


@app.command()
def cancel(context: typer.Context, names: Names, as_json: Json = False) -> None:
    """End jobs for good; a running one saves first."""
    _control(context, "cancel", names, as_json)


@app.command()
def retry(context: typer.Context, names: Names, as_json: Json = False) -> None:
    """Queue failed or cancelled jobs again."""
    _control(context, "retry", names, as_json)


@app.command()
def kill(context: typer.Context, names: Names, as_json: Json = False) -> None:
    """End trainers at once, unsaved, and hold their jobs."""
    _control(context, "kill", names, as_json)


@app.command()
def plan(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Job files.")],
    gpu: Annotated[str, typer.Option(help="t4, p100, v100, l4, a100, a100-80g or h100.")] = "t4",
    new_words: Annotated[
        int | None, typer.Option("--new-words", metavar="N", min=0, help="Instead of counting the word list.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Foretell memory and time on a card, before either is spent."""
    from runner.commands.plan import run

    run(files, gpu=gpu, new_words=new_words, as_json=as_json)


@app.command()
def report(
    context: typer.Context,
    names: Names,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Default: in the run directory.")] = None,
) -> None:
    """Write one HTML page of a job, or of several side by side."""
    from runner.commands.report import run

    run(_settings(context), names, out)


@app.command()
def export(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="JOB", help="Name of the job.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A new folder.")],
    merge: Annotated[bool, typer.Option("--merge", help="P2: write the adapters into the weights.")] = False,
    adapter_only: Annotated[bool, typer.Option("--adapter-only", help="P2: for PEFT, no published weights.")] = False,
    dtype: Annotated[str | None, typer.Option(help="Type of the weights; default: as published.")] = None,
    step: Annotated[str, typer.Option(help="A checkpoint's step, best, or final.")] = "final",
) -> None:
    """Write the result as a Hugging Face folder that loads anywhere."""
    from runner.commands.export import run

    run(_settings(context), name, to, merge=merge, adapter_only=adapter_only, dtype=dtype, step=step)


@app.command()
def login(
    context: typer.Context,
    client: Annotated[Path, typer.Argument(metavar="CLIENT.json", help="OAuth client of type Desktop app.")],
    paste: Annotated[bool, typer.Option("--paste", help="The browser is on another machine.")] = False,
) -> None:
    """Sign in to Google Drive, once."""
    from runner.commands.login import run

    run(_settings(context), client, paste=paste)


@app.command()
def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Try everything that a run needs here: home, libraries, card, store."""
    from runner.commands.doctor import run

    run(_settings(context), as_json=as_json)


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it there.")] = None,
    reference: Annotated[bool, typer.Option("--reference", help="Every key, for people (Markdown).")] = False,
) -> None:
    """Print the JSON schema of job files, for editors."""
    from runner.commands.schema import run

    run(out, as_reference=reference)


def _control(context: typer.Context, verb: str, names: list[str], as_json: bool) -> None:
    from runner.commands.control import run

    run(_settings(context), verb, names, as_json=as_json)


def _settings(context: typer.Context) -> Settings:
    chosen: Global = context.obj
    return chosen.settings


def globals_first(arguments: Sequence[str]) -> list[str]:
    """Let --home and --store stand anywhere: `status --home X` means `--home X status`."""
    first: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word in ("--home", "--store"):
            first += [word, *([value] if (value := next(words, None)) is not None else [])]
        elif word.startswith(("--home=", "--store=")):
            first.append(word)
        else:
            rest.append(word)
    return first + rest


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a locale without our characters must not end the program
    words = globals_first(sys.argv[1:] if arguments is None else arguments)
    guarded(lambda: app(words), words)


def guarded(command: Callable[[], object], words: Sequence[str]) -> None:
    """Turn every error of a command into its exit code, and what nobody foresaw into a bug report."""
    try:
        command()
    except (RunnerError, Wake2vecError) as error:
        _tell(str(error) or type(error).__name__)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM):
            _report_bug(error, words)
        _tell(f"{error.filename or 'the disk'}: {error.strerror}")
        sys.exit(HOME_UNUSABLE)
    except Exception as error:
        _report_bug(error, words)


def _tell(message: str) -> None:
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)


def _report_bug(error: Exception, words: Sequence[str]) -> None:
    from runner.bugs import write_bug

    place = write_bug(error, words)
    print(f"error: a bug in wake2vec-runner: {type(error).__name__}: {error}", file=sys.stderr)
    print(f"the whole story is in {place}; please report it", file=sys.stderr)
    sys.exit(BUG)

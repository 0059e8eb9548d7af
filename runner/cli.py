"""The command line: what may be asked, and how an error becomes an exit code. Each command imports its own module."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from runner import cli_queue, cli_results
from runner.arguments import Global
from runner.errors import BUG, HomeUnusable, RunnerError
from wake2vec.contract.errors import Wake2vecError

FULL = (errno.ENOSPC, errno.EDQUOT)
UNUSABLE = (*FULL, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG)
EXIT_CODES = """\b
Exit codes:
   0  done                            14  another trainer holds the GPU
   1  your input, or the job's state  15  out of memory, no plan is left
   2  usage                           16  the loss diverged
   3  a bug, see runner.log           17  the store wants you to sign in
  10  a runner is at work here        18  the home cannot be used
  11  the store cannot be reached     19  another runner took the job over
  12  stored bytes are missing or     20  another runner is at work on it
      damaged                         21  the store has lost what it held
  13  no usable GPU                   22  only jobs that need you are left
  24  the model is another one now    23  trained, but not in the store
  27  the shared queue is away        25  other software computes otherwise
  28  the Ray cluster is gone         26  jobs still move (list)
                                     130  interrupted
"""

app = typer.Typer(
    name="wake2vec-runner",
    add_completion=True,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help needs a third of the start-up time
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("wake2vec-runner"))
        raise typer.Exit


@app.callback(epilog=EXIT_CODES)
def options(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option(help="Folder of the queue and the runs [WAKE2VEC_HOME; default: your data folder].")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="dir:PATH, drive:FOLDER, hub:USER/REPO or fs:URL [WAKE2VEC_STORE; default: a folder in the home]."
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Train new-token rows and LoRA on GPUs that vanish: queue job files, start, and look in now and then."""
    context.obj = Global(home=home, store=store)


for command in (*cli_queue.COMMANDS, *cli_results.COMMANDS):
    app.command(command.__name__.rstrip("_"))(command)
app.add_typer(cli_queue.queue, name="queue")


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


def guarded(action: Callable[[], object], words: Sequence[str]) -> None:
    """Turn every error of a command into its exit code, and what nobody foresaw into a bug report."""
    try:
        action()
    except (RunnerError, Wake2vecError) as error:
        _tell(str(error) or type(error).__name__)
        sys.exit(error.exit_code)
    except OSError as error:
        if error.errno not in UNUSABLE:
            if isinstance(error, FileNotFoundError) and _is_nowhere():
                _tell("the current folder is gone, so nothing can be found from it; cd into another one")
                sys.exit(RunnerError.exit_code)
            _report_bug(error, words)
        remedy = "make room there" if error.errno in FULL else "see whether it can be written, or choose another --home"
        _tell(f"{error.filename or 'the disk'}: {error.strerror}; {remedy}")
        sys.exit(HomeUnusable.exit_code)
    except Exception as error:
        _report_bug(error, words)


def _is_nowhere() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _tell(message: str) -> None:
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)


def _report_bug(error: Exception, words: Sequence[str]) -> None:
    from runner.daemon.logs import write_bug
    from runner.discretion import hide

    place = write_bug(error, words)
    print(f"error: a bug in wake2vec-runner: {hide(f'{type(error).__name__}: {error}')}", file=sys.stderr)
    print(f"the whole story is in {place}; please report it", file=sys.stderr)
    sys.exit(BUG)

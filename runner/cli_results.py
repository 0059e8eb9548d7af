"""The commands that look ahead, show results, and set things up; each imports its own module."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from runner.arguments import MOST, Json, Name, Names, settings_of

Step = Annotated[str | None, typer.Option(help="A checkpoint's step, best or newest.")]
Temperature = Annotated[float | None, typer.Option(min=0.0, help="0: always the likeliest token.")]
Device = Annotated[str | None, typer.Option(help="cpu or cuda.")]
# of an export
Result = Annotated[str, typer.Option(help="A checkpoint's step, best, or final.")]
Merge = Annotated[bool, typer.Option("--merge", help="P2: write the adapters into the weights.")]
AdapterOnly = Annotated[bool, typer.Option("--adapter-only", help="P2: for PEFT, no published weights.")]
Dtype = Annotated[str | None, typer.Option(help="Type of the weights; default: as published.")]
Gguf = Annotated[str | None, typer.Option("--gguf", metavar="TYPE", help="One file for llama.cpp: q8_0, f16 or f32.")]


def plan(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Job files.")],
    gpu: Annotated[
        str, typer.Option(help="t4, p100, v100, l4, a10g, rtx3090, rtx4090, l40s, a100, a100-80g or h100.")
    ] = "t4",
    cards: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=64, help="So many share each step; not given: as the file says."),
    ] = None,
    new_words: Annotated[
        int | None, typer.Option("--new-words", metavar="N", min=0, max=MOST, help="Instead of counting the word list.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Foretell memory and time on a card, before either is spent."""
    from runner.commands.plan import run

    run(files, gpu=gpu, cards=cards, new_words=new_words, as_json=as_json)


def lexicon(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A P1 job file, or a word list with --model.")],
    model: Annotated[str | None, typer.Option(metavar="ID", help="Hub id or folder; FILE is a word list.")] = None,
    corpus: Annotated[
        list[Path] | None, typer.Option("--corpus", metavar="FILE", help="A text beside a word list; may be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell what adding a word list gains, before training."""
    from runner.commands.results.lexicon import run

    run(file, model=model, corpora=corpus or [], as_json=as_json)


def morphemes(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A word list with --derive, else a group file (JSONL).")],
    derive: Annotated[
        bool, typer.Option("--derive", help="Make groups by the longest affix with a real base.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write the groups there.")] = None,
    lexicon: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Beside a group file: the words that will have rows.")
    ] = None,
    corpus: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="Its words exist; may be repeated.")] = None,
    affixes: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Lines such as suffix,ness instead of the usual ones.")
    ] = None,
    least: Annotated[int, typer.Option(min=2, max=MOST, help="Pairs that a group must have.")] = 3,
    cap: Annotated[int, typer.Option(min=2, max=MOST, help="Pairs that it may have; a draw of more.")] = 250,
    as_json: Json = False,
) -> None:
    """Make groups of derived words for a p3 job, or look at some."""
    from runner.commands.results.morphemes import run

    asked = {"affixes": affixes, "least": least, "cap": cap, "out": out, "as_json": as_json}
    run(file, derive=derive, lexicon=lexicon, corpora=corpus, **asked)


def replay(
    context: typer.Context,
    name: Name,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="The job that it should repeat.")],
    within: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of a value that is no difference.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Compare two ledgers: the first step and value in which they part."""
    from runner.commands.results.replay import run

    run(settings_of(context), name, other, within=within, as_json=as_json)


def report(
    context: typer.Context,
    names: Names,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Default: in the run directory.")] = None,
) -> None:
    """Write one HTML page of a job, or of several side by side."""
    from runner.commands.results.report import run

    run(settings_of(context), names, out)


def open_(context: typer.Context, name: Name) -> None:
    """Write a job's report and show it in the browser."""
    from runner.commands.results.report import show

    show(settings_of(context), name)


def serve(
    context: typer.Context,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8723,
) -> None:
    """Show queue and reports to a browser on this machine."""
    from runner.commands.results.serve import run

    run(settings_of(context), port)


def track(
    context: typer.Context,
    names: Names,
    to: Annotated[str, typer.Option(metavar="NAME", help="tensorboard, trackio, wandb or mlflow.")],
    into: Annotated[
        Path | None, typer.Option("--into", metavar="DIR", help="For those that keep files; default: in the home.")
    ] = None,
) -> None:
    """Tell a tracker what a job's ledger says; repeated, it adds what is new."""
    from runner.commands.track import run

    run(settings_of(context), names, to, into)


def generate(
    context: typer.Context,
    name: Name,
    prompt: Annotated[str | None, typer.Option(help="Start of the text; default: the job's.")] = None,
    step: Step = None,
    count: Annotated[int | None, typer.Option(min=1, max=MOST, help="So many texts, each with the next seed.")] = None,
    seed: Annotated[int | None, typer.Option(min=-MOST, max=MOST, help="The same seed gives the same text.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, max=MOST, help="At most so many new tokens.")] = None,
    temperature: Temperature = None,
    top_p: Annotated[float | None, typer.Option("--top-p", help="Share of probability to draw from.")] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", min=0, max=MOST, help="Tokens to draw from; 0: all.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option("--repetition-penalty", help="Above 1: less.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Write texts with a job's model."""
    _use(context, "generate")


def chat(
    context: typer.Context,
    name: Name,
    step: Step = None,
    tokens: Annotated[int | None, typer.Option(min=1, max=MOST, help="At most so many new tokens a text.")] = None,
    temperature: Temperature = None,
    device: Device = None,
) -> None:
    """Go on with whatever you type, a line at a time."""
    _use(context, "generate", chat=True)


def geometry(
    context: typer.Context,
    name: Name,
    step: Annotated[int | None, typer.Option(min=0, max=MOST, help="A checkpoint; default: the newest.")] = None,
    side: Annotated[str, typer.Option(help="Rows of an untied model: input or output.")] = "input",
) -> None:
    """Measure how new rows lie among published ones."""
    _use(context, "geometry")


def hopes(context: typer.Context, name: Name, step: Step = None, device: Device = None, as_json: Json = False) -> None:
    """Measure what a job came to beside the untouched model; each job does at its end."""
    _use(context, "hopes")


def blind(
    context: typer.Context,
    name: Name,
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Default: eval/blind of the run.")] = None,
    score: Annotated[Path | None, typer.Option(metavar="SHEET", help="One that is filled in, beside its key.")] = None,
    count: Annotated[int | None, typer.Option(min=2, max=MOST, help="Passages of each kind.")] = None,
    words: Annotated[int | None, typer.Option(min=8, max=MOST, help="At most so many in a passage.")] = None,
    step: Step = None,
    seed: Annotated[int | None, typer.Option(min=0, max=MOST, help="Chooses passages and their order.")] = None,
    temperature: Temperature = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Write a sheet to judge by, who wrote what; or score one."""
    _use(context, "blind")


def export(
    context: typer.Context,
    name: Name,
    out: Annotated[Path, typer.Option("--to", metavar="DIR", help="A new folder.")],
    merge: Merge = False,
    adapter_only: AdapterOnly = False,
    dtype: Dtype = None,
    gguf: Gguf = None,
    step: Result = "final",
) -> None:
    """Write the result as a Hugging Face folder that loads anywhere."""
    _use(context, "export")


def _use(context: typer.Context, tool: str, **more: Any) -> None:
    """Parameters of these commands are called as the fields of their tool's options, and passed on as they are."""
    from runner.commands.results.fetch import use_trained

    use_trained(settings_of(context), tool, **context.params, **more)


def push(
    context: typer.Context,
    name: Name,
    to: Annotated[str, typer.Argument(metavar="USER/NAME", help="On the Hugging Face Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Where it is made anew: for your eyes alone.")] = False,
    merge: Merge = False,
    adapter_only: AdapterOnly = False,
    dtype: Dtype = None,
    gguf: Gguf = None,
    step: Result = "final",
    if_new: Annotated[bool, typer.Option("--if-new", help="Not when this very result is there already.")] = False,
) -> None:
    """Export a result and put it on the Hugging Face Hub, with its card."""
    from runner.commands.results.push import run

    asked = {"merge": merge, "adapter_only": adapter_only, "dtype": dtype, "gguf": gguf}
    run(settings_of(context), name, to, private=private, step=step, if_new=if_new, **asked)


def login(
    context: typer.Context,
    client: Annotated[Path, typer.Argument(metavar="CLIENT.json", help="OAuth client of type Desktop app.")],
    paste: Annotated[bool, typer.Option("--paste", help="The browser is on another machine.")] = False,
) -> None:
    """Sign in to Google Drive, once."""
    from runner.commands.setup.login import run

    run(settings_of(context), client, paste=paste)


def doctor(context: typer.Context, as_json: Json = False) -> None:
    """Try everything that a run needs here."""
    from runner.commands.setup.doctor import run

    run(settings_of(context), as_json=as_json)


def demo() -> None:
    """Train a tiny job on the CPU, pull the plug, and compare the bits."""
    from runner.commands.setup.demo import run

    run()


def repair(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it, only say what would be done.")] = False,
) -> None:
    """Bring back to the store what it has lost and this home still holds."""
    from runner.commands.repair import run

    raise typer.Exit(run(settings_of(context), yes=yes))


def rebuild(context: typer.Context) -> None:
    """Make the database anew from the store's logs; the old one is kept."""
    from runner.commands.rebuild import run

    run(settings_of(context))


def schema(
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it there.")] = None,
    reference: Annotated[bool, typer.Option("--reference", help="Every key, for people (Markdown).")] = False,
) -> None:
    """Print the JSON schema of job files, for editors."""
    from runner.commands.setup.schema import run

    run(out, as_reference=reference)


LOOKS = (plan, lexicon, morphemes, replay, report, open_, serve, track)
USES = (generate, chat, geometry, hopes, blind, export, push)
COMMANDS = (*LOOKS, *USES, login, doctor, demo, rebuild, repair, schema)

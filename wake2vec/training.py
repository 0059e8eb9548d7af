"""One attempt from order to result: gather, prepare, restore, loop, export."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from wake2vec.artefacts.facts import RunFacts, SessionFact
from wake2vec.artefacts.write import write_artefacts
from wake2vec.checkpoint import read_checkpoint
from wake2vec.errors import CheckpointCorrupt
from wake2vec.generate import write_samples
from wake2vec.loop import Loop
from wake2vec.material import Material, gather
from wake2vec.phases.base import Prepared
from wake2vec.phases.table import PHASES
from wake2vec.plan import Plan, largest_divisor
from wake2vec.pulse import Pulse
from wake2vec.rundir import Result, RunDir, newest_verified, set_aside, sync_directory
from wake2vec.spec import Order
from wake2vec.stopping import Stop


def train(run: RunDir, order: Order, stop: Stop, pulse: Pulse) -> Result:
    """Raises Wake2vecError for whatever a person can mend."""
    quiet_libraries()

    def say(text: str) -> None:
        print(text, flush=True)
        pulse.beat(state="loading", detail=text)

    material = gather(run, order, say)
    say("loading the model")
    phase = PHASES[order.job.phase]
    prepared = phase.prepare(material)
    loop = start_loop(material, prepared, stop, pulse, say)
    result = loop.run_to_end(at_evaluation=lambda: show(loop, material, prepared))
    if result.outcome == "completed":
        pulse.beat(state="exporting")
        show(loop, material, prepared)
        write_final(run, lambda folder: phase.export(prepared, material, folder))
        sample(loop, material, prepared)
    return replace(result, step=loop.progress.step)


def start_loop(material: Material, prepared: Prepared, stop: Stop, pulse: Pulse, say: Callable[[str], None]) -> Loop:
    """A loop at the newest checkpoint that verifies and loads, or at step 0 where there is none.

    One that verifies but does not load, or computes something else, is set aside like a torn one.
    """
    order, run = material.order, material.run
    while True:
        loop = Loop(material, prepared, starting_plan(material), stop, pulse)
        report: list[str] = []
        found = newest_verified(run, order.fingerprint, report)
        for line in report:
            say(line)
        if found is None:
            return with_remembered_plan(loop)
        folder, manifest = found
        try:
            loop.restore(read_checkpoint(folder, manifest))
        except CheckpointCorrupt as error:
            say(f"{error}; set aside as {set_aside(folder).name}")
            prepared = PHASES[order.job.phase].prepare(material)
            continue
        say(f"went on from {folder.name}")
        return with_remembered_plan(loop)


def with_remembered_plan(loop: Loop) -> Loop:
    """What an earlier attempt learnt about this card outranks the plan in the checkpoint, which is another card's."""
    if (remembered := Plan.from_dict(loop.material.order.plan)) is not None:
        loop.progress.plan = remembered
    return loop


def starting_plan(material: Material) -> Plan:
    """The plan that a fresh job starts with; a resumed one goes on with the plan in its checkpoint."""
    train, data = material.job.train, material.job.data
    assert train, "checked by the spec"
    assert data, "checked by the spec"
    # On a CPU memory is no limit and the caches are small: about 512 tokens at once, and layers as PyTorch runs them.
    size = largest_divisor(train.batch, max(1, 512 // data.seq_len))
    return Plan(
        micro_batch=size if train.micro_batch == "auto" else largest_divisor(train.batch, train.micro_batch),
        layers="autograd" if train.layers == "auto" else train.layers,
    )


def write_final(run: RunDir, export: Callable[[Path], None]) -> None:
    """`final/` appears whole; an earlier one from a cut export is replaced."""
    temporary = run.final.with_name("final.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    export(temporary)
    shutil.rmtree(run.final, ignore_errors=True)
    temporary.rename(run.final)
    sync_directory(run.root)


def show(loop: Loop, material: Material, prepared: Prepared) -> None:
    """Bring the pictures and tables up to date. They can be made again at any time, so a full disk is only noted."""
    try:
        write_artefacts(material.run, job=material.job, facts=facts(loop, material))
    except OSError as error:
        loop.note("artefacts", f"not written: {error}")


def sample(loop: Loop, material: Material, prepared: Prepared) -> None:
    if not material.job.evaluate.samples:
        return
    write_samples(
        material.run,
        prepared.model,
        material.tokenizer,
        material.job,
        loop.progress.step,
        first_new_id=material.id_map.first_new_id,
        device=str(prepared.device),
    )


def facts(loop: Loop, material: Material) -> RunFacts:
    job = material.job
    assert job.model, "checked by the spec"
    return RunFacts(
        model=job.model.base,
        base_tokens=material.id_map.first_new_id,
        first_new_id=material.id_map.first_new_id,
        n_new=material.id_map.n_new,
        train_blocks=len(material.blocks),
        held_out_windows=len(material.windows.inputs),
        held_out_bytes=material.windows.n_bytes,
        versions=versions(),
        sessions=sessions(loop),
    )


def sessions(loop: Loop) -> tuple[SessionFact, ...]:
    """One per attempt that the ledger names."""
    firsts: dict[int, int] = {}
    for row in loop.progress.rows:
        if row["kind"] == "step" and row["attempt"] not in firsts:
            firsts[row["attempt"]] = row["step"] - 1
    return tuple(SessionFact(first_step=step) for step in firsts.values())


def versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "tokenizers")
    return {"python": sys.version.split()[0], **{name: version(name) for name in names}}


def quiet_libraries() -> None:
    """Progress bars and advice of the libraries do not belong into a log that a person reads."""
    import logging

    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

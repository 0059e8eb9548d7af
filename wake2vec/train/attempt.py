"""One attempt from order to result: gather, prepare, restore, loop, export."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import wait
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace

from wake2vec.contract.errors import CheckpointCorrupt, RankLost, StackChanged
from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.files import whole_folder, write_json
from wake2vec.contract.manifest import newest_verified
from wake2vec.contract.order import Order
from wake2vec.contract.plan import Plan
from wake2vec.contract.rundir import Result, RunDir
from wake2vec.contract.versions import versions
from wake2vec.data.seen_words import SeenWords
from wake2vec.model.device import card_name, quiet_libraries, require_card
from wake2vec.phases.base import Prepared
from wake2vec.phases.identity import began_with, pinned, require_same
from wake2vec.phases.inputs import JobInputs, read_inputs
from wake2vec.phases.table import PHASES
from wake2vec.show.facts import RunFacts, SessionFact
from wake2vec.show.write import write_artefacts
from wake2vec.train.checkpoint import Loaded, read_checkpoint
from wake2vec.train.evaluate import forget_partial_sums
from wake2vec.train.heartbeat import HeartbeatWriter
from wake2vec.train.loop import Loop
from wake2vec.train.plans.choice import choose_plan, guard
from wake2vec.train.plans.proven import Proven
from wake2vec.train.plans.spreading import spread
from wake2vec.train.ranks.stages import Stages
from wake2vec.train.ranks.team import Alone, Ranks, Team
from wake2vec.train.stack import remedy_for, stack_of
from wake2vec.train.stopping import Stop

HASHING_SECONDS = 1.0  # between two signs of life


def train(run: RunDir, order: Order, stop: Stop, pulse: HeartbeatWriter) -> Result:
    """Raises Wake2vecError for whatever a person can mend."""
    quiet_libraries()
    require_card(order)

    def say(text: str) -> None:
        print(text, flush=True)
        pulse.beat(state="loading", detail=text, progress=None)

    def getting_on(what: str, share: float) -> None:
        pulse.beat(state="loading", detail=what, progress=share)

    pulse.part("vocabulary and text")
    material = read_inputs(run, pinned(run, order, at_once=True), say, getting_on)
    say("loading the model")
    failpoint("load.model")
    pulse.part("weights")
    phase = PHASES[order.job.phase]
    with ExitStack() as stack:
        # the others load the model while this rank does
        layers = spread(material, order.ranks)
        ranks = stack.enter_context(ranks_of(run, order, pulse, layers)) if order.ranks > 1 else None
        if isinstance(ranks, Stages):
            material = replace(material, stage=ranks.stage)
            say(f"the layers are dealt out to {ranks.count} ranks: {' + '.join(map(str, layers))}")
        prepared = phase.prepare(material)
        if ranks is not None and not layers:
            ranks.join(prepared.device)
            say(f"{ranks.size} ranks share each step")
        loop = start_loop(material, prepared, stop, pulse, say, ranks)
        result = loop.run_to_end(at_evaluation=lambda: show(loop, material))
        if result.outcome == "completed":
            pulse.beat(state="exporting")
            show(loop, material)
            with whole_folder(run.final) as final:
                phase.export(prepared, material, final)
            loop.sample()
            loop.hopes()
            loop.ledger.rewrite(loop.progress.rows)
            forget_partial_sums(run.evaluation)
    return replace(result, step=loop.progress.step)


def ranks_of(run: RunDir, order: Order, pulse: HeartbeatWriter, layers: tuple[int, ...]) -> Ranks:
    """The other ranks of this attempt, which ends at once where one ends that nobody waits for at the moment."""

    def lost(error: RankLost) -> None:
        print(error, flush=True)
        write_json(run.result, asdict(pulse.result("lost", "card", str(error))))
        os._exit(1)  # the thread that trains may wait for that card for ever

    if layers:
        return Stages(run, order, layers, beat=pulse.beat, lost=lost)
    return Ranks(run, order, order.ranks, beat=pulse.beat, lost=lost)


def start_loop(
    material: JobInputs,
    prepared: Prepared,
    stop: Stop,
    pulse: HeartbeatWriter,
    say: Callable[[str], None],
    ranks: Team | None = None,
) -> Loop:
    """A loop at the newest checkpoint that verifies, or at step 0 where there is none. Raises what require_same does.

    One that verifies but does not load, or computes something else, is sound: what it stands on has changed. It is
    left where it is, since going back to the one before would train durable steps again, on something else.
    """
    order, run, team = material.order, material.run, ranks or Alone()
    report: list[str] = []
    found = newest_verified(run, order.fingerprint, report)
    for line in report:
        say(line)
    pulse.part("identity")
    require_same_model(material, pulse)
    pulse.part("checkpoint")
    guard(material, prepared, say)
    with known_as_sound(prepared):
        loaded = read_checkpoint(*found) if found else None
    pulse.part("plan")
    proven = Proven(material, prepared, lambda text: fitting(text, pulse), team if prepared.stage is not None else None)
    kept = kept_plan(loaded, prepared)
    plan = choose_plan(material, prepared, kept, proven, lambda: pulse.beat(state="fitting"), team.size)
    loop = Loop(material, prepared, plan, proven, stop, pulse, team)
    if loaded is None:
        return loop
    pulse.part("checkpoint")
    with known_as_sound(prepared, loaded):
        loop.restore(loaded)
    loop.progress.plan = plan
    say(f"went on from {loaded.folder.name}, {plan}")
    return loop


def require_same_model(material: JobInputs, pulse: HeartbeatWriter) -> None:
    """Raises ModelChanged where it is not the one that the job began with. Hashing may take a minute."""
    while not wait([material.identity], timeout=HASHING_SECONDS).done:
        pulse.beat(state="loading", detail="hashing the model's weights", progress=None)
    require_same(began_with(material.run, material.order), material.identity.result())


@contextmanager
def known_as_sound(prepared: Prepared, loaded: Loaded | None = None) -> Iterator[None]:
    """Its hashes were compared a moment ago: what does not fit now is not the checkpoint's fault."""
    try:
        yield
    except CheckpointCorrupt as error:
        was = loaded.state.get("stack") if loaded else None
        remedy = remedy_for(was or {}, stack_of(prepared.device))
        raise StackChanged(error.place, f"is whole by its hashes, but {error.problem}", remedy) from error


def fitting(text: str, pulse: HeartbeatWriter) -> None:
    print(text, flush=True)
    pulse.beat(state="fitting", detail=text)


def kept_plan(loaded: Loaded | None, prepared: Prepared) -> Plan | None:
    """The plan that a checkpoint was made under, if it was on such a card; the same plan gives the same bits."""
    if loaded is None or loaded.state.get("card") != card_name(prepared.device):
        return None
    return Plan.from_dict(loaded.state["plan"])


def show(loop: Loop, material: JobInputs) -> None:
    """Bring the pictures and tables up to date. They can be made again at any time, so a full disk is only noted."""
    if loop.shown == len(loop.progress.rows):  # as at the end, straight after the last evaluation
        return
    try:
        write_artefacts(material.run, job=material.job, facts=facts(loop, material))
        loop.shown = len(loop.progress.rows)
    except OSError as error:
        loop.note("artefacts", f"not written: {error}")


def facts(loop: Loop, material: JobInputs) -> RunFacts:
    job = material.job
    present, met = words_met(loop, material)
    return RunFacts(
        model=job.model.base,
        base_tokens=material.id_map.first_new_id,
        first_new_id=material.id_map.first_new_id,
        n_new=material.id_map.n_new,
        n_forms=len(material.id_map.forms),
        words_present=present,
        words_met=met,
        places=material.places,
        train_blocks=len(material.blocks),
        held_out_windows=len(material.windows.inputs),
        held_out_bytes=material.windows.n_bytes,
        versions=versions(),
        sessions=sessions(loop),
    )


def words_met(loop: Loop, material: JobInputs) -> tuple[int, int]:
    """New words that stand in the training blocks, and how many of them training has met."""
    job, blocks = material.job, material.blocks
    first, count, row_of = material.id_map.first_new_id, len(material.id_map.new), material.id_map.word_of
    if loop.words is None:  # kept, since each scans what training reads
        present, met = (
            SeenWords(blocks, batch=job.train.batch, seed=job.data.seed, first_new_id=first, n_new=count, row_of=row_of)
            for _ in range(2)
        )
        loop.words = present, met
    present, met = loop.words
    step, epoch = loop.progress.step, math.ceil(len(blocks) / job.train.batch)
    return int(present.up_to(max(step, epoch) - 1).sum()), int(met.up_to(step - 1).sum()) if step else 0


def sessions(loop: Loop) -> tuple[SessionFact, ...]:
    """One per attempt that the ledger names."""
    firsts: dict[int, int] = {}
    for row in loop.progress.rows:
        if row["kind"] == "step" and row["attempt"] not in firsts:
            firsts[row["attempt"]] = row["step"] - 1
    return tuple(SessionFact(first_step=step) for step in firsts.values())

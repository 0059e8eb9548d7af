"""What a run shows of its way: sample texts at chosen steps, a frame of the drift film at every milestone.

All of it happens between two steps, draws from a generator of its own, and is left out when anything goes wrong with
it: not a bit of the training depends on it. It travels in the checkpoints, since eval/ goes with its machine.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wake2vec.contract.failpoints import failpoint
from wake2vec.contract.files import counted, read_json, write_json
from wake2vec.hopes.measure import measure
from wake2vec.hopes.reader import AskedToStop, Subject
from wake2vec.model.device import free_memory
from wake2vec.model.split_vocabulary import BaseRows
from wake2vec.phases.base import Prepared
from wake2vec.phases.inputs import JobInputs
from wake2vec.show.geometry.film import add_frame, put_back, read_film
from wake2vec.show.geometry.matrix import Array, InMemory, Places
from wake2vec.show.hopes import read_hopes, write_hopes
from wake2vec.show.samples import parse_samples, read_samples, write_sample_rows
from wake2vec.train.heartbeat import HeartbeatWriter
from wake2vec.use.generate import write_samples

TRIES = 2  # at the samples of a step, where the first try ended this process
MOST_FRAMES = 60  # 20 KiB each, in every checkpoint


class Extras:
    """The extras of one attempt."""

    def __init__(
        self, material: JobInputs, prepared: Prepared, pulse: HeartbeatWriter, note: Callable[[str, str], None]
    ) -> None:
        self._material, self._prepared, self._pulse, self._note = material, prepared, pulse, note
        self._run, self._rules = material.run, material.job.evaluate
        self._sampled: int | None = None
        self.tokens = 200  # of a sample text

    # ---- travelling -----------------------------------------------------------------------------------------

    def carried(self) -> dict[str, Any]:
        """What a checkpoint takes along; nothing here may keep it from being written."""
        found: dict[str, Any] = {}
        self._left_out_if_it_fails(
            "samples", lambda: found.update(samples=[asdict(row) for row in read_samples(self._run)])
        )
        self._left_out_if_it_fails("film", lambda: found.update(film=read_film(self._run)))
        return found

    def restore(self, state: Mapping[str, Any], step: int) -> None:
        """Put back what a checkpoint of `step` took along, beside what is here; what lies beyond it is made again."""
        self._left_out_if_it_fails("samples", lambda: self._restore_samples(state.get("samples") or (), step))
        self._left_out_if_it_fails("film", lambda: put_back(self._run, state.get("film"), step))

    def _restore_samples(self, tables: Sequence[Any], step: int) -> None:
        here = read_samples(self._run)
        known = {(row.step, row.number): row for row in (*parse_samples(tables), *here) if row.step <= step}
        if known or here:
            write_sample_rows(self._run, known.values())

    # ---- samples --------------------------------------------------------------------------------------------

    def samples_are_due(self, step: int) -> bool:
        every = self._rules.samples_every_steps
        if not every or not self._rules.samples or step == 0 or step % every or step == self._sampled:
            return False
        return len({row.number for row in read_samples(self._run) if row.step == step}) < self._rules.samples

    def sample(self, step: int, should_stop: Callable[[], bool]) -> None:
        """Write the sample texts of `step`, one after the other, until all are there or a stop is asked for."""
        self._sampled = step
        if not self._rules.samples or not self._may_try("samples", step):
            return
        started, asked = time.monotonic(), 0
        self._pulse.beat(state="sampling", progress=0.0)

        def look_up() -> bool:
            nonlocal asked
            failpoint("sampling.token")
            asked += 1
            self._pulse.beat(progress=min(1.0, asked / (self.tokens * self._rules.samples)))
            return should_stop()

        written = self._left_out_if_it_fails("samples", lambda: self._write(step, look_up))
        free_memory(())  # nothing of it must stand in the way of the next step
        if written:
            self._tries("samples").unlink(missing_ok=True)
            count = sum(row.step == step for row in read_samples(self._run))
            self._note("samples", f"{counted(count, 'sample text')} in {time.monotonic() - started:.1f} s")

    def _write(self, step: int, should_stop: Callable[[], bool]) -> None:
        write_samples(
            self._run,
            self._prepared.model,
            self._material.tokenizer,
            self._material.job,
            step,
            first_new_id=self._material.id_map.first_new_id,
            device=str(self._prepared.device),
            max_new_tokens=self.tokens,
            should_stop=should_stop,
        )

    def _may_try(self, what: str, step: int) -> bool:
        """Whether this process is not the next of many that die of the same texts."""
        kept = read_json(self._tries(what))
        tries = kept.get("tries", 0) if isinstance(kept, dict) and kept.get("step") == step else 0
        if tries >= TRIES:
            self._note(what, f"{what} left out: {tries} attempts ended in the middle of them")
            return False
        write_json(self._tries(what), {"step": step, "tries": tries + 1}, durable=False)
        return True

    def _tries(self, what: str) -> Path:
        return self._run.evaluation / {"samples": "sampling.json", "hopes": "measuring.json"}[what]

    # ---- the end --------------------------------------------------------------------------------------------

    def hopes(self, step: int, should_stop: Callable[[], bool]) -> None:
        """Measure what the whole job came to, once; a stop leaves it to `wake2vec-runner hopes`."""
        kept = read_hopes(self._run)
        if not self._rules.hopes or (kept and kept.step == step) or not self._may_try("hopes", step):
            return
        material, started = self._material, time.monotonic()

        def tick() -> None:
            failpoint("hopes.tick")
            self._pulse.beat(state="evaluating", detail="beside the untouched model")
            if should_stop():
                raise AskedToStop

        subject = Subject(
            run=self._run, order=material.order, model=self._prepared.model, tokenizer=material.tokenizer,
            base_tokenizer=material.base_tokenizer, id_map=material.id_map, device=self._prepared.device, step=step,
            tick=tick,
        )  # fmt: skip

        def write() -> None:
            if (found := measure(subject)) is not None:
                write_hopes(self._run, found)
                self._note("hopes", f"measured beside the untouched model in {time.monotonic() - started:.1f} s")

        free_memory(self._prepared.trainable.values())  # no gradient is needed any more
        if self._left_out_if_it_fails("hopes", write):
            self._tries("hopes").unlink(missing_ok=True)

    # ---- the film -------------------------------------------------------------------------------------------

    def add_frame(self, step: int) -> None:
        """Where the trained input rows lie at a milestone; with thousands of milestones, at some of them."""
        every = self._material.job.checkpoint.every_steps
        stride = -(-self._material.steps // (every * MOST_FRAMES))
        rows = self._prepared.trainable.get("rows", self._prepared.trainable.get("rows.input"))
        if rows is None or (step != self._material.steps and step % (every * stride)):
            return
        id_map = self._material.id_map
        base = PublishedRows(self._prepared.rows.embedding.base, id_map.first_new_id)
        seen = InMemory(rows[: len(id_map.words)])  # behind them stand the forms, or what they share
        self._left_out_if_it_fails("film", lambda: add_frame(self._run, step, seen, base, id_map.words))

    def _left_out_if_it_fails(self, what: str, make: Callable[[], None]) -> bool:
        problem = ""
        try:
            make()
        except Exception as error:  # nothing that is only looked at is worth a run
            traceback.print_exc()  # into the trainer's log
            problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if problem:
            self._note(what, f"{what} left out: {problem}")
        return not problem


@dataclass(frozen=True)
class PublishedRows:
    """The published rows in the model, a few at a time, for the film's plane."""

    base: BaseRows
    rows: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.base.width

    def read(self, start: int, stop: int) -> Array:
        return self.take(np.arange(start, min(stop, self.rows)))

    @torch.no_grad()
    def take(self, places: Places) -> Array:
        found = np.empty((len(places), self.base.width), dtype=np.float32)
        for start in range(0, len(places), 512):
            ids = torch.from_numpy(places[start : start + 512]).to(self.base.device)
            found[start : start + 512] = self.base.lookup(ids).cpu().float().numpy()
        return found

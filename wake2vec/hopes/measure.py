"""Measure what a job came to, part by part; a part that cannot be measured costs the others nothing."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from wake2vec.contract.errors import Wake2vecError
from wake2vec.hopes.context import bits, likelier
from wake2vec.hopes.english import english
from wake2vec.hopes.geometry import geometry
from wake2vec.hopes.reader import AskedToStop, Subject
from wake2vec.hopes.style import style
from wake2vec.hopes.text import JobText, most_bytes, text_of
from wake2vec.show.hopes import Figure, Hope, Hopes
from wake2vec.show.samples import SampleRow, read_samples
from wake2vec.use.sampling import Sampling

Found = Iterable[Figure | str]
NO_SAMPLES = "Style and generated words: no sample texts of this step (evaluate.samples)."


def measure(subject: Subject) -> Hopes | None:
    """None where a stop was asked for. Not a bit of the model changes."""
    figures, notes = list[Figure](), list[str]()
    rows = [row for row in read_samples(subject.run) if row.step == subject.step]
    text = cache(lambda: text_of(subject, most=most_bytes(subject)))
    parts: dict[Hope, Callable[[], Found]] = {
        Hope.CONTEXT: lambda: bits(subject, text()),
        Hope.STYLE: lambda: of_samples(subject, text(), rows),
        Hope.GEOMETRY: lambda: geometry(subject),
        Hope.ENGLISH: lambda: english(subject),
    }
    for name, part in parts.items():
        try:
            subject.tick()
            for found in part():
                if isinstance(found, Figure):
                    figures.append(found)
                else:
                    notes.append(found)
                subject.tick()
        except AskedToStop:
            return None
        except Wake2vecError as error:
            notes.append(f"{name}: not measured ({error})")
        except Exception as error:  # a figure is worth no run, nor the figures beside it
            traceback.print_exc()
            notes.append(f"{name}: not measured ({type(error).__name__}: {str(error).partition(chr(10))[0]})")
    return Hopes(step=subject.step, figures=tuple(figures), notes=tuple(notes))


def of_samples(subject: Subject, text: JobText, rows: Sequence[SampleRow]) -> Found:
    if not rows:
        yield NO_SAMPLES
        return
    yield from likelier(subject, text, [(row.prompt, row.text) for row in rows])
    untouched = [subject.untouched.go_on(row.prompt, Sampling(**row.sampling), row.seed) for row in rows]
    yield from style(subject, text, [row.text for row in rows], untouched)

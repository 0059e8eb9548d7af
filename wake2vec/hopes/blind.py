"""A blind test: passages of the model, of the untouched one and of the held-out text, shuffled, and a key apart.

All are of one length, white space is evened out, and none shows its prompt, which is held-out text for each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from wake2vec.contract.errors import InputError
from wake2vec.contract.files import read_json, write_atomic, write_json
from wake2vec.contract.options import BlindOptions
from wake2vec.contract.rundir import RunDir
from wake2vec.hopes.__main__ import subject_of
from wake2vec.hopes.reader import Subject
from wake2vec.hopes.resampling import at_least
from wake2vec.hopes.text import text_of
from wake2vec.model.device import quiet_libraries
from wake2vec.use.generate import card_to_itself, device_of
from wake2vec.use.sampling import Sampling

KINDS = ("model", "untouched", "human")
KEY, SHEET = "key.json", "sheet.txt"
LEAD = 24  # words of held-out text that a passage goes on from
HEAD = """\
{count} passages, {each} of each kind in a shuffled order. Write behind "answer:" who wrote it:
  model      the trained model
  untouched  the same model before any training
  human      the text itself, of a part that no training read
The key lies in {key}: leave it closed. Then: wake2vec-runner blind {job} --score {sheet}
"""
_PASSAGE = re.compile(r"^--- (\d+)\n[^\n]*\nanswer:([^\n]*)$", re.MULTILINE)


def run(options: BlindOptions) -> None:
    if options.score is not None:
        found = score(options.score)
        print(json.dumps(found) if options.as_json else as_text(found))
        return
    folder = options.to or RunDir(root=options.run).evaluation / "blind"
    if (folder / SHEET).exists():
        problem = "is there already, and may have answers in it"
        raise InputError(folder / SHEET, problem, "score it, or name another folder with --to")
    quiet_libraries()
    directory, device = RunDir(root=options.run), device_of(options.device)
    with card_to_itself(directory, device):
        subject = subject_of(directory, options.step, device)
        passages = written(subject, options)
    sheet = write(folder, subject, passages, options.seed)
    score_it = f"wake2vec-runner blind {subject.order.job.name} --score {quote(str(sheet))}"
    if options.as_json:
        print(json.dumps({"format": 1, "sheet": str(sheet), "key": str(folder / KEY), "score": score_it}))
    else:
        print(f"{sheet}\nkey (leave it closed): {folder / KEY}\nfilled in: {score_it}")


def written(subject: Subject, options: BlindOptions) -> dict[str, list[str]]:
    """So many passages of each kind. Raises InputError where the held-out text is too short, or a model says little."""
    most = LEAD + 2 * options.words
    parts = [part for text in text_of(subject, most=None).held_out for part in _cut(text.split(), most)]
    count = min(options.count, len(parts) // len(KINDS))
    if count < 2:
        problem = f"its held-out text has {len(parts)} stretches of {most} words, too few for a blind test"
        raise InputError(subject.run.root, problem, "ask for shorter passages with --words")
    mixed = [parts[place] for place in np.random.default_rng(options.seed).permutation(len(parts))]
    sampling = Sampling(temperature=options.temperature, max_new_tokens=4 * options.words)
    found: dict[str, list[str]] = {}
    for number, kind in enumerate(KINDS):
        mine = mixed[number * count : (number + 1) * count]
        reader = {"model": subject.trained, "untouched": subject.untouched}.get(kind)
        found[kind] = [
            " ".join(part[LEAD:])
            if reader is None
            else _from_a_word(reader.go_on(" ".join(part[:LEAD]), sampling, seed))
            for seed, part in enumerate(mine, start=options.seed)
        ]
    shortest = min(len(text.split()) for texts in found.values() for text in texts)
    if shortest < 8:
        raise InputError(subject.run.root, f"a passage ended after {shortest} words", "try another --seed")
    words = min(options.words, shortest)
    return {kind: [" ".join(text.split()[:words]) for text in texts] for kind, texts in found.items()}


def _cut(words: Sequence[str], most: int) -> list[Sequence[str]]:
    return [words[start : start + most] for start in range(0, len(words) - most + 1, most)]


def _from_a_word(text: str) -> str:
    """Without the rest of a word that a model has put behind its prompt: no passage of the text begins so."""
    return text if text[:1].isspace() else "".join(text.partition(" ")[1:])


def write(folder: Path, subject: Subject, passages: dict[str, list[str]], seed: int) -> Path:
    every = [(kind, text) for kind, texts in passages.items() for text in texts]
    shuffled = [every[place] for place in np.random.default_rng([seed, 1]).permutation(len(every))]
    job, each = subject.order.job.name, len(passages[KINDS[0]])
    head = HEAD.format(count=len(every), each=each, key=folder / KEY, job=job, sheet=quote(str(folder / SHEET)))
    body = [f"--- {number}\n{text}\nanswer:\n" for number, (_, text) in enumerate(shuffled, start=1)]
    folder.mkdir(parents=True, exist_ok=True)
    key = {str(number): kind for number, (kind, _) in enumerate(shuffled, start=1)}
    write_json(folder / KEY, {"format": 1, "job": job, "step": subject.step, "seed": seed, "key": key})
    write_atomic(folder / SHEET, "\n".join([head, *body]).encode())
    return folder / SHEET


def score(sheet: Path) -> dict[str, Any]:
    """How often a filled-in sheet is right, and what each kind was taken for. Raises InputError for one without."""
    table = read_json(sheet.parent / KEY)
    if not isinstance(table, dict) or not isinstance(table.get("key"), dict):
        raise InputError(sheet.parent / KEY, "is not the key of a sheet", "keep it beside the sheet")
    answers = {number: said.strip().lower() for number, said in _PASSAGE.findall(sheet.read_text("utf-8"))}
    unknown = [f"{number} ({said})" for number, said in answers.items() if said and said not in KINDS]
    if unknown or not any(answers.values()):
        problem = f"has answers that are none: {', '.join(unknown)}" if unknown else "has no answers"
        raise InputError(sheet, problem, f"write one of {', '.join(KINDS)}")
    given = [(table["key"][number], said) for number, said in answers.items() if said and number in table["key"]]
    right = sum(kind == said for kind, said in given)
    taken = {kind: {said: given.count((kind, said)) for said in KINDS} for kind in KINDS}
    chance = 1 / len(KINDS)
    return {
        "format": 1, "job": table.get("job"), "step": table.get("step"), "answered": len(given),
        "of": len(table["key"]), "right": right, "by_chance": len(given) * chance,
        "p": at_least(right, len(given), chance), "taken_for": taken,
    }  # fmt: skip


def as_text(found: dict[str, Any]) -> str:
    lines = [
        f"{found['job']}, step {found['step']}: {found['right']} of {found['answered']} answers right, "
        f"{found['by_chance']:.1f} by chance (p {found['p']:.3f}); {found['of'] - found['answered']} left open"
    ]
    for kind, said in found["taken_for"].items():
        lines.append(f"  {kind:<9} taken for " + ", ".join(f"{name} {count}" for name, count in said.items()))
    return "\n".join(lines)

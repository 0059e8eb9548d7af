"""Whether groups of words say anything about the words that a job trains, told before it is queued."""

from __future__ import annotations

from collections.abc import Mapping

from runner.jobfile.reach import parts
from runner.jobfile.read import Resolved
from runner.jobfile.source_job import SourceJob
from wake2vec.contract.errors import Fault
from wake2vec.contract.files import counted
from wake2vec.contract.words.groups import (
    ENOUGH_PAIRS,
    large_enough,
    members,
    power_left,
    read_groups,
    screen,
    words_in,
)
from wake2vec.contract.words.lexicon import read_lexicon


def groups_fit(resolved: Resolved, known: Mapping[str, SourceJob]) -> tuple[list[Fault], list[str]]:
    """Faults and remarks. What the tokenizer leaves of the pairs only the trainer can tell; it can only be fewer."""
    table, words = resolved.job.morphemes, words_below(resolved, known)
    if table is None or words is None:
        return [], []
    path = next(resolved.files[item.sha256] for item in resolved.inputs if item.role == "groups")
    groups = read_groups(path, "morpheme")
    used = [one for one in groups if one.name not in table.exclude]
    lost = [name for name in table.exclude if name not in {one.name for one in groups}]
    remarks = [f"{path.name}: no group is called {name} (morphemes.exclude)" for name in lost]
    corpora = [resolved.files[item.sha256] for item in resolved.inputs if item.role == "corpus"]
    attested = words | words_in(parts(corpora))
    found = screen(used, rows=words, attested=attested, any_pair=table.pairs == "any")
    pairs = large_enough(found.pairs, table.min_pairs)
    named, held = sum(len(one.words) for one in used), table.held_out
    if not pairs:
        problem = (
            f"of {counted(named, 'pair')} in {counted(len(used), 'group')} {len(found.pairs):,} have a word of the"
        )
        problem += f" {len(words):,} that train, in no group {table.min_pairs} of them; are these the groups of another"
        problem += " word list?"
        return [Fault(key="morphemes.groups", problem=problem)], []
    remarks.append(f"{len(pairs):,} of {named:,} pairs may train, in {len({pair.group for pair in pairs}):,} groups")
    remarks += found.remarks(path.name)
    if len(pairs) < ENOUGH_PAIRS:
        remarks.append(power_left(len(pairs), held))
    devices = next((item for item in resolved.inputs if item.role == "devices"), None)
    if devices is not None:
        kept = list(members(read_groups(resolved.files[devices.sha256], "device"), words))
        classes = len({device for _, device in kept})
        if classes < 2:
            problem = f"{len(kept):,} of its words train, in {counted(classes, 'device')}; two are needed"
            return [Fault(key="devices.groups", problem=problem)], []
        asked = resolved.job.devices
        apart = f", about {asked.held_out:.0%} of them held out" if asked and asked.held_out else ""
        remarks.append(f"{len(kept):,} device words, in {classes} devices{apart}")
    return [], remarks


def words_below(resolved: Resolved, known: Mapping[str, SourceJob]) -> set[str] | None:
    """The word list of the P1 at the bottom, or of the job itself; None where it lies in the store alone."""
    inputs, files, after = resolved.inputs, resolved.files, resolved.job.after
    while True:
        item = next((item for item in inputs if item.role == "lexicon"), None)
        if item is not None:
            path = files.get(item.sha256)
            return set(read_lexicon(path).words) if path is not None and path.is_file() else None
        source = known.get(after or "")
        if source is None:
            return None
        inputs, files, after = list(source.inputs), dict(source.files), source.spec.after

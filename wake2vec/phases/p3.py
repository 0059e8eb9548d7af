"""P3: the rows and adapters of a P2 go on training, together with losses that give the rows a structure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from wake2vec.contract.errors import InputError
from wake2vec.contract.files import counted
from wake2vec.contract.spec import P3Spec
from wake2vec.contract.words.groups import ENOUGH_PAIRS, members, power_left, read_groups, screen, words_in
from wake2vec.data.corpus import open_corpus
from wake2vec.data.tokens import pieces
from wake2vec.phases import p2
from wake2vec.phases.base import Prepared
from wake2vec.phases.inputs import JobInputs, input_paths
from wake2vec.structure.auxiliary import Auxiliary, Side, norms_of, untouched_like
from wake2vec.structure.chosen import Chosen, choose

export = p2.export


def prepare(material: JobInputs) -> Prepared:
    chosen, told = choose_pairs(material)  # a group file for other words is told before minutes of loading
    prepared = p2.prepare(material)
    return replace(prepared, structure=dress(material, prepared, chosen, told))


def choose_pairs(material: JobInputs) -> tuple[Chosen, list[str]]:
    """What trains of the groups, and what there is to say about the rest. Raises InputError where nothing does."""
    job, id_map = material.job, material.id_map
    assert isinstance(job, P3Spec), "the table of phases"
    table = job.morphemes
    (path,) = input_paths(material.order, "groups")
    groups = [one for one in read_groups(path, "morpheme") if one.name not in table.exclude]
    text = open_corpus(input_paths(material.order, "corpus"))
    attested = {entry.word for entry in id_map.entries} | words_in(text.pieces())
    rows = set(id_map.words)
    screened = screen(groups, rows=rows, attested=attested, any_pair=table.pairs == "any")
    device_files = input_paths(material.order, "devices")
    named = [one for file in device_files for one in members(read_groups(file, "device"), rows)]
    known = {entry.word: [entry.id] for entry in id_map.entries}
    others = sorted({text for pair in screened.pairs for text in (pair.word, pair.base)} - set(known))
    ids = known | (dict(zip(others, pieces(others, material.tokenizer), strict=True)) if others else {})
    chosen = choose(
        screened.pairs,
        named,
        ids,
        first_new_id=id_map.first_new_id,
        seed=job.data.seed,
        held_out=table.held_out,
        devices_held_out=job.devices.held_out if job.devices else 0.0,
        min_pairs=table.min_pairs,
        shuffle=table.shuffle,
        whole=table.pairs == "whole",
    )
    told = screened.remarks("groups") + [
        f"{counted(count, 'pair')} left out: {why}" for why, count in chosen.left_out.items()
    ]
    if not len(chosen.train):
        remedy = "use the groups of this word list (wake2vec-runner morphemes LIST --derive), or a smaller min_pairs"
        raise InputError("morphemes.groups", "; ".join(["no pair is left to train", *told]), remedy)
    trains = f"{len(chosen.train):,} pairs in {len(chosen.groups)} groups train, {len(chosen.held):,} are held out"
    devices = [f"{len(chosen.members):,} words in {len(chosen.devices)} devices"] if len(chosen.members) else []
    if apart := int(chosen.apart.sum()):
        devices = [f"{devices[0]}, {apart:,} of them held out"]
    few = len(chosen.train) + len(chosen.held)
    weak = [power_left(few, table.held_out)] if few < ENOUGH_PAIRS else []
    return chosen, [trains, *devices, *told, *weak]


def dress(material: JobInputs, prepared: Prepared, chosen: Chosen, told: list[str]) -> Auxiliary:
    """The auxiliary part of each step, on the rows as they are now: at the start, before any checkpoint is loaded."""
    job, rows = material.job, prepared.rows
    assert isinstance(job, P3Spec), "the table of phases"
    counts = material.blocks.occurrences(material.id_map.n_ids)[material.id_map.first_new_id :]
    untouched = untouched_like(chosen.rows, counts)
    on = job.geometry.on if rows.mode != "shared" else "input"
    parts: dict[str, tuple[nn.Parameter, Any]] = {
        "input": (rows.embedding.rows, rows.embedding.base),
        "output": (rows.head.rows, rows.head.base),
    }

    def side(name: str) -> Side:
        parameter, base = parts[name]
        mean, deviation = norms_of(base, material.id_map.first_new_id)
        with torch.no_grad():
            return Side(
                name=name,
                rows=parameter,
                base=base.lookup(chosen.base_ids.to(prepared.device)).float(),
                start=parameter[chosen.rows.to(parameter.device)].cpu().float(),
                untouched_start=parameter[untouched.to(parameter.device)].cpu().float(),
                mean_norm=mean,
                norm_deviation=deviation,
            )

    return Auxiliary(
        chosen,
        [side(name) for name in parts if on in (name, "both")],
        untouched,
        morphemes=job.morphemes,
        devices=job.devices,
        geometry=job.geometry,
        seed=job.train.seed,
        told=told,
    )

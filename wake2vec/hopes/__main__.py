"""hopes: measure again what a job came to, or for the first time where its end came before there were such figures."""

from __future__ import annotations

import torch

from wake2vec.contract.options import HopesOptions
from wake2vec.contract.rundir import RunDir
from wake2vec.hopes.measure import measure
from wake2vec.hopes.reader import Subject
from wake2vec.model.device import quiet_libraries
from wake2vec.phases.identity import trained_order
from wake2vec.phases.inputs import input_paths, load_tokenizer
from wake2vec.show.hopes import as_text, write_hopes
from wake2vec.use.assemble import assemble
from wake2vec.use.generate import card_to_itself, device_of, newest
from wake2vec.vocab.idmap import load as load_id_map


def run(options: HopesOptions) -> None:
    quiet_libraries()
    directory, device = RunDir(root=options.run), device_of(options.device)
    with card_to_itself(directory, device):
        subject = subject_of(directory, options.step, device)
        input_paths(subject.order, "corpus")  # without it there would be fewer figures than there may be already
        found = measure(subject)
    assert found is not None, "nobody asks it to stop"
    path = write_hopes(directory, found)
    print(path.with_suffix(".json").read_text("utf-8") if options.as_json else as_text(found), end="")


def subject_of(run: RunDir, step: str, device: torch.device) -> Subject:
    """The model of a job put together again. Raises Wake2vecError."""
    order = trained_order(run)
    built = assemble(run, order, newest(run, step), device)
    table = order.training.model
    return Subject(
        run=run, order=order, model=built.model, tokenizer=built.tokenizer, id_map=load_id_map(run.id_map),
        base_tokenizer=load_tokenizer(table.base, table), device=device, step=built.step,
    )  # fmt: skip

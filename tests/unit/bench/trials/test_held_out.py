"""Held-out bytes: forms of words, bits, and what an interval says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bench.trials.held_out import ALL, NEW, SKIPPED, Measured, held_out, interval, per_byte
from wake2vec.contract.words.forms import Form
from wake2vec.data.blocks import Windows
from wake2vec.data.corpus import open_corpus

TEXT = "He met a mole. Moles run, and the river\nmole swam past the bank of it; " * 40 + "\n\n"


@pytest.fixture
def there(tmp_path: Path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT * 12)
    return held_out(open_corpus([path]), ["mole", "moles"])


def test_each_byte_of_a_word_has_its_form_with_the_space_before_it(there):
    sums = there.by_form(np.ones(len(there.span)))
    order = list(Form)
    sizes = {form: sums[:, 1 + order.index(form)].sum() for form in Form}

    assert sizes[Form.SPACED] > 0
    assert sizes[Form.SPACED] % len(" mole") == 0
    assert sizes[Form.BARE] > 0
    assert sizes[Form.BARE] % len("\nmole") == 0  # the break before it counts
    assert sizes[Form.SPACED_CAPITALISED] > 0
    assert there.by_form(np.ones(len(there.span))).sum() == len(there.span) - SKIPPED * there.spans


def test_words_are_told_by_how_often_they_were_met(there):
    never, seldom, often = there.by_met(np.ones(len(there.span)), np.array([2, 0]))

    assert seldom > 0
    assert never == often == 0


def test_nats_are_spread_over_the_bytes_of_a_token():
    windows = Windows(
        inputs=np.array([[5, 6]]),
        targets=np.array([[6, -100]]),
        bytes=np.array([[4, 0]]),
        places=np.array([[2, 0]]),
    )

    nats, covered = per_byte(lambda inputs, targets: torch.full(targets.shape, 2.0), windows, 8, "cpu")

    assert nats.tolist() == [0, 0, 0.5, 0.5, 0.5, 0.5, 0, 0]
    assert covered.sum() == 4


def spans(nats: list[float]) -> Measured:
    values = np.zeros((len(nats), len(ALL)))
    values[:, NEW[0]] = nats
    size = np.zeros_like(values)
    size[:, NEW[0]] = 10
    return Measured(nats=values, bytes=size)


def test_a_difference_that_every_span_has_is_no_noise_and_one_that_some_have_is():
    ours = spans([1.0, 2.0, 3.0, 4.0] * 5)

    low, high = interval(ours, spans([1.5, 2.5, 3.5, 4.5] * 5), NEW)
    wide = interval(ours, spans([2.0, 1.0, 4.0, 3.0] * 5), NEW)

    assert 0 < low <= high
    assert wide[0] < 0 < wide[1]


def test_validation_and_reported_spans_share_nothing():
    one = spans([float(place) for place in range(9)])

    assert one.part(validation=True).nats[:, NEW[0]].tolist() == [0, 3, 6]
    assert one.part(validation=False).nats[:, NEW[0]].tolist() == [1, 2, 4, 5, 7, 8]

"""Starting rows follow their formulas, word by word."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from wake2vec.contract.errors import InputError
from wake2vec.data.tokens import pieces
from wake2vec.vocab.initial import Method, initial_rows
from wake2vec.vocab.inject import Injection, inject
from wake2vec.vocab.morphemes import parts_of, read_affixes

WORDS = ["riverrun", "prankquean", "unseaness", "paùpulation"]
D = 16


@pytest.fixture(scope="module")
def done(byte_level: Any, tmp_path_factory: pytest.TempPathFactory) -> Injection:
    return inject(byte_level, WORDS, directory=tmp_path_factory.mktemp("injected"))


@pytest.fixture(scope="module")
def weight(byte_level: Any) -> torch.Tensor:
    torch.manual_seed(0)
    padded = torch.randn(len(byte_level) + 50, D) * torch.linspace(0.5, 2, D) + 0.3
    padded[len(byte_level) :] = 1e6  # padding rows, which no statistic may see
    return padded


def rows(done: Injection, weight: torch.Tensor, base: Any, method: Method, **options: Any) -> torch.Tensor:
    return initial_rows(done.id_map, weight, method=method, seed=7, tokenizer=base, **options)


def test_mean_is_the_mean_of_base_rows(done: Injection, weight: torch.Tensor, byte_level: Any) -> None:
    found = rows(done, weight, byte_level, "mean")

    expected = weight[: len(byte_level)].double().mean(0).float()
    torch.testing.assert_close(found, expected.expand(4, D))


def test_mean_noise_spreads_by_a_tenth_of_each_dimension(byte_level: Any, weight: torch.Tensor, tmp_path: Path) -> None:
    many = inject(
        byte_level, [f"wakeword{'abcdefghij'[n % 10] * (n // 10 + 1)}" for n in range(400)], directory=tmp_path
    )

    found = rows(many, weight, byte_level, "mean_noise", scale=2.0)

    base = weight[: len(byte_level)]
    torch.testing.assert_close(found.std(0), 0.2 * base.std(0), rtol=0.15, atol=0)
    torch.testing.assert_close(found.mean(0), base.mean(0), rtol=0, atol=0.06)


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_spherical_rows_lie_on_the_sphere(done: Injection, weight: torch.Tensor, byte_level: Any, scale: float) -> None:
    found = rows(done, weight, byte_level, "spherical", scale=scale)

    radius = scale * weight[: len(byte_level)].double().std(correction=0) * math.sqrt(D)
    torch.testing.assert_close(found.norm(dim=1), radius.float().expand(4))


def test_subwords_are_the_mean_of_the_pieces(done: Injection, weight: torch.Tensor, byte_level: Any) -> None:
    found = rows(done, weight, byte_level, "subwords")

    for row, word in enumerate(WORDS):
        ids = byte_level(f" {word}", add_special_tokens=False)["input_ids"]
        torch.testing.assert_close(found[row], weight[ids].double().mean(0).float())


def test_compositional_rows_weigh_root_and_affixes(done: Injection, weight: torch.Tensor, byte_level: Any) -> None:
    found = rows(done, weight, byte_level, "compositional")

    prefix, root, suffix = (weight[ids].double().mean(0) for ids in pieces(["un", "sea", "ness"], byte_level))
    expected = 0.25 * prefix + 0.5 * root + 0.25 * suffix
    noise = 0.01 * weight[: len(byte_level)].std()
    assert (found[2] - expected).abs().max() < 5 * noise
    assert (found[2] - expected).abs().max() > 0


@pytest.mark.parametrize("method", get_args(Method))
def test_a_row_depends_on_its_word_and_not_on_the_lexicon(
    done: Injection, weight: torch.Tensor, byte_level: Any, method: Method, tmp_path: Path
) -> None:
    other = inject(byte_level, ["gracehoper", *reversed(WORDS)], directory=tmp_path)

    shuffled = rows(other, weight, byte_level, method)

    for row, word in enumerate(WORDS):
        assert torch.equal(rows(done, weight, byte_level, method)[row], shuffled[other.id_map.words.index(word)])


def test_seeds_and_matrices_have_noise_of_their_own(done: Injection, weight: torch.Tensor, byte_level: Any) -> None:
    one = rows(done, weight, byte_level, "spherical")

    assert not torch.allclose(one, rows(done, weight, byte_level, "spherical", part="output"))
    other = initial_rows(done.id_map, weight, method="spherical", seed=8, tokenizer=byte_level)
    assert not torch.allclose(one, other)


def test_rows_are_fp32_from_a_matrix_in_half_precision(done: Injection, weight: torch.Tensor, byte_level: Any) -> None:
    assert rows(done, weight[: len(byte_level)].half(), byte_level, "subwords").dtype == torch.float32


def test_the_changed_tokenizer_is_refused_as_the_base(done: Injection, weight: torch.Tensor) -> None:
    with pytest.raises(InputError, match="pass the base model's own tokenizer"):
        rows(done, weight, done.tokenizer, "subwords")


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("unhappiness", ("un", "happi", "ness")),
        ("riverrun", ("", "riverrun", "")),
        ("reding", ("re", "ding", "")),
        ("the", ("", "the", "")),
        ("ab", ("", "ab", "")),
    ],
)
def test_words_come_apart_by_their_longest_affixes(word: str, parts: tuple[str, str, str]) -> None:
    assert parts_of(word) == parts


def test_a_table_of_affixes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "morphemes.csv"
    path.write_text("kind,form\nprefix,river-\nsuffix,-run\n\nsuffix, ùn \n", encoding="utf-8")

    affixes = read_affixes(path)

    assert parts_of("riverestrun", affixes) == ("river", "est", "run")
    assert "ùn" in affixes.suffixes


def test_a_faulty_table_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "morphemes.csv"
    path.write_text("prefix,un\ninfix,bloody\n")

    with pytest.raises(InputError, match=r"morphemes\.csv: line 2: 'infix,bloody'"):
        read_affixes(path)

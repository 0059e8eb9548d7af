"""Groups out of a word list: the longest affix whose base is a word, and nothing without one."""

from __future__ import annotations

import json

import pytest

from wake2vec.contract.errors import InputError
from wake2vec.contract.options import MorphemesOptions
from wake2vec.contract.words.groups import Pair, read_groups
from wake2vec.vocab.derive import derive, pair_of, run
from wake2vec.vocab.morphemes import Affixes

AFFIXES = Affixes(prefixes=frozenset({"un"}), suffixes=frozenset({"ness", "s", "ing", "ed", "ly"}))


@pytest.mark.parametrize(
    ("word", "base"),
    [
        ("darkness", "dark"), ("happiness", "happy"), ("making", "make"), ("running", "run"), ("robbed", "rob"),
        ("Darkly", "dark"), ("war-ing", "war"),
    ],
)  # fmt: skip
def test_a_suffix_leaves_the_word_as_it_was_before_it(word, base):
    found = pair_of(word, AFFIXES, {"dark", "happy", "make", "run", "rob", "war"}, "suffix")

    assert found is not None
    assert found.base == base


def test_the_longest_affix_comes_first_and_a_string_cut_is_no_base():
    assert pair_of("darkness", AFFIXES, {"dark", "darknes"}, "suffix") == Pair(
        group="-ness", word="darkness", base="dark"
    )
    assert pair_of("darkness", AFFIXES, {"night"}, "suffix") is None
    assert pair_of("bus", AFFIXES, {"bu"}, "suffix") is None
    assert pair_of("unkind", AFFIXES, {"kind"}, "prefix") == Pair(group="un-", word="unkind", base="kind")


def test_a_group_has_so_many_pairs_at_least_and_at_most_and_a_draw_stays_the_same():
    words = [f"word{letter}s" for letter in "abcdefgh"] + ["darkness"]
    attested = {word[:-1] for word in words} | {"dark"}

    found = derive(words, attested, AFFIXES, least=3, cap=5)

    assert {pair.group for pair in found} == {"-s"}
    assert len(found) == 5
    assert found == derive(words, attested, AFFIXES, least=3, cap=5)


def test_the_tool_writes_a_file_that_is_read_again_and_shows_pairs_of_each_group(tmp_path, capsys):
    lexicon, text, out = (tmp_path / name for name in ("words.txt", "text.txt", "groups.jsonl"))
    lexicon.write_text("walking\ntalking\nsinging\n")
    text.write_text("They walk and talk and sing.")

    run(MorphemesOptions(derive=True, lexicon=lexicon, corpora=[text], out=out, as_json=True))

    told = json.loads(capsys.readouterr().out)
    assert (told["pairs"], told["groups"][0]["morpheme"]) == (3, "-ing")
    assert "walking < walk" in told["groups"][0]["shown"]
    assert read_groups(out, "morpheme")[0].bases == ("sing", "talk", "walk")
    run(MorphemesOptions(groups=out, lexicon=lexicon, corpora=[text]))
    assert "3 pairs in 1 group, of 3 words" in capsys.readouterr().out
    run(MorphemesOptions(groups=out))
    assert capsys.readouterr().out.startswith("3 pairs in 1 group\n")


def test_a_list_without_any_base_is_told(tmp_path):
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("walking\ntalking\nsinging\n")

    with pytest.raises(InputError, match="leaves 3 bases that exist"):
        run(MorphemesOptions(derive=True, lexicon=lexicon))

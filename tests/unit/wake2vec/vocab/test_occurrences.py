"""Each place of a new word is counted as its token, as one published token, or as pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wake2vec.contract.words.forms import Form
from wake2vec.vocab.inject import inject
from wake2vec.vocab.occurrences import Places, count

TEXT = "See riverrun past\nriverrun, Riverrun and a Prankquean. The church, Church; the people’s churchx riverruns.\n"


def test_every_place_is_one_of_three_kinds(byte_level: Any, tmp_path: Path) -> None:
    made = inject(byte_level, ["riverrun", "prankquean", "THE", "missing"], directory=tmp_path / "tokenizer")

    found = count([TEXT, TEXT], made.tokenizer, made.id_map)

    assert found.by_form[Form.SPACED] == Places(occurrences=2, met=2)
    assert found.by_form[Form.BARE] == Places(occurrences=2)
    assert found.by_form[Form.SPACED_CAPITALISED] == Places(occurrences=4)
    assert found.by_form[Form.OTHER] == Places(occurrences=4, base=2)  # " the" is published, "The" is not
    assert (found.types_present, found.types_never_met, found.base_wins) == (3, 2, 0)
    assert found.never_met == ("THE", "prankquean")
    assert found.as_json()["occurrences"] == sum(row["occurrences"] for row in found.as_json()["by_form"].values())

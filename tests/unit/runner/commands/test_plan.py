from __future__ import annotations

import json

import pytest

from runner.commands.plan import run
from runner.errors import RunnerError
from tests.unit.runner.folders import P1, write_jobs
from tests.unit.test_jobs import JOBS
from wake2vec.contract.errors import OutOfMemory, SpecError

CONFIG = {
    "model_type": "llama", "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128,
    "num_attention_heads": 4, "vocab_size": 512, "tie_word_embeddings": True,
}  # fmt: skip


def test_memory_and_time_are_told_part_by_part(capsys):
    run([JOBS / "qwen_p1.toml"], gpu="t4", new_words=44_223, as_json=False)

    said = capsys.readouterr().out
    assert "qwen_p1: P1 of Qwen/Qwen2.5-14B with up to 44,223 new words" in said
    assert "frozen body" in said
    assert "fits a T4 with 14.6 GiB" in said
    assert "for 1,300 steps" in said


def test_json_adds_up(capsys):
    run([JOBS / "qwen_p1.toml", JOBS / "qwen_p2.toml"], gpu="T4", new_words=44_223, as_json=True)

    p1, p2 = json.loads(capsys.readouterr().out)
    assert p1["fits"]
    assert p1["needed_gib"] == pytest.approx(sum(p1["parts_bytes"].values()) / 2**30 + 0.45, abs=1e-2)
    assert (p1["parts_bytes"]["adapters"], p2["parts_bytes"]["adapters"] > 0) == (0, True)


def test_a_model_folder_is_measured_by_its_config_and_the_words_by_the_list(tmp_path, capsys):
    write_jobs(tmp_path)
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "words.txt").write_text("riverrun\nwassaily\n\nriverrun\n")

    run([tmp_path / "a_p1.toml", tmp_path / "a_p2.toml"], gpu="t4", new_words=None, as_json=True)

    assert [one["new_words"] for one in json.loads(capsys.readouterr().out)] == [2, 2]


def test_forms_with_rows_of_their_own_are_counted_as_rows(tmp_path, capsys):
    write_jobs(tmp_path)
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "text.txt").write_text("riverrun, Riverrun RIVERRUN and riverrun " * 200)
    file, found = tmp_path / "a_p1.toml", {}

    for forms in ("one", "shared", "separate"):
        file.write_text(P1.replace("[vocab]", f'[vocab]\nforms = "{forms}"'))
        run([file], gpu="t4", new_words=None, as_json=True)
        found[forms] = json.loads(capsys.readouterr().out)[0]["new_words"]

    assert found == {"one": 1, "shared": 1, "separate": 4}  # itself, bare at the start, and two in other capitals


def test_a_job_that_fits_no_way_ends_with_its_name(capsys):
    with pytest.raises(OutOfMemory, match="qwen_p1: no plan fits a T4"):
        run([JOBS / "qwen_p1.toml"], gpu="t4", new_words=1_000_000, as_json=False)

    assert "does not fit" in capsys.readouterr().out


def test_an_unknown_card_shape_or_list_is_named(tmp_path):
    write_jobs(tmp_path)

    with pytest.raises(RunnerError, match="--gpu t5: not known; known are t4"):
        run([JOBS / "qwen_p1.toml"], gpu="t5", new_words=1, as_json=False)
    with pytest.raises(SpecError, match="the shape of model is not known"):
        run([tmp_path / "a_p1.toml"], gpu="t4", new_words=1, as_json=False)
    (tmp_path / "words.txt").unlink()
    with pytest.raises(SpecError, match=r"words\.txt: cannot be read; say --new-words N"):
        run([tmp_path / "a_p1.toml"], gpu="t4", new_words=None, as_json=False)


def test_two_cards_halve_a_step_but_for_what_adding_up_their_gradients_takes(capsys):
    jobs = [JOBS / "qwen_p1.toml", JOBS / "qwen_p2.toml"]
    run(jobs, gpu="t4", new_words=44_223, as_json=True)
    alone = json.loads(capsys.readouterr().out)
    run(jobs, gpu="t4", new_words=44_223, as_json=True, cards=2)
    shared = json.loads(capsys.readouterr().out)
    run(jobs[:1], gpu="t4", new_words=44_223, as_json=False, cards=2)

    for one, two in zip(alone, shared, strict=True):
        assert two["fits"]
        assert 1.8 < one["step_seconds_at_least"] / two["step_seconds_at_least"] <= 2
        assert two["exchange_seconds"] == pytest.approx(two["parts_bytes"]["gradients"] / 5e9, abs=1e-3)
    assert "fits each of 2 T4" in (said := capsys.readouterr().out)
    assert "to add up the cards' gradients" in said
    with pytest.raises(SpecError, match="32 cards cannot share the 16 blocks"):
        run(jobs, gpu="t4", new_words=1, as_json=True, cards=32)


def test_a_model_too_large_for_one_card_has_its_layers_dealt_out_and_both_ways_are_told(tmp_path, capsys):
    large = tmp_path / "large_p1.toml"
    large.write_text((JOBS / "qwen_p1.toml").read_text().replace("Qwen/Qwen2.5-14B", "Qwen/Qwen2.5-32B"))
    run([large, JOBS / "qwen_p1.toml"], gpu="t4", new_words=44_223, as_json=True, cards=2)
    dealt, whole = json.loads(capsys.readouterr().out)
    run([large], gpu="t4", new_words=44_223, as_json=False, cards=2)
    said = " ".join(capsys.readouterr().out.split())

    assert (dealt["fits"], dealt["spread"], sum(dealt["layers"])) == (True, "layers", 64)
    assert not dealt["other_way"]["fits"]
    assert 0 < dealt["waiting"] < 0.5
    assert (whole["fits"], whole["spread"], whole["layers"]) == (True, "samples", [])
    assert whole["other_way"]["fits"]
    assert whole["step_seconds_at_least"] < whole["other_way"]["step_seconds_at_least"]
    assert f"fits each of 2 T4 with 14.6 GiB for {dealt['layers'][0]} + {dealt['layers'][1]} layers" in said
    assert "or, with the model on each card: does not fit each of 2 T4" in said
    with pytest.raises(OutOfMemory, match="no plan fits a T4; try a larger --gpu, more --cards"):
        run([large], gpu="t4", new_words=44_223, as_json=True)


def test_only_layers_go_over_more_cards_than_a_step_has_blocks_and_only_where_they_can(tmp_path, capsys):
    large, small = tmp_path / "large.toml", tmp_path / "small.toml"
    for file, of in ((large, "qwen_p1.toml"), (small, "distilgpt2_p1.toml")):
        file.write_text((JOBS / of).read_text().replace("[train]", '[train]\nspread = "layers"'))
    run([large], gpu="t4", new_words=10, as_json=True, cards=32)
    (dealt,) = json.loads(capsys.readouterr().out)
    run([JOBS / "distilgpt2_p1.toml"], gpu="t4", new_words=10, as_json=True, cards=2)
    (whole,) = json.loads(capsys.readouterr().out)

    assert (dealt["spread"], len(dealt["layers"]), dealt["other_way"]) == ("layers", 32, None)
    assert (whole["spread"], whole["other_way"]) == ("samples", None)
    with pytest.raises(SpecError, match=r"train.cards: 49 cards for the 48 layers of Qwen"):
        run([large], gpu="t4", new_words=10, as_json=True, cards=49)
    with pytest.raises(SpecError, match=r"train.spread: gpt2 does more than its layers do; its layers cannot"):
        run([small], gpu="t4", new_words=10, as_json=True, cards=2)


def test_rows_in_16_bits_are_said_and_weigh_half_in_the_p1_and_in_what_stands_on_it(tmp_path, capsys):
    write_jobs(tmp_path)
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG))
    file, found = tmp_path / "a_p1.toml", {}
    p2 = (tmp_path / "a_p2.toml").read_text() + '\n[lora]\ntrain = "lora+rows"\n'
    (tmp_path / "a_p2.toml").write_text(p2)

    for dtype in ("fp32", "bf16"):
        file.write_text(P1.replace("[vocab]", f'[vocab]\ndtype = "{dtype}"'))
        run([file, tmp_path / "a_p2.toml"], gpu="t4", new_words=None, as_json=True)
        found[dtype] = json.loads(capsys.readouterr().out)
        run([file, tmp_path / "a_p2.toml"], gpu="t4", new_words=1000, as_json=False)
        assert capsys.readouterr().out.count("1,000 new words, their rows in bf16") == (2 if dtype == "bf16" else 0)

    for wide, narrow in zip(*found.values(), strict=True):
        assert (wide["rows_in"], narrow["rows_in"]) == ("fp32", "bf16")
        assert wide["parts_bytes"]["rows"] == 2 * narrow["parts_bytes"]["rows"]
        for part in ("gradients", "optimizer"):
            assert wide["parts_bytes"][part] == narrow["parts_bytes"][part]

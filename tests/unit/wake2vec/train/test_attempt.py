"""One attempt inside this process: resume, fall back, refuse, export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.machine import JOBS
from tests.tiny import adopt, loop_for, material_for, order_for, prepared_for, run_of
from wake2vec.contract.errors import CheckpointCorrupt, InputError, ModelChanged, ModelError, StackChanged
from wake2vec.contract.files import digest_file, read_json, write_json
from wake2vec.contract.manifest import MANIFEST, saved_steps
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import RunDir
from wake2vec.model.device import copy_to_host
from wake2vec.model.new_rows import install_rows
from wake2vec.phases.inputs import JobInputs, read_inputs, total_steps
from wake2vec.phases.p1 import export, prepare
from wake2vec.phases.parity import PublishedOutputs, as_published, check_parity, load
from wake2vec.train.attempt import show, words_met
from wake2vec.train.loop import Loop
from wake2vec.train.schedule import warmup_steps
from wake2vec.train.stopping import Stop


def nothing() -> None:
    return None


def end(loop: Loop) -> dict[str, Any]:
    """Everything that must be the same bits."""
    measured = [
        {key: value for key, value in row.items() if key not in ("seconds", "attempt")}
        for row in loop.progress.rows
        if row["kind"] != "event"
    ]
    tensors = copy_to_host(loop.prepared.tensors) | copy_to_host(loop.optimizer.state_tensors())
    # as bytes: NumPy has no bf16
    return {
        "rows": measured,
        **{name: one.reshape(-1).view(torch.uint8).numpy().tobytes() for name, one in tensors.items()},
    }


def test_a_loop_that_was_stopped_and_resumed_ends_in_the_same_bits(tmp_path: Path) -> None:
    order = order_for(tmp_path, train__steps=6, checkpoint__every_steps=2, evaluate__every_steps=3)
    uncut = loop_for(material_for(tmp_path, order, "uncut"))
    uncut.run_to_end(nothing)
    stop = Stop()
    material = material_for(tmp_path, order)
    first = loop_for(material, stop)
    first.stepper.run = asking_after(first, stop, steps=4)  # type: ignore[method-assign]

    assert first.run_to_end(nothing).outcome == "yielded"
    second = loop_for(material)
    assert second.progress.step == 4
    assert second.run_to_end(nothing).outcome == "completed"

    assert end(second) == end(uncut)


@pytest.fixture(scope="session")
def untied_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model with a head of its own, which starts as a copy and is then made another matrix."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("untied")
    shutil.copytree(JOBS / "tiny" / "model", folder, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.config.tie_word_embeddings = False
    generator = torch.Generator().manual_seed(5)
    weight = model.get_input_embeddings().weight.detach().clone()
    model.lm_head.weight = torch.nn.Parameter(weight + 0.01 * torch.randn(weight.shape, generator=generator))
    model.save_pretrained(folder)
    return str(folder)


def test_an_attempt_says_once_what_the_parts_of_its_start_took(tmp_path: Path) -> None:
    order = order_for(tmp_path, train__steps=4)
    loop = loop_for(material_for(tmp_path, order))

    result = loop.run_to_end(nothing)

    said = [row for row in loop.progress.rows if row.get("event") == "start"]
    assert [row["step"] for row in said] == [1]
    assert list(said[0]["seconds"])[-3:] == ["evaluation", "pictures", "first step"]
    assert said[0]["seconds"] == result.start_seconds == loop.pulse.now.start_seconds


@pytest.mark.parametrize("load", [pytest.param("fp32", marks=pytest.mark.sweep), "nf4"])
def test_an_untied_calibrated_job_resumes_in_the_same_bits(tmp_path: Path, untied_model: str, load: str) -> None:
    order = order_for(
        tmp_path, model__base=untied_model, model__load=load, train__steps=4, checkpoint__every_steps=2,
        evaluate__every_steps=4,
    )  # fmt: skip
    uncut = loop_for(material_for(tmp_path, order, "uncut"))
    assert set(uncut.prepared.trainable) == {"rows.input", "rows.output"}
    assert order.job.vocab
    assert order.job.vocab.calibrate
    uncut.run_to_end(nothing)
    stop = Stop()
    material = material_for(tmp_path, order)
    first = loop_for(material, stop)
    first.stepper.run = asking_after(first, stop, steps=2)  # type: ignore[method-assign]
    first.run_to_end(nothing)

    second = loop_for(material)
    second.run_to_end(nothing)

    assert end(second) == end(uncut)


def asking_after(loop: Loop, stop: Stop, steps: int) -> Any:
    """The stepper, but a stop is asked for when so many steps are complete."""
    take = loop.stepper.run

    def run(step: int, **options: Any) -> Any:
        result = take(step, **options)
        if step + 1 == steps:
            stop.ask("for this test")
        return result

    return run


# no rolling checkpoint, however slow the machine is
FOUR: dict[str, Any] = {
    "train__steps": 4, "checkpoint__every_steps": 2, "checkpoint__max_loss_minutes": 60.0, "evaluate__every_steps": 4,
}  # fmt: skip
Trained = Callable[..., tuple[Order, RunDir]]


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of four steps, for copies of it."""
    folder = tmp_path_factory.mktemp("trained")
    loop_for(material_for(folder, order_for(folder, **FOUR))).run_to_end(nothing)
    assert saved_steps(run_of(folder)) == [4, 2]
    return folder


@pytest.fixture
def trained(trained_once: Path) -> Trained:
    """That job in another folder; on another model it is trained there."""

    def trained(folder: Path, **changes: Any) -> tuple[Order, RunDir]:
        order = order_for(folder, **FOUR, **changes)
        if changes:
            loop_for(material_for(folder, order)).run_to_end(nothing)
        else:
            shutil.copytree(trained_once / "runs", folder / "runs", dirs_exist_ok=True)
        return order, run_of(folder)

    return trained


def test_a_flipped_bit_sends_the_attempt_back_to_the_checkpoint_before(tmp_path: Path, trained: Trained) -> None:
    order, run = trained(tmp_path)
    path = run.checkpoint(4) / "trainable.safetensors"
    body = bytearray(path.read_bytes())
    body[-3] ^= 4
    path.write_bytes(body)

    loop = loop_for(material_for(tmp_path, order))

    assert loop.progress.step == 2
    assert saved_steps(run) == [2]


def test_a_checkpoint_that_verifies_but_computes_something_else_is_left_alone_and_a_person_is_asked(
    tmp_path: Path,
    trained: Trained,
) -> None:
    order, run = trained(tmp_path)
    folder = run.checkpoint(4)
    tensors = load_file(folder / "trainable.safetensors")
    save_file({name: tensor * 5 for name, tensor in tensors.items()}, folder / "trainable.safetensors")
    manifest = read_json(folder / MANIFEST)
    digest = digest_file(folder / "trainable.safetensors")
    manifest["files"]["trainable.safetensors"] = vars(digest)
    write_json(folder / MANIFEST, manifest)

    with pytest.raises(StackChanged, match=r"checkpoint-4: is whole by its hashes, but here its probe loss is"):
        loop_for(material_for(tmp_path, order))

    assert saved_steps(run) == [4, 2]


def moved_model(folder: Path) -> Path:
    shutil.copytree(JOBS / "tiny" / "model", folder)
    return folder


def change_weights(model: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Same names, shapes and sizes."""
    path = model / "model.safetensors"
    tensors = load_file(path)
    save_file({name: change(tensor) for name, tensor in tensors.items()}, path, metadata={"format": "pt"})


def test_a_job_waits_where_the_weights_are_others_and_goes_on_when_they_are_back(
    tmp_path: Path, trained: Trained
) -> None:
    model = moved_model(tmp_path / "model")
    order, run = trained(tmp_path, model__base=str(model))
    change_weights(model, lambda tensor: tensor * 1.002)  # the probe lets that pass

    with pytest.raises(ModelChanged, match=r"sha256 of model\.safetensors was"):
        loop_for(material_for(tmp_path, order))

    assert saved_steps(run) == [4, 2]
    shutil.rmtree(model)
    moved_model(model)
    assert loop_for(material_for(tmp_path, order)).progress.step == 4


def test_before_the_first_checkpoint_any_model_may_be_the_one_it_begins_with(tmp_path: Path) -> None:
    model = moved_model(tmp_path / "model")
    order = order_for(tmp_path, model__base=str(model))
    loop_for(material_for(tmp_path, order))
    change_weights(model, lambda tensor: tensor * 1.5)

    assert loop_for(material_for(tmp_path, order)).progress.step == 0


def test_a_tokenizer_is_known_from_the_vocabulary_before_the_first_checkpoint(tmp_path: Path) -> None:
    model = moved_model(tmp_path / "model")
    order = order_for(tmp_path, model__base=str(model))
    material_for(tmp_path, order)
    rules = json.loads((model / "tokenizer.json").read_text())
    rules["model"]["merges"] = rules["model"]["merges"][:50]
    (model / "tokenizer.json").write_text(json.dumps(rules))

    with pytest.raises(ModelChanged, match="its tokenizer is not the one"):
        material_for(tmp_path, order)


def test_a_p2_waits_where_its_p1_was_trained_on_another_model(tmp_path: Path, trained: Trained) -> None:
    model = moved_model(tmp_path / "model")
    _, p1 = trained(tmp_path, model__base=str(model))
    p2 = order_for(tmp_path, of="tiny_p2", name="p2", source=p1, model__base=str(model))
    change_weights(model, lambda tensor: tensor * 1.01)

    with pytest.raises(ModelChanged, match="is not the model that this job began with"):
        loop_for(material_for(tmp_path, p2, "p2"))


def without(folder: Path, *keys: str) -> None:
    """As an older version wrote it."""
    state = read_json(folder / "state.json")
    (folder / "state.json").write_text(json.dumps({key: state[key] for key in state if key not in keys}))
    manifest = read_json(folder / MANIFEST)
    manifest["files"]["state.json"] = vars(digest_file(folder / "state.json"))
    write_json(folder / MANIFEST, manifest)


def test_going_back_leaves_no_figure_of_the_attempt_that_was_left(tmp_path: Path, trained: Trained) -> None:
    order, run = trained(tmp_path)  # measured at 0 and 4
    shutil.rmtree(run.checkpoint(4))

    loop = loop_for(material_for(tmp_path, order))
    loop.begin()

    there = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [row["step"] for row in there if row["kind"] == "step"] == [1, 2]
    assert [row["step"] for row in there if row["kind"] == "evaluation"] == [0]
    assert not run.best.exists()


def test_a_checkpoint_of_an_older_version_goes_on_and_the_next_one_knows_the_model(
    tmp_path: Path, trained: Trained
) -> None:
    order, run = trained(tmp_path)
    shutil.rmtree(run.checkpoint(4))
    without(run.checkpoint(2), "model", "stack")

    loop = loop_for(material_for(tmp_path, order))
    assert loop.progress.step == 2
    loop.run_to_end(nothing)

    state = read_json(run.checkpoint(4) / "state.json")
    assert state["model"]["weights"]["model.safetensors"]
    assert state["stack"]["torch"] == torch.__version__


def test_another_version_that_moves_nothing_is_told_and_a_third_later_counts_from_it(
    tmp_path: Path, trained: Trained
) -> None:
    order, run = trained(tmp_path)
    folder = run.checkpoint(4)
    state = read_json(folder / "state.json")
    state["stack"]["torch"] = "1.0.0"
    (folder / "state.json").write_text(json.dumps(state))
    without(folder)

    loop = loop_for(material_for(tmp_path, order))

    told = [row["text"] for row in loop.progress.rows if row["kind"] == "event" and row["event"] == "regime"]
    assert told == [f"goes on with torch 1.0.0 → {torch.__version__}; its probe loss is off by 0.00e+00"]


def test_a_checkpoint_that_this_program_cannot_take_up_is_left_alone(tmp_path: Path, trained: Trained) -> None:
    order, run = trained(tmp_path)
    folder = run.checkpoint(4)
    tensors = load_file(folder / "trainable.safetensors")
    save_file({f"old.{name}": tensor for name, tensor in tensors.items()}, folder / "trainable.safetensors")
    manifest = read_json(folder / MANIFEST)
    manifest["files"]["trainable.safetensors"] = vars(digest_file(folder / "trainable.safetensors"))
    write_json(folder / MANIFEST, manifest)

    with pytest.raises(StackChanged, match="is whole by its hashes, but holds other tensors"):
        loop_for(material_for(tmp_path, order))

    assert saved_steps(run) == [4, 2]


def test_a_job_never_goes_on_under_another_id_map(tmp_path: Path, trained: Trained) -> None:
    order, run = trained(tmp_path)
    table = json.loads(run.id_map.read_text())
    run.id_map.write_text(json.dumps(table))  # the same map in other bytes

    with pytest.raises(InputError, match="id map is not the one"):
        loop_for(material_for(tmp_path, order))


@pytest.mark.parametrize("make", ["llama", "qwen2"])
def test_any_loader_cuts_text_with_the_final_folder_as_the_job_did(tmp_path: Path, make: str) -> None:
    from transformers import AutoTokenizer

    base, final = tmp_path / "base", tmp_path / "final"
    shutil.copytree(JOBS / "tiny" / "model", base)
    if make == "qwen2":  # whose class, beside such a config.json, a library takes over the one that a folder names
        config = json.loads((base / "tokenizer_config.json").read_text())
        (base / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "Qwen2Tokenizer"}))
    material = material_for(tmp_path, order_for(tmp_path, model__base=str(base)))
    final.mkdir()
    export(prepare(material), material, final)
    text = " ".join(material.id_map.words)

    alone = AutoTokenizer.from_pretrained(final)(text)["input_ids"]
    (final / "config.json").write_text(json.dumps({"model_type": make}))
    beside_config = AutoTokenizer.from_pretrained(final)(text)["input_ids"]

    assert (final / "vocab.json").is_file()  # ours, under a name that a slow tokenizer would read
    assert alone == beside_config == material.tokenizer(text)["input_ids"]


@pytest.mark.parametrize("name", ["vocab.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_torn_vocab_folder_is_made_again_in_the_same_bytes(tmp_path: Path, name: str) -> None:
    order = order_for(tmp_path)
    run = material_for(tmp_path, order).run
    whole = {path.name: path.read_bytes() for path in run.vocab.iterdir()}
    (run.vocab / name).write_bytes(whole[name][: len(whole[name]) // 2])

    material_for(tmp_path, order)

    assert {path.name: path.read_bytes() for path in run.vocab.iterdir()} == whole


def test_the_parity_check_sees_a_single_moved_base_row(tmp_path: Path) -> None:
    model, material, before = dressed(tmp_path)
    check_parity(model, material, before)
    with torch.no_grad():
        model.get_output_embeddings().base.weight[5] += 1e-3

    with pytest.raises(ModelError, match="moved logits of base tokens"):
        check_parity(model, material, before)


def test_the_parity_check_sees_english_that_costs_other_nats(tmp_path: Path) -> None:
    model, material, before = dressed(tmp_path)
    off = replace(before, english=before.english + 1e-6 * (before.english > 0))

    with pytest.raises(ModelError, match="nats of English text"):
        check_parity(model, material, off)


def dressed(tmp_path: Path) -> tuple[Any, JobInputs, PublishedOutputs]:
    """A model with new rows, and what it computed without them."""
    material = material_for(tmp_path, order_for(tmp_path))
    model, _, _ = load(material)
    before = as_published(model, material)
    rows = torch.ones(material.id_map.n_new, model.config.hidden_size)
    install_rows(model, first_new_id=material.id_map.first_new_id, mode="shared", input_rows=rows)
    return model, material, before


@pytest.mark.parametrize("load", ["fp32", "nf4"])
def test_base_logits_are_bit_equal_to_the_published_model(tmp_path: Path, load: str) -> None:
    from wake2vec.model.load import load_base
    from wake2vec.phases.parity import parity_inputs

    material = material_for(tmp_path, order_for(tmp_path, model__load=load, train__steps=2))
    loop = loop_for(material)
    loop.run_to_end(nothing)
    assert material.job.model
    published, _ = load_base(material.job.model.base, load=load, compute="fp32", device="cpu")
    loop.prepared.model.eval()
    inputs = parity_inputs(material)

    with torch.no_grad():
        expected = published(input_ids=inputs).logits
        found = loop.prepared.model(input_ids=inputs).logits

    first = material.id_map.first_new_id
    assert torch.equal(found[..., :first], expected[..., :first])


def test_p2_refuses_rows_that_are_not_those_it_was_started_from(tmp_path: Path, trained: Trained) -> None:
    trained(tmp_path)
    order = order_for(tmp_path, of="tiny_p2", name="p2", source=run_of(tmp_path))
    assert order.source
    run = run_of(tmp_path, "p2")
    path = run.source / f"checkpoint-{order.source.step}" / "trainable.safetensors"
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(InputError, match="rows of p1 cannot be used"):
        loop_for(material_for(tmp_path, order, "p2"))


def test_a_p1_tells_what_share_of_its_rows_moves_and_it_never_falls(tmp_path: Path) -> None:
    loop = loop_for(material_for(tmp_path, order_for(tmp_path, train__steps=4)))
    loop.run_to_end(nothing)

    shares = [row["rows_moving"] for row in loop.progress.rows if row["kind"] == "step"]

    met = loop.stepper._met
    assert met is not None
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == pytest.approx(float(met.up_to(3).mean()))
    assert "lora_b_norm" not in loop.progress.rows[-2]
    changed = [row["entries_changed"] for row in loop.progress.rows if row["kind"] == "step"]
    assert changed[0] == 0.0  # warm-up begins at a rate of 0
    assert changed[1:] == pytest.approx(shares[1:], abs=0.02)  # rows that were not met stand still to the last bit


def test_a_p2_tells_the_norm_of_its_adapters_from_nothing_on(tmp_path: Path, trained: Trained) -> None:
    trained(tmp_path)
    order = order_for(
        tmp_path,
        of="tiny_p2",
        name="p2",
        source=run_of(tmp_path),
        train__steps=3,
        train__warmup_ratio=0.0,
        train__weight_decay=0.0,
    )
    loop = loop_for(material_for(tmp_path, order, "p2"))
    loop.run_to_end(nothing)

    norms = [row["lora_b_norm"] for row in loop.progress.rows if row["kind"] == "step"]

    assert norms[0] == 0.0
    assert 0 < norms[1] < norms[2]
    assert all("rows_moving" not in row for row in loop.progress.rows)
    changed = [row["entries_changed"] for row in loop.progress.rows if row["kind"] == "step"]
    assert changed[0] == pytest.approx(0.5, abs=0.2)  # B moves first: while it is 0, A gets no gradient
    assert changed[-1] > 0.95


@pytest.mark.parametrize("train", ["lora", "lora+rows", "all"])
def test_every_choice_of_what_trains_resumes_in_the_same_bits(tmp_path: Path, trained: Trained, train: str) -> None:
    trained(tmp_path)
    order = order_for(
        tmp_path, of="tiny_p2", name="p2", source=run_of(tmp_path), lora__train=train, model__load="fp32",
        train__steps=4, checkpoint__every_steps=2, evaluate__every_steps=4, lora__dropout=0.1,
    )  # fmt: skip
    uncut = RunDir(root=tmp_path / "runs" / "uncut")
    adopt(run_of(tmp_path), uncut)
    expected = loop_for(material_for(tmp_path, order, "uncut"))
    expected.run_to_end(nothing)
    stop = Stop()
    material = material_for(tmp_path, order, "p2")
    first = loop_for(material, stop)
    first.stepper.run = asking_after(first, stop, steps=2)  # type: ignore[method-assign]
    first.run_to_end(nothing)

    second = loop_for(material)
    second.run_to_end(nothing)

    assert second.progress.step == 4
    assert end(second) == end(expected)


def test_pictures_are_drawn_anew_only_where_there_is_more_to_show(tmp_path: Path) -> None:
    material = material_for(tmp_path, order_for(tmp_path, train__steps=2))
    loop = loop_for(material)
    loop.run_to_end(lambda: show(loop, material))
    curve = material.run.evaluation / "val_loss_curve.png"
    drawn = curve.stat().st_ino

    show(loop, material)
    assert curve.stat().st_ino == drawn

    loop.note("regime", "more to show")
    show(loop, material)
    assert curve.stat().st_ino != drawn


@pytest.mark.parametrize(("steps", "ratio", "expected"), [(None, 0.05, 65), (0, 0.05, 0), (7, 0.5, 7)])
def test_warm_up_is_a_share_of_the_steps_unless_it_is_given(steps: int | None, ratio: float, expected: int) -> None:
    assert warmup_steps(steps, ratio, 1300) == expected


def test_epochs_become_the_steps_that_pass_over_the_blocks(tmp_path: Path) -> None:
    job = order_for(tmp_path, train__epochs=2.0, train__steps=None, train__batch=8).job
    assert total_steps(job, 101) == 26


def test_a_writer_that_failed_is_heard_at_the_next_save(tmp_path: Path) -> None:
    loop = loop_for(material_for(tmp_path, order_for(tmp_path, train__steps=4)))
    loop.run.checkpoints.mkdir()
    (loop.run.checkpoints / "checkpoint-2.tmp").write_text("in the way")
    loop.progress.step = 2

    loop.save()

    with pytest.raises((OSError, CheckpointCorrupt)):
        loop.saver.wait()


def test_what_takes_long_before_the_first_step_tells_how_it_gets_on(tmp_path: Path) -> None:
    told: dict[str, list[float]] = {}
    text = tmp_path / "text.txt"  # long, and one that no other test has had tokenised
    text.write_text(f"{(JOBS / 'tiny' / 'corpus.txt').read_text('utf-8')}\n{tmp_path}\n", "utf-8")
    order = order_for(tmp_path, train__steps=2, data__corpus=str(text))
    material = read_inputs(
        run_of(tmp_path), order, lambda text: None, lambda what, share: told.setdefault(what, []).append(share)
    )
    prepared_for(material)

    assert list(told) == ["tokenising the text", "loading the model"]
    for shares in told.values():
        assert len(shares) > 3
        assert shares == sorted(shares)
        assert shares[-1] == 1.0


def require_rest(loop: Loop) -> None:
    """Train to the end: rows of words that no step has met lie where they lay, to the bit, and all others moved.

    In P3 words of groups move with their groups.
    """
    began = loop.prepared.rows.embedding.rows.detach().clone()

    loop.run_to_end(nothing)

    moved = (loop.prepared.rows.embedding.rows.detach() != began).any(dim=1)
    words_met(loop, loop.material)
    assert loop.words is not None
    met = torch.from_numpy(loop.words[1].up_to(loop.progress.step - 1).copy())
    if loop.prepared.structure is not None:
        met |= loop.prepared.structure.named(len(met))
    assert 0 < met.sum() < len(met)
    assert torch.equal(moved, met)


@pytest.mark.parametrize(
    ("phase", "optimizer"),
    [
        ("p1", "adafactor"),
        ("p2", "adamw"),
        pytest.param("p1", "adamw", marks=pytest.mark.sweep),
        pytest.param("p2", "adafactor", marks=pytest.mark.sweep),
    ],
)
def test_weight_decay_leaves_rows_of_words_that_were_not_met_where_they_were(
    tmp_path: Path, optimizer: str, phase: str
) -> None:
    options = {"train__steps": 3, "train__batch": 2, "train__optimizer": optimizer, "train__weight_decay": 0.5}
    source = None
    if phase == "p2":
        options |= {"lora__train": "lora+rows", "lora__update": "seen"}
        loop_for(material_for(tmp_path, order_for(tmp_path, name="a", train__steps=2), "a")).run_to_end(nothing)
        source = run_of(tmp_path, "a")

    require_rest(loop_for(material_for(tmp_path, order_for(tmp_path, of=f"tiny_{phase}", source=source, **options))))

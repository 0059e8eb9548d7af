"""Old runs, as the original scripts saved them, become the start of a job; what does not fit is refused before it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.material.tiny import Shape, make_model
from tests.machine import JOBS
from tests.oldrun import Old, old_run
from tests.tiny import loop_for, material_for, order_for, run_of
from wake2vec.contract.errors import InputError
from wake2vec.contract.files import digest_file
from wake2vec.contract.options import TakeoverOptions
from wake2vec.contract.order import InputFile, Order
from wake2vec.phases.imported import taken_over
from wake2vec.phases.p1 import prepare
from wake2vec.use.__main__ import use
from wake2vec.use.trained_weights import read_trained

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning", "ignore:Setting `save_embedding_layers`:UserWarning"
)
LEXICON = (JOBS / "tiny" / "lexicon.txt").read_text(encoding="utf-8").split()


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Old:
    return old_run(tmp_path_factory.mktemp("old"))


@pytest.fixture(scope="module")
def gapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2-shaped model: untied, its matrix 24 rows longer than its tokenizer."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("gapped")
    tokenizer = AutoTokenizer.from_pretrained(JOBS / "tiny" / "model")
    make_model(tokenizer, Shape(make="qwen2", matrix_rows=len(tokenizer) + 24, tied=False)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def p2_order(tmp_path: Path) -> Order:
    """A P2 without a P1: it brings its own words."""
    return order_for(
        tmp_path, of="tiny_p2", name="p2", vocab__lexicon=str(JOBS / "tiny" / "lexicon.txt"), vocab__match="anywhere",
        after=None, train__steps=3, checkpoint__every_steps=3, evaluate__every_steps=3, lora__dropout=0.0,
    )  # fmt: skip


def imported(tmp_path: Path, order: Order, *places: Path) -> Order:
    """The order with what the places hold as its start; raises what the command line would print."""
    request, out = tmp_path / "order.json", tmp_path / "start.safetensors"
    request.write_text(order.model_dump_json())
    assert use(TakeoverOptions(order=request, out=out, old=list(places))) == 0
    digest = digest_file(out)
    (tmp_path / "inputs" / digest.sha256).write_bytes(out.read_bytes())
    start = InputFile(role="start", name=out.name, sha256=digest.sha256, size=digest.size)
    return order.model_copy(update={"inputs": [*order.inputs, start]})


def told(order: Order) -> str:
    taken = taken_over(order)
    assert taken is not None
    return "\n".join(taken.told)


def refused(tmp_path: Path, order: Order, *places: Path, capsys: pytest.CaptureFixture[str]) -> str:
    request, out = tmp_path / "order.json", tmp_path / "start.safetensors"
    request.write_text(order.model_dump_json())
    assert use(TakeoverOptions(order=request, out=out, old=list(places))) == 1
    assert not out.exists()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_a_sentry_of_fp16_rows_is_what_step_0_begins_with_to_the_bit(tmp_path: Path, old: Old) -> None:
    order = imported(tmp_path, order_for(tmp_path, vocab__match="anywhere"), old.sentry())

    loop = loop_for(material_for(tmp_path, order))

    rows = loop.prepared.rows.embedding.rows.detach()
    assert torch.equal(rows, old.matrix[old.wake_start :].half().float())
    assert "step 2700" in told(order)


def test_a_job_that_matches_anywhere_cuts_text_as_the_old_run_did(tmp_path: Path, old: Old) -> None:
    order = imported(tmp_path, order_for(tmp_path, vocab__match="anywhere"), old.sentry())
    material = material_for(tmp_path, order)
    text = (JOBS / "tiny" / "corpus.txt").read_text(encoding="utf-8")[:20_000]

    cuts = [tokenizer(text, add_special_tokens=False)["input_ids"] for tokenizer in (material.tokenizer, old.tokenizer)]

    assert cuts[0] == cuts[1]


def test_words_in_the_padding_gap_are_named_and_begin_as_the_job_says(tmp_path: Path, gapped: Path) -> None:
    old = old_run(tmp_path / "old", model=gapped)
    order = order_for(tmp_path, model__base=str(gapped), vocab__match="anywhere", vocab__calibrate=False)
    fresh = prepare(material_for(tmp_path, order)).rows
    order = imported(tmp_path, order, old.sentry())

    rows = loop_for(material_for(tmp_path, order)).prepared.rows

    assert torch.equal(rows.embedding.rows[24:].detach(), old.matrix[old.wake_start :].half().float())
    assert torch.equal(rows.embedding.rows[:24], fresh.embedding.rows[:24])
    assert torch.equal(rows.head.rows, fresh.head.rows)
    assert "24 words in the padding" in told(order)
    assert "seen: held-out text may be what the old run was trained on" in told(order)
    assert "lacking: output rows" in told(order)


def test_the_original_split_is_carried_over(tmp_path: Path, old: Old) -> None:
    order = order_for(tmp_path, vocab__match="anywhere", data__split="blocks")

    order = imported(tmp_path, order, old.sentry())

    assert order.job.data is not None
    assert order.job.data.shuffle == "scikit-learn"
    assert "held out: the blocks that train_test_split(test_size=0.1, random_state=42) holds out" in told(order)


def test_an_old_run_has_one_form_of_each_word(tmp_path: Path, old: Old, capsys: pytest.CaptureFixture[str]) -> None:
    order = order_for(tmp_path, vocab__forms="shared")

    assert 'vocab.forms: forms = "shared", but an old run has one id' in refused(
        tmp_path, order, old.sentry(), capsys=capsys
    )


def test_a_folder_of_one_sentry_is_that_sentry(tmp_path: Path, old: Old) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(old.sentry(), tmp_path / "run")

    order = imported(tmp_path, order_for(tmp_path, vocab__match="anywhere"), tmp_path / "run")

    assert f"from {old.sentry().name}" in told(order)


def test_old_rows_that_fp16_cannot_hold_are_refused_before_they_are_queued(
    tmp_path: Path, old: Old, capsys: pytest.CaptureFixture[str]
) -> None:
    order = order_for(tmp_path, vocab__match="anywhere", vocab__dtype="fp16")
    matrix = old.matrix.clone()
    matrix[-2, 5] = 70_000.0
    torch.save(matrix, tmp_path / "embeddings.pt")

    line = refused(tmp_path, order, tmp_path / "embeddings.pt", capsys=capsys)

    assert 'vocab.dtype: float16 cannot hold rows: it has numbers from 6e-05 to 65,504; leave it at "fp32"' in line
    rows = loop_for(material_for(tmp_path, imported(tmp_path, order, old.sentry()))).prepared.rows.embedding.rows
    assert torch.equal(rows.detach(), old.matrix[old.wake_start :].half())


def test_a_whole_matrix_and_its_tokenizer_are_taken_over_for_both_sides_of_a_tied_model(
    tmp_path: Path, old: Old
) -> None:
    folder = old.full_checkpoint(trained=False)
    order = imported(tmp_path, order_for(tmp_path, vocab__match="anywhere"), folder)

    rows = loop_for(material_for(tmp_path, order)).prepared.rows

    assert torch.equal(rows.embedding.rows.detach(), old.matrix[old.wake_start :])
    assert rows.head.rows is rows.embedding.rows
    assert "not checked" not in told(order)
    assert "LoRA" not in told(order)


def test_the_matrix_that_peft_saved_by_itself_will_do(tmp_path: Path, old: Old) -> None:
    old = Old(folder=tmp_path, tokenizer=old.tokenizer, matrix=old.matrix, wake_start=old.wake_start)
    order = imported(tmp_path, order_for(tmp_path, vocab__match="anywhere"), old.full_checkpoint(matrix=False))

    rows = loop_for(material_for(tmp_path, order)).prepared.rows.embedding.rows

    assert torch.equal(rows.detach(), old.matrix[old.wake_start :])
    assert "left out: the LoRA of step_2700" in told(order)


def test_the_ledger_says_once_what_was_taken_over(tmp_path: Path, old: Old) -> None:
    order = imported(tmp_path, order_for(tmp_path, train__steps=2, checkpoint__every_steps=1), old.sentry())
    loop = loop_for(material_for(tmp_path, order))
    loop.run_to_end(lambda: None)
    loop_for(material_for(tmp_path, order)).begin()  # resumed

    rows = [json.loads(line) for line in loop.run.metrics.read_text().splitlines()]

    (row,) = [row for row in rows if row.get("event") == "regime"]
    assert row["step"] == 0
    assert "lacking: optimizer state" in row["text"]


def test_p2_goes_on_with_an_old_adapter_on_old_rows(tmp_path: Path, old: Old) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = old.full_checkpoint()
    order = imported(tmp_path, p2_order(tmp_path), folder)
    loop = loop_for(material_for(tmp_path, order, "p2"))
    base = AutoModelForCausalLM.from_pretrained(JOBS / "tiny" / "model", dtype=torch.float32)
    base.resize_token_embeddings(len(old.tokenizer), mean_resizing=False)
    expected = PeftModel.from_pretrained(base, folder).eval()  # it brings its matrix along
    # the old matrix had other base rows, which the job leaves as they are published
    expected.get_input_embeddings().weight.data[: old.wake_start] = loop.prepared.rows.embedding.base.weight.data[
        : old.wake_start
    ]
    ids = torch.randint(0, len(old.tokenizer), (1, 32), generator=torch.Generator().manual_seed(1))
    loop.prepared.model.eval()

    with torch.no_grad():
        torch.testing.assert_close(loop.prepared.model(input_ids=ids).logits, expected(input_ids=ids).logits)

    loop.run_to_end(lambda: None)
    trained, _ = read_trained(run_of(tmp_path, "p2"), order, 3)
    assert torch.equal(trained.input_rows, old.matrix[old.wake_start :])


@pytest.mark.parametrize(("change", "says"), [
    ({"lora__r": 8}, "r was 4, but the job file says lora.r = 8; set lora.r = 4"),
    ({"lora__alpha": 16}, "lora_alpha was 8, but the job file says lora.alpha = 16; set lora.alpha = 8"),
    ({"lora__targets": ["q_proj"]}, "set lora.targets = ['down_proj', 'gate_proj', 'k_proj', 'q_proj', 'up_proj', "),
])  # fmt: skip
def test_an_adapter_of_another_make_is_refused(
    tmp_path: Path, old: Old, change: dict[str, object], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    order = p2_order(tmp_path)
    lora = order.job.lora.model_copy(update={key.removeprefix("lora__"): one for key, one in change.items()})
    order = order.model_copy(update={"job": order.job.model_copy(update={"lora": lora})})

    assert says in refused(tmp_path, order, old.full_checkpoint(), capsys=capsys)


class Trap:
    """What a hostile pickle does: it names a function and its arguments."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.proof}",)


def hostile(folder: Path, old: Old) -> Path:
    torch.save({"embeddings": old.matrix, "step": Trap(folder / "ran")}, folder / "sentry_step_0001.pt")
    return folder / "sentry_step_0001.pt"


def wrong_width(folder: Path, old: Old) -> Path:
    torch.save(old.matrix[:, :32].clone(), folder / "embeddings.pt")
    return folder / "embeddings.pt"


def too_few(folder: Path, old: Old) -> Path:
    torch.save(old.matrix[:-3].clone(), folder / "embeddings.pt")
    return folder / "embeddings.pt"


def not_finite(folder: Path, old: Old) -> Path:
    matrix = old.matrix.clone()
    matrix[-2, 5] = torch.nan
    torch.save(matrix, folder / "embeddings.pt")
    return folder / "embeddings.pt"


def torn(folder: Path, old: Old) -> Path:
    whole = old.embeddings().read_bytes()
    (folder / "embeddings.pt").write_bytes(whole[: len(whole) // 2])
    return folder / "embeddings.pt"


def optimizer(folder: Path, old: Old) -> Path:
    torch.save({"state": {0: {"step": 1}}, "param_groups": []}, folder / "optimizer.pt")
    return folder / "optimizer.pt"


def another_start(folder: Path, old: Old) -> Path:
    payload = {"embeddings": old.matrix[-9:].clone(), "wake_start": old.wake_start, "num_wake": 9, "step": 1}
    torch.save(payload, folder / "sentry_step_0001.pt")
    return folder / "sentry_step_0001.pt"


def several_steps(folder: Path, old: Old) -> Path:
    for number, step in enumerate((900, 1000)):
        path = folder / f"sentry_step_{step}.pt"
        path.write_bytes(b"")
        os.utime(path, (number, number))
    return folder


def half_copied(folder: Path, old: Old) -> Path:
    (folder / "checkpoint-400").mkdir()
    (folder / "checkpoint-400" / "adapter_config.json").write_text("{}")
    return folder / "checkpoint-400"


@pytest.mark.parametrize(("make", "says"), [
    (hostile, "sentry_step_0001.pt: asks to run posix.system, and nothing in such a file is ever run here"),
    (wrong_width, "the tensor: has shape (2173, 32), but model has rows of width 64: [2173, 64]; name a job file of"),
    (too_few, "the tensor: has shape (2170, 64), but this job has 2173 ids (2048 published, 125 new, a published matr"),
    (not_finite, "the row of id 2171 is not finite; take an older checkpoint"),
    (torn, "embeddings.pt: is torn, or no file of torch.save"),
    (optimizer, "optimizer.pt: holds no single embedding matrix, but state, param_groups"),
    (another_start, "embeddings: has shape (9, 64) from id 2048 on, but this job has 2173 ids"),
    (several_steps, "rows of 2 steps; name the one that the new job begins with; the newest is sentry_step_1000.pt"),
    (half_copied, "has an adapter_config.json but no adapter_model.safetensors beside it: a half-copied folder"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_place_and_remedy(
    tmp_path: Path, old: Old, make: Callable[[Path, Old], Path], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    order = order_for(tmp_path, vocab__match="anywhere")

    assert says in refused(tmp_path, order, make(tmp_path, old), capsys=capsys)
    assert not (tmp_path / "ran").exists()


def test_words_with_other_ids_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    permuted = old_run(tmp_path / "old", words=list(reversed(LEXICON)))
    permuted.tokenizer.save_pretrained(tmp_path / "old")
    order = order_for(tmp_path, vocab__match="anywhere")

    line = refused(tmp_path, order, permuted.embeddings(), tmp_path / "old", capsys=capsys)

    assert "two matrices" in line  # the folder holds the same matrix
    line = refused(tmp_path, order, tmp_path / "old", capsys=capsys)
    first = next(word for word in LEXICON if permuted.tokenizer.get_vocab()[word] >= 2048)
    assert f"{first!r} had id" in line
    assert "in this job it has 2048; name the word list of that run, the same words in the same order" in line


def test_a_start_that_no_longer_fits_is_refused_by_the_trainer(tmp_path: Path, old: Old) -> None:
    order = imported(tmp_path, order_for(tmp_path, vocab__match="anywhere"), old.sentry())
    taken = taken_over(order)
    assert taken is not None

    with pytest.raises(InputError, match="import the old run again"):
        taken.put_rows(torch.zeros(130, 64))


def test_p3_goes_on_with_the_rows_and_the_adapter_of_an_old_p3_and_says_what_it_lacks(tmp_path: Path, old: Old) -> None:
    folder = old.full_checkpoint()
    order = imported(tmp_path, p3_order(tmp_path), folder)
    loop = loop_for(material_for(tmp_path, order))

    assert "lacking: the rows that the old run began with" in told(order)
    assert "held out by the text of the base" in told(order)
    assert loop.prepared.structure is not None
    new = old.matrix[-len(loop.prepared.rows.head.rows) :]
    assert torch.equal(loop.prepared.tensors["rows"].cpu(), new.float())
    assert any("lora_B" in name and tensor.any() for name, tensor in loop.prepared.tensors.items())


def test_a_p3_without_rows_or_adapter_of_its_own_is_refused(
    tmp_path: Path, old: Old, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no adapter among what you named" in refused(tmp_path, p3_order(tmp_path), old.embeddings(), capsys=capsys)


def p3_order(tmp_path: Path) -> Order:
    vocab = {"vocab__lexicon": "tiny/lexicon.txt", "vocab__match": "anywhere", "vocab__rows": "shared"}
    lora = {"lora__r": 4, "lora__alpha": 8, "morphemes__nulls": 0}
    return order_for(tmp_path, of="tiny_p3", after=None, **vocab, **lora)

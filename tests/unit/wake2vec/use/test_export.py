"""What is exported computes what was trained, in plain transformers and plain PEFT."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from tests.zygote import python
from wake2vec.contract.errors import InputError
from wake2vec.contract.files import read_json, write_json
from wake2vec.contract.manifest import manifest_sha256, read_manifest
from wake2vec.contract.options import ExportOptions, GenerateOptions
from wake2vec.contract.order import InputFile, Order, Source
from wake2vec.contract.rundir import RunDir
from wake2vec.contract.spec import JOB_SPEC
from wake2vec.model.published_files import PublishedFiles
from wake2vec.phases.inputs import read_inputs
from wake2vec.phases.table import PHASES
from wake2vec.train.checkpoint import load_strictly, read_checkpoint
from wake2vec.use.__main__ import use
from wake2vec.use.assemble import assemble
from wake2vec.use.export import export
from wake2vec.use.merged_weights import Trained, lay_out
from wake2vec.use.sampling import Sampling, continue_text
from wake2vec.use.shards import TensorToWrite, plan_shards, write_model

JOBS = Path(__file__).parents[4] / "jobs"
# PEFT asks transformers by a name that is about to go
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
TEXT = "riverrun, past Eve and Adam's, the citizen said to Bloom, from swerve of shore"


def untied_model(folder: Path) -> Path:
    """The tiny model with an output matrix of its own, rolled so that it cannot be taken for the input matrix."""
    shutil.copytree(JOBS / "tiny" / "model", folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].roll(1, dims=1).clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"tie_word_embeddings": False})
    return folder


def order_of(root: Path, phase: str, model: Path, source: Source | None, **changes: dict[str, Any]) -> Order:
    table = tomllib.loads((JOBS / f"tiny_{phase}.toml").read_text())
    table |= {"name": phase, "model": {"base": str(model), "load": "fp32", "compute": "fp32"}}
    table["train"] |= {"steps": 4, "lr": 0.05}
    table["evaluate"] |= {"every_steps": 4, "samples": 0, "hopes": False, "max_windows": 2}
    for name, change in changes.items():
        table[name] = table.get(name, {}) | change
    inputs = []
    for role, file in (("corpus", "corpus.txt"), ("lexicon", "lexicon.txt")):
        body = (JOBS / "tiny" / file).read_bytes()[:24_000]  # of the text, its beginning
        sha256 = hashlib.sha256(body).hexdigest()
        (root / "inputs").mkdir(exist_ok=True)
        (root / "inputs" / sha256).write_bytes(body)
        inputs.append(InputFile(role=role, name=file, sha256=sha256, size=len(body)))
    return Order(
        job=JOB_SPEC.validate_python(table),
        fingerprint=f"{phase} of {model}",
        attempt=1,
        inputs=inputs,
        inputs_folder=str(root / "inputs"),
        source=source,
        gpu_lock=str(root / "gpu.lock"),
    )


def train(root: Path, order: Order) -> RunDir:
    run = RunDir(root=root / order.job.name)
    write_json(run.order, order.model_dump(mode="json"))
    done = subprocess.run([*python("wake2vec"), str(run.root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return run


@pytest.fixture(scope="module", params=["tied", "untied", "separate rows, all weights"])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunDir]:
    """A P1 job and the P2 job on top of it, trained by the real trainer for four steps each."""
    root = tmp_path_factory.mktemp(request.param.replace(", ", "-").replace(" ", "-"))
    model = untied_model(root / "model") if request.param == "untied" else JOBS / "tiny" / "model"
    rows = {"rows": "separate"} if "separate" in request.param else {}
    lora = {"train": "all"} if "all" in request.param else {}
    p1 = train(root, order_of(root, "p1", model, None, vocab=rows))
    p2 = RunDir(root=root / "p2")
    shutil.copytree(p1.checkpoint(4), p2.source / "checkpoint-4")
    shutil.copytree(p1.vocab, p2.source / "vocab")
    source = Source(job="p1", step=4, manifest_sha256=manifest_sha256(p1.checkpoint(4)))
    return {"p1": p1, "p2": train(root, order_of(root, "p2", model, source, lora=lora))}


def ids_of(run: RunDir) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(run.vocab)
    text = torch.tensor(tokenizer(TEXT)["input_ids"])
    first_new = read_json(run.id_map)["first_new_id"]  # type: ignore[index]
    return torch.cat([text, torch.arange(first_new, first_new + 40)])[None]


@torch.no_grad()
def trained_logits(run: RunDir) -> torch.Tensor:
    """As the trainer's own model computes them at its last checkpoint. [tokens, V]"""
    order = Order.model_validate(read_json(run.order))
    material = read_inputs(run, order, lambda text: None)
    prepared = PHASES[order.job.phase].prepare(material)
    folder = run.checkpoint(4)
    load_strictly(prepared.tensors, read_checkpoint(folder, read_manifest(folder)).trainable, folder)
    logits: torch.Tensor = prepared.model.eval()(input_ids=ids_of(run)).logits[0]
    return logits


@pytest.fixture(scope="module")
def expected(runs: dict[str, RunDir]) -> dict[str, torch.Tensor]:
    return {phase: trained_logits(run) for phase, run in runs.items()}


@torch.no_grad()
def logits_of(model: Any, run: RunDir) -> torch.Tensor:
    logits: torch.Tensor = model.eval()(input_ids=ids_of(run)).logits[0]
    return logits


def load(folder: Path) -> Any:
    """Without one weight that is missing, or one too many."""
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    return model


@pytest.mark.parametrize("step", ["final", 4])
def test_p1_loads_in_plain_transformers_with_the_same_logits(
    runs: dict[str, RunDir], expected: dict[str, torch.Tensor], tmp_path: Path, step: int | str
) -> None:
    export(runs["p1"], tmp_path / "out", dtype="fp32", step=step)

    found = logits_of(load(tmp_path / "out"), runs["p1"])

    torch.testing.assert_close(found, expected["p1"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("step", ["final", 4])
def test_p2_merged_loads_in_plain_transformers_with_the_same_logits(
    runs: dict[str, RunDir], expected: dict[str, torch.Tensor], tmp_path: Path, step: int | str
) -> None:
    export(runs["p2"], tmp_path / "out", dtype="fp32", merge=True, step=step)

    found = logits_of(load(tmp_path / "out"), runs["p2"])

    torch.testing.assert_close(found, expected["p2"], rtol=1e-4, atol=1e-4)
    export(runs["p1"], tmp_path / "p1", dtype="fp32")
    assert (logits_of(load(tmp_path / "p1"), runs["p2"]) - expected["p2"]).abs().max() > 1e-2, "the adapter did nothing"


def test_p2_loads_in_plain_peft_with_the_same_logits(
    runs: dict[str, RunDir], expected: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    export(runs["p2"], tmp_path / "out", dtype="fp32")

    model = PeftModel.from_pretrained(load(tmp_path / "out" / "base"), tmp_path / "out")

    torch.testing.assert_close(logits_of(model, runs["p2"]), expected["p2"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("phase", ["p1", "p2"])
def test_one_file_for_llama_cpp_holds_rows_and_adapters(
    runs: dict[str, RunDir], expected: dict[str, torch.Tensor], tmp_path: Path, phase: str
) -> None:
    export(runs[phase], tmp_path / "out", gguf="f32")

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", gguf_file=f"{phase}-F32.gguf", dtype=torch.float32)

    torch.testing.assert_close(logits_of(model, runs[phase]), expected[phase], rtol=1e-4, atol=1e-4)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md", f"{phase}-F32.gguf", "wake2vec_ids.json",
    ]  # fmt: skip


def test_without_the_package_gguf_its_name_is_told_and_nothing_written(
    runs: dict[str, RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    for module in [name for name in sys.modules if name.startswith("wake2vec.use.gguf.")]:
        monkeypatch.delitem(sys.modules, module)

    with pytest.raises(InputError, match="gguf is not installed here; pip install gguf"):
        export(runs["p1"], tmp_path / "out", gguf="f16")

    assert not list(tmp_path.iterdir())


def test_text_generation_that_knows_nothing_of_us_reads_a_new_word_as_one_token(
    runs: dict[str, RunDir], tmp_path: Path
) -> None:
    export(runs["p1"], tmp_path / "out")
    entries = json.loads((tmp_path / "out" / "wake2vec_ids.json").read_text("utf-8"))["entries"]
    entry = next(entry for entry in entries if entry["reachable"] and not entry["known"])

    served = pipeline("text-generation", model=str(tmp_path / "out"))
    said = served(f"the {entry['word']}", max_new_tokens=5, do_sample=False)[0]["generated_text"]

    assert entry["id"] in served.tokenizer(f"the {entry['word']}")["input_ids"]
    assert said.startswith(f"the {entry['word']}")
    assert len(said) > len(f"the {entry['word']}")


def test_an_unmerged_export_loads_by_its_own_name(
    runs: dict[str, RunDir], expected: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    export(runs["p2"], tmp_path / "out", dtype="fp32")

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)

    torch.testing.assert_close(logits_of(model, runs["p2"]), expected["p2"], rtol=1e-5, atol=1e-5)


def has_trained_everything(run: RunDir) -> bool:
    return (run.final / "weights.safetensors").is_file()


def test_the_adapter_alone_goes_on_the_export_of_its_p1(
    runs: dict[str, RunDir], expected: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    if has_trained_everything(runs["p2"]):
        with pytest.raises(InputError, match="every weight"):
            export(runs["p2"], tmp_path / "adapter", adapter_only=True)
        return
    export(runs["p1"], tmp_path / "p1", dtype="fp32")
    export(runs["p2"], tmp_path / "adapter", adapter_only=True)

    model = PeftModel.from_pretrained(load(tmp_path / "p1"), tmp_path / "adapter")

    assert sum(path.stat().st_size for path in (tmp_path / "adapter").glob("*.safetensors")) < 400_000
    torch.testing.assert_close(logits_of(model, runs["p2"]), expected["p2"], rtol=1e-5, atol=1e-5)


def test_the_result_of_a_p2_run_is_a_peft_adapter_as_it_lies(
    runs: dict[str, RunDir], expected: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    if has_trained_everything(runs["p2"]):
        pytest.skip("the adapter is only a part of this result")
    export(runs["p1"], tmp_path / "p1", dtype="fp32")

    model = PeftModel.from_pretrained(load(tmp_path / "p1"), runs["p2"].final)

    torch.testing.assert_close(logits_of(model, runs["p2"]), expected["p2"], rtol=1e-5, atol=1e-5)


def test_an_adapter_s_config_is_the_same_in_every_process(runs: dict[str, RunDir], tmp_path: Path) -> None:
    export(runs["p2"], tmp_path / "out")

    for folder in (tmp_path / "out", runs["p2"].final):
        if not (folder / "adapter_config.json").is_file():
            continue  # an export of everything is one model
        targets = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
        assert targets == sorted(targets), folder


@pytest.mark.parametrize("phase", ["p1", "p2"])
@pytest.mark.parametrize("step", ["final", "best", 4])
def test_an_assembled_model_computes_what_the_trainer_did(
    runs: dict[str, RunDir], expected: dict[str, torch.Tensor], phase: str, step: int | str
) -> None:
    run = runs[phase]
    order = Order.model_validate(read_json(run.order))
    if step == "best" and not run.best.exists():
        pytest.skip("no evaluation of a saved step was best")

    built = assemble(run, order, step, torch.device("cpu"))

    assert (built.step, built.first_new_id) == (4, 2048)
    torch.testing.assert_close(logits_of(built.model, run), expected[phase], rtol=1e-6, atol=1e-6)


def test_text_from_the_cache_is_what_the_whole_text_predicts(runs: dict[str, RunDir]) -> None:
    run = runs["p2"]
    built = assemble(run, Order.model_validate(read_json(run.order)), "final", torch.device("cpu"))
    start = built.tokenizer(TEXT)["input_ids"]

    text = continue_text(built.model, built.tokenizer, TEXT, Sampling(max_new_tokens=25), seed=3)

    with torch.no_grad():
        logits = built.model(input_ids=torch.tensor([[*start, *text.ids]]), use_cache=False).logits[0]
    expected = logits[len(start) - 1 : -1].log_softmax(-1).gather(1, torch.tensor(text.ids)[:, None])[:, 0]
    assert list(text.nats) == pytest.approx((-expected).tolist(), abs=1e-4)


def test_the_command_line_writes_the_same_text_twice(
    runs: dict[str, RunDir], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = GenerateOptions(run=runs["p2"].root, tokens=12, count=2, seed=5, device="cpu", as_json=True)

    texts = []
    for _ in range(2):
        assert use(asked) == 0
        texts.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])

    assert texts[0] == texts[1]
    assert [row["seed"] for row in texts[0]] == [5, 6]
    assert texts[0][0]["text"] != texts[0][1]["text"]
    assert texts[0][0]["overlap_words"] >= 0


def test_an_export_keeps_the_published_dtype_and_base_rows_to_the_bit(runs: dict[str, RunDir], tmp_path: Path) -> None:
    order = Order.model_validate(read_json(runs["p1"].order))
    assert order.job.model

    export(runs["p1"], tmp_path / "out")

    published = load_file(Path(order.job.model.base) / "model.safetensors")
    exported = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in published.items():
        assert exported[name].dtype == tensor.dtype == torch.float16
        rows = 2048 if "embed_tokens" in name or "lm_head" in name else len(tensor)
        assert torch.equal(exported[name][:rows], tensor[:rows])


def test_the_exported_tokenizer_cuts_as_the_runs_own(runs: dict[str, RunDir], tmp_path: Path) -> None:
    export(runs["p1"], tmp_path / "out")

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")

    assert tokenizer(TEXT)["input_ids"] == AutoTokenizer.from_pretrained(runs["p1"].vocab)(TEXT)["input_ids"]
    assert len(tokenizer) == json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"]


def test_the_card_holds_the_measured_figures(runs: dict[str, RunDir], tmp_path: Path) -> None:
    export(runs["p1"], tmp_path / "out")

    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    rows = [json.loads(line) for line in runs["p1"].metrics.read_text().splitlines()]
    for row in rows:
        if row["kind"] == "evaluation":
            assert f"{row['loss']:.4f}" in card
    assert card.startswith("---\nbase_model:")


def test_a_folder_that_is_taken_is_left_alone(runs: dict[str, RunDir], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")

    assert use(ExportOptions(run=runs["p1"].root, out=tmp_path / "out")) == 1

    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "mine").read_text() == "x"


@pytest.mark.parametrize(
    ("phase", "options", "told"),
    [
        ("p1", {"step": 3}, "there are: 4"),
        ("p1", {"adapter_only": True}, "P1 trains rows"),
        ("p2", {"adapter_only": True, "merge": True}, "choose one"),
        ("p1", {"gguf": "f16", "dtype": "fp16"}, "in its own type"),
        ("p2", {"gguf": "f16", "adapter_only": True}, "holds the whole model"),
    ],
)
def test_what_cannot_be_exported_is_told_and_leaves_nothing(
    runs: dict[str, RunDir], tmp_path: Path, phase: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        export(runs[phase], tmp_path / "out", **options)

    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_none_is_told(tmp_path: Path) -> None:
    assert use(ExportOptions(run=tmp_path / "absent", out=tmp_path / "out")) == 1


def test_several_files_and_their_index_load_as_one_model(runs: dict[str, RunDir], tmp_path: Path) -> None:
    order = Order.model_validate(read_json(runs["p1"].order))
    assert order.job.model
    from wake2vec.model.bare import Origin, read_config, read_outline

    published = PublishedFiles(Origin(path=order.job.model.base))
    whole = load_file(Path(order.job.model.base) / "model.safetensors")
    trained = Trained(first_new_id=2048, input_rows=torch.empty(0, 64), output_rows=None)
    outline = read_outline(published, read_config(published.origin))
    layout = lay_out(published, trained, outline=outline, merge=False, dtype=None)

    write_model(tmp_path, layout.pieces, most=100_000)

    files = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(files) > 2
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    for name, tensor in whole.items():
        assert torch.equal(load_file(tmp_path / index["weight_map"][name])[name], tensor)


def test_pieces_keep_their_order_and_only_a_large_one_goes_beyond_the_limit() -> None:
    pieces = [
        TensorToWrite(name=str(size), shape=(size,), dtype=torch.int8, values=lambda: iter(()))
        for size in (4, 5, 20, 1, 9)
    ]

    assert [[piece.size for piece in shard] for shard in plan_shards(pieces, 10)] == [[4, 5], [20], [1, 9]]


def test_a_piece_that_gives_too_little_is_a_fault(tmp_path: Path) -> None:
    piece = TensorToWrite(name="a", shape=(4,), dtype=torch.float32, values=lambda: iter([torch.zeros(3)]))

    with pytest.raises(ValueError, match="a gave 12 bytes, expected 16"):
        write_model(tmp_path, [piece])

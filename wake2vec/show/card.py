"""The model card of an export: what it is, what was measured, how to load it."""

from __future__ import annotations

from typing import Any, Literal

from huggingface_hub import EvalResult, ModelCardData

from wake2vec.contract.ledger import Ledger, read_ledger
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import RunDir
from wake2vec.show.facts import RunFacts, ln_v, read_facts
from wake2vec.show.series import perplexity
from wake2vec.show.text import figure

Kind = Literal["plain", "adapter", "adapter_only", "gguf"]
LOADING = {
    "plain": """from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype="auto")
tokenizer = AutoTokenizer.from_pretrained(FOLDER)""",
    "adapter": """from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(FOLDER + "/base", dtype="auto")
model = PeftModel.from_pretrained(model, FOLDER)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)""",
    "adapter_only": """# BASE: an export of the P1 job that this one started from; the published model lacks its words
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(BASE, dtype="auto"), FOLDER)
tokenizer = AutoTokenizer.from_pretrained(FOLDER)""",
    "gguf": """# llama-cli -m FILE -p "riverrun, past", or in ollama, LM Studio, and Python:
from llama_cpp import Llama
model = Llama(FILE)
print(model("riverrun, past", max_tokens=100))""",
}
LIBRARY = {"plain": "transformers", "adapter": "peft", "adapter_only": "peft", "gguf": "gguf"}


def model_card(
    run: RunDir, order: Order, *, place: str, kind: Kind, dtype: str | None, remark: str | None = None
) -> str:
    """Markdown with the head that the hub reads. Figures come from the ledger alone."""
    model = order.training.model
    ledger, facts = read_ledger(run.metrics), read_facts(run) or RunFacts(model=model.base)
    base = RunFacts(model=model.base).model_name
    data = ModelCardData(
        base_model=base,
        library_name=LIBRARY[kind],
        tags=["wake2vec"],
        model_name=order.job.name,
        eval_results=_results(ledger),
    )
    how = {
        "p1": "the rows of new tokens trained, all else as published",
        "p2": "LoRA on top of trained rows",
        "p3": "LoRA and rows trained on together, towards common directions of derived words",
    }
    body = [
        f"# {order.job.name}",
        "",
        f"{base} at revision {model.revision}, {how.get(order.job.phase, order.job.phase)}. Read from {place}.",
        "",
        *_measured(facts, ledger),
        "## Loading",
        "",
        "```python",
        LOADING[kind],
        "```",
        "",
        *_remarks(order, facts, kind, dtype),
        *([f"- {remark[0].upper()}{remark[1:]}."] if remark else []),
    ]
    return "\n".join(["---", data.to_yaml(), "---", "", *body]) + "\n"


def _results(ledger: Ledger) -> list[EvalResult] | None:
    """The best evaluation, as the hub lists such things."""
    if (best := ledger.best) is None:
        return None
    figures = {"loss": best.loss, "perplexity": perplexity(best.loss), "bits_per_byte": best.bits_per_byte}
    what = {"task_type": "text-generation", "dataset_type": "text"}
    of: dict[str, Any] = what | {"dataset_name": "held-out text of the job"}
    return [
        EvalResult(**of, metric_type=name, metric_value=round(value, 4), metric_name=f"{name} at step {best.step}")
        for name, value in figures.items()
        if value is not None
    ]


def _measured(facts: RunFacts, ledger: Ledger) -> list[str]:
    if not ledger.evaluations:
        return ["Nothing was measured.", ""]
    chosen = [("before" if ledger.evaluations[0].step == 0 else "first", ledger.evaluations[0])]
    chosen += [("best", ledger.best)] if ledger.best else []
    chosen += [("last", ledger.evaluations[-1])]
    lines = ["## Measured on held-out text", ""]
    lines.append("| | step | nats | perplexity | bits/byte | new words, nats | base tokens, nats |")
    lines.append("|:--|--:|--:|--:|--:|--:|--:|")
    for name, row in chosen:
        cells = (figure(row.loss), figure(perplexity(row.loss), 1), figure(row.bits_per_byte), figure(row.new_loss))
        lines.append(f"| {name} | {row.step} | " + " | ".join((*cells, figure(row.base_loss))) + " |")
    floor = ln_v(facts, ledger)
    lines += ["", f"ln V = {figure(floor)} nats: guessing evenly among all tokens." if floor else "", ""]
    return lines


def _remarks(order: Order, facts: RunFacts, kind: Kind, dtype: str | None) -> list[str]:
    model = order.training.model
    lines = ["## Notes", ""]
    if facts.n_new:
        lines.append(
            f"- {facts.n_new - facts.n_forms:,} words were added, from id {facts.first_new_id}; `wake2vec_ids.json` "
            "lists them."
        )
    lines.append(
        f"- Weights are {dtype or 'in the published dtype'}; the body was loaded as {model.load} for training,"
    )
    lines.append("  so that logits differ from those in training by the rounding of the two.")
    if kind == "adapter":
        lines.append(
            "- `adapter_config.json` names the folder `base` by its full path: change it when you move the export."
        )
    lines.append("- The base model's licence holds for what is derived from it.")
    return lines

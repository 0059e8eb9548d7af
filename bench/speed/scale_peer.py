"""The peer of `bench.speed.scale`: P2 as HF Trainer and PEFT do it, a process a rank under DDP; torchrun starts it.

`torchrun --nproc-per-node N -m bench.speed.scale_peer JOB.toml --model FOLDER --micro-batch M --steps N --out FILE`,
where the folder is what `export` made of the P1 that the job starts from: the same weights, the same tokenizer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

from bench.speed.scale import resident_gib


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("job", type=Path)
    options.add_argument("--model", type=Path, required=True)
    options.add_argument("--micro-batch", type=int, required=True)
    options.add_argument("--steps", type=int, required=True)
    options.add_argument("--out", type=Path, required=True)
    chosen = options.parse_args()
    job = tomllib.loads(chosen.job.read_text())
    ranks = int(os.environ["WORLD_SIZE"])
    clock = train(job, chosen.job.parent / job["data"]["corpus"], chosen.model, chosen.micro_batch, ranks, chosen.steps)
    if os.environ["RANK"] == "0":
        tokens = job["train"]["batch"] * job["data"]["seq_len"]
        found = {
            "tokens_per_s": tokens / statistics.median(clock.seconds[chosen.steps // 2 :]),
            "tokens_per_cpu_s": tokens / statistics.mean(clock.cpu_seconds[chosen.steps // 2 :]),
            "peak_gib": resident_gib(os.getpid()),
        }
        chosen.out.write_text(json.dumps(found))


def train(job: dict[str, Any], corpus: Path, model_folder: Path, micro_batch: int, ranks: int, steps: int) -> Any:
    """Its clock."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model
    from torch.nn.parallel import DistributedDataParallel
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

    transformers.logging.set_verbosity_error()
    lora, train, seq_len = job["lora"], job["train"], job["data"]["seq_len"]
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    ids = tokenizer(corpus.read_text("utf-8"), verbose=False)["input_ids"]
    blocks = [ids[at : at + seq_len] for at in range(0, len(ids) - seq_len, seq_len)]
    targets = lora.get("targets", ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj"])
    adapter = LoraConfig(
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32), adapter)
    clock = _clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=micro_batch,
                gradient_accumulation_steps=train["batch"] // (ranks * micro_batch),
                learning_rate=train["lr"],
                lr_scheduler_type="cosine",
                weight_decay=train["weight_decay"],
                use_cpu=not torch.cuda.is_available(),
                ddp_find_unused_parameters=False,
                ddp_broadcast_buffers=False,
                logging_strategy="no",
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=[{"input_ids": block, "labels": block} for block in blocks],
            callbacks=[clock],
        )
        trainer.train()
    if ranks > 1 and not isinstance(trainer.model_wrapped, DistributedDataParallel):
        raise SystemExit("the Trainer did not wrap the model for DDP: this would compare nothing")
    return clock


def _clock() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """A step is what lies between the ends of two: the dealing of its samples counts."""

        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.cpu_seconds: list[float] = []
            self._last = 0.0, 0.0

        def on_train_begin(self, *_arguments: Any, **_more: Any) -> None:
            self._last = time.perf_counter(), time.process_time()

        def on_step_end(self, *_arguments: Any, **_more: Any) -> None:
            now = time.perf_counter(), time.process_time()
            self.seconds.append(now[0] - self._last[0])
            self.cpu_seconds.append(now[1] - self._last[1])
            self._last = now

    return Clock()


if __name__ == "__main__":
    main()

"""What the original scripts left behind, made as they made it: added tokens, torch.save, PEFT's save_pretrained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.machine import JOBS

STEP = 2700


@dataclass(frozen=True, kw_only=True)
class Old:
    """An old run: its tokenizer, the matrix it trained, and the first id that it trained."""

    folder: Path
    tokenizer: Any
    matrix: Tensor  # [tokens, d], base rows and new ones
    wake_start: int  # rows of the published matrix, padding included

    def sentry(self) -> Path:
        """The Qwen script's: rows from the end of the published matrix on, in fp16."""
        rows = self.matrix[self.wake_start :].half()
        payload = {
            "embeddings": rows,
            "step": STEP,
            "best_metric": 15.05,
            "epoch": 13.4,
            "wake_start": self.wake_start,
            "num_wake": len(rows),
        }
        path = self.folder / f"sentry_step_{STEP:04d}.pt"
        torch.save(payload, path)
        return path

    def embeddings(self) -> Path:
        """The whole matrix, as `FullCheckpoint` and the last cell of the other scripts saved it."""
        path = self.folder / "embeddings.pt"
        torch.save(self.matrix, path)
        return path

    def full_checkpoint(self, *, r: int = 4, alpha: int = 8, trained: bool = True, matrix: bool = True) -> Path:
        """step_NNNN: PEFT's folder, the tokenizer, embeddings.pt and training_state.pt."""
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        folder = self.folder / f"step_{STEP:04d}"
        model = AutoModelForCausalLM.from_pretrained(JOBS / "tiny" / "model", dtype=torch.float32)
        model.resize_token_embeddings(len(self.tokenizer), mean_resizing=False)
        with torch.no_grad():
            model.get_input_embeddings().weight.copy_(self.matrix)
        targets = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]
        model = get_peft_model(
            model, LoraConfig(r=r, lora_alpha=alpha, target_modules=targets, bias="none", task_type="CAUSAL_LM")
        )
        generator = torch.Generator().manual_seed(7)
        for name, parameter in model.named_parameters():
            if trained and "lora_B" in name:
                parameter.data = 1e-2 * torch.randn(parameter.shape, generator=generator)
        model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        if matrix:
            torch.save(self.matrix, folder / "embeddings.pt")
        torch.save({"global_step": STEP, "best_metric": None, "epoch": 3.5}, folder / "training_state.pt")
        return folder


def old_run(folder: Path, *, model: Path = JOBS / "tiny" / "model", words: list[str] | None = None) -> Old:
    """Words added in the order of the lexicon, known ones left out; new rows on a sphere of 1.5 times the radius."""
    from transformers import AutoConfig, AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(model)
    words = words or (JOBS / "tiny" / "lexicon.txt").read_text(encoding="utf-8").split()
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([word for word in words if word not in known], special_tokens=False)
    config = AutoConfig.from_pretrained(model)
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(len(tokenizer), config.hidden_size, generator=generator)
    return Old(
        folder=folder,
        tokenizer=tokenizer,
        matrix=rows / rows.norm(dim=1, keepdim=True) * 0.3,
        wake_start=config.vocab_size,
    )

"""What training leaves of a chat model's manners: would it still say what the published model says?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.trials.lab import Lab

REPLY = 48  # tokens at most
QUESTIONS = (
    "What is the capital of France?",
    "Name three fruits.",
    "Write one sentence about the sea.",
    "What is 2 + 3?",
    "Who wrote Hamlet?",
    "Say hello in Spanish.",
    "What colour is the sky on a clear day?",
    "Give me a short piece of advice.",
    "What is water made of?",
    "Name a large animal that lives in Africa.",
    "What do bees make?",
    "Which month comes after May?",
)


class Chat:
    """Replies of the published model in its own format, which trained ones are asked for again."""

    def __init__(self, lab: Lab) -> None:
        self.device = lab.device
        self.replies = [_reply(lab.model(), lab.base, question, lab.device) for question in QUESTIONS]
        self.end = lab.base.eos_token_id

    def figures(self, learner: Any) -> dict[str, float]:
        """Nats per token of those replies, share of tokens still chosen first, and of ends still chosen."""
        nats, same, ends = list[Tensor](), list[Tensor](), list[Tensor]()
        for ids, begin in self.replies:
            inputs, targets = ids[None, :-1], ids[None, 1:].clone()
            targets[:, : begin - 1] = -100
            nll = learner.nll(inputs, targets)[0, begin - 1 :]
            first = _likeliest(learner, inputs)[begin - 1 :] == ids[begin:]
            nats.append(nll)
            same.append(first)
            if ids[-1] == self.end:
                ends.append(first[-1:])
        return {
            "nats": round(float(torch.cat(nats).mean()), 4),
            "same": round(float(torch.cat(same).float().mean()), 4),
            "ends": round(float(torch.cat(ends).float().mean()), 4) if ends else float("nan"),
            "replies": len(self.replies),
            "ended": len(ends),
        }


@torch.no_grad()
def _reply(model: Any, tokenizer: Any, question: str, device: str) -> tuple[Tensor, int]:
    """Prompt and greedy reply of a model, and where the reply begins."""
    said = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
    prompt = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"].to(device)
    whole = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=REPLY,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    return whole[0], prompt.shape[1]


@torch.no_grad()
def _likeliest(learner: Any, inputs: Tensor) -> Tensor:
    """The token that comes first, over all tokens, at each place. [length]"""
    states = learner.model.get_decoder()(input_ids=inputs, use_cache=False).last_hidden_state[0]
    base = getattr(learner, "base", learner)
    head = base.installed.head if hasattr(base, "installed") else base.head
    return head(states).argmax(dim=-1)

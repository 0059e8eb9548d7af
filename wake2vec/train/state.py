"""All loop state that is not a tensor."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from wake2vec.contract.ledger import EvaluationRow, from_json
from wake2vec.contract.plan import Plan


@dataclass
class LossScale:
    """Keeps fp16 gradients in range: halved when a step overflows, doubled after a run of clean steps.

    Only powers of two, so that scaling and unscaling change no bit of what does not overflow. 1 and still for other
    dtypes. Micikevicius et al. 2018, arXiv 1710.03740.
    """

    value: float
    clean_steps: int = 0
    grow_after: int = 2000

    def halve(self) -> None:
        self.value, self.clean_steps = self.value / 2, 0

    def count_clean(self) -> None:
        self.clean_steps += 1
        if self.clean_steps >= self.grow_after and 1.0 < self.value < 2.0**24:
            self.value, self.clean_steps = self.value * 2, 0


@dataclass
class Progress:
    """All loop state that is not a tensor; with the tensors it is everything a resume needs."""

    step: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)  # the ledger: one row a step, evaluations and events
    scale: LossScale = field(default_factory=lambda: LossScale(value=1.0))
    plan: Plan = field(default_factory=lambda: Plan(micro_batch=1))

    @property
    def evaluations(self) -> list[EvaluationRow]:
        found = (from_json(table) for table in self.rows if table["kind"] == EvaluationRow.kind)
        return [row for row in found if isinstance(row, EvaluationRow)]

    def to_json(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "rows": self.rows,
            "loss_scale": {"value": self.scale.value, "clean_steps": self.scale.clean_steps},
            "plan": asdict(self.plan),
        }

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Progress:
        plan = Plan.from_dict(table["plan"]) or Plan(micro_batch=1)
        return cls(step=table["step"], rows=table["rows"], scale=LossScale(**table["loss_scale"]), plan=plan)

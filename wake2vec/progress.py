"""All loop state that is not a tensor."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from wake2vec.plan import Plan
from wake2vec.step import LossScale


@dataclass
class Progress:
    """All loop state that is not a tensor; with the tensors it is everything a resume needs."""

    step: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)  # the ledger: one row a step, evaluations and events
    scale: LossScale = field(default_factory=lambda: LossScale(value=1.0))
    plan: Plan = field(default_factory=lambda: Plan(micro_batch=1))

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["kind"] == "evaluation"]

    def to_json(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "rows": self.rows,
            "loss_scale": {"value": self.scale.value, "clean_steps": self.scale.clean_steps},
            "plan": asdict(self.plan),
        }

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Progress:
        return cls(
            step=table["step"], rows=table["rows"], scale=LossScale(**table["loss_scale"]), plan=Plan(**table["plan"])
        )

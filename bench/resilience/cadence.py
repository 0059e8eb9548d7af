"""What each checkpoint policy loses on GPUs that vanish: `python -m bench.resilience.cadence` prints a table.

A simulated job of 3,000 steps is trained in sessions that live as long as Colab's T4 grants did in the history of the
original runs, give or take a fifth. Lost are the steps that must be taken again after a cut and the time in which
training waits for a checkpoint. Set-up time is the same for every policy and not counted.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wake2vec.train.cadence import Cadence, is_milestone, rolling_is_due

RESULTS = Path(__file__).parents[1] / "results" / "cadence.json"
SECONDS_PER_STEP = (9.0, 99.0, 135.0, 240.0)
STEPS = 3000
MEAN_SESSION_SECONDS = 100 * 60.0
# Grants noted between December and August: 1 h 20 to 5 h, "about two hours" typical.
OBSERVED_MINUTES = (80, 100, 110, 120, 120, 180, 190, 200, 260, 300, 300, 300)
SEEDS = 20

# Assumed for the 14B rows (0.9 GB) on a T4: the copy to the host and one forward pass of the probe block; the file and
# its upload to Drive run beside training, but what is not up when the machine goes is lost.
COST_SECONDS = 3.0
UPLOAD_SECONDS = 60.0

IsDue = Callable[[int, float], bool]  # steps completed, seconds since the last save


@dataclass(frozen=True, kw_only=True)
class Policy:
    name: str
    is_due: IsDue


def every_steps(count: int) -> Policy:
    return Policy(name=f"every {count} steps", is_due=lambda step, since: step % count == 0)


def ours(max_loss_minutes: float) -> Policy:
    cadence = Cadence(
        every_steps=200, max_loss_seconds=60 * max_loss_minutes, mean_session_seconds=MEAN_SESSION_SECONDS
    )

    def is_due(step: int, since: float) -> bool:
        return is_milestone(step, cadence, STEPS) or rolling_is_due(since, COST_SECONDS, cadence)

    return Policy(name=f"wake2vec, at most {max_loss_minutes:g} min", is_due=is_due)


def session_lives(draw: random.Random) -> float:
    """Seconds until the machine goes."""
    return 60 * draw.choice(OBSERVED_MINUTES) * draw.uniform(0.8, 1.2)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Seconds of one simulated job."""

    trained: float
    repeated: float
    waited: float
    sessions: int
    worst_loss: float

    @property
    def lost_share(self) -> float:
        return (self.repeated + self.waited) / (self.trained + self.repeated + self.waited)


def simulate(policy: Policy, seconds_per_step: float, draw: random.Random, *, most_sessions: int = 5000) -> Outcome:
    """Train to the last step. A policy that never gets past a cut gives up after `most_sessions`."""
    durable, sessions, waited, total, worst = 0, 0, 0.0, 0.0, 0.0
    while durable < STEPS and sessions < most_sessions:
        sessions += 1
        life = session_lives(draw)
        step, clock, since, pending = durable, 0.0, 0.0, []
        while step < STEPS and clock + seconds_per_step <= life:
            clock += seconds_per_step
            since += seconds_per_step
            step += 1
            if policy.is_due(step, since) or step == STEPS:
                clock += COST_SECONDS
                waited += COST_SECONDS
                pending.append((step, clock + UPLOAD_SECONDS))
                since = 0.0
        finished = step == STEPS
        durable = max([durable, *(saved for saved, up in pending if up <= life or finished)])
        total += clock
        worst = max(worst, (step - durable) * seconds_per_step)
    trained = durable * seconds_per_step
    return Outcome(
        trained=trained, repeated=max(0.0, total - trained - waited), waited=waited, sessions=sessions, worst_loss=worst
    )


@dataclass(frozen=True, kw_only=True)
class Row:
    policy: str
    seconds_per_step: float
    lost_share: float
    sessions: float
    worst_loss_minutes: float
    finished: bool


def measure(policy: Policy, seconds_per_step: float) -> Row:
    found = [simulate(policy, seconds_per_step, random.Random(seed)) for seed in range(SEEDS)]
    return Row(
        policy=policy.name,
        seconds_per_step=seconds_per_step,
        lost_share=round(sum(one.lost_share for one in found) / SEEDS, 4),
        sessions=sum(one.sessions for one in found) / SEEDS,
        worst_loss_minutes=round(max(one.worst_loss for one in found) / 60, 1),
        finished=all(one.trained >= STEPS * seconds_per_step for one in found),
    )


def policies() -> Sequence[Policy]:
    return (every_steps(200), every_steps(50), every_steps(20), every_steps(1), ours(10.0), ours(5.0), ours(1.0))


def table(rows: Sequence[Row]) -> str:
    lines = [f"{'policy':<26}" + "".join(f"{seconds:>9.0f} s/step" for seconds in SECONDS_PER_STEP)]
    for policy in policies():
        cells = [row for row in rows if row.policy == policy.name]
        shown = [f"{100 * row.lost_share:.1f} %" if row.finished else "never ends" for row in cells]
        lines.append(f"{policy.name:<26}" + "".join(f"{text:>16}" for text in shown))
    return "\n".join(lines)


def main() -> int:
    rows = [measure(policy, seconds) for policy in policies() for seconds in SECONDS_PER_STEP]
    print("share of GPU time lost to cuts and to saving, mean of", SEEDS, "runs of", STEPS, "steps")
    print(table(rows))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    body = {
        "what": "share of GPU time lost to repeated steps and to waiting for checkpoints",
        "steps": STEPS,
        "seeds": SEEDS,
        "cost_seconds": COST_SECONDS,
        "upload_seconds": UPLOAD_SECONDS,
        "rows": [vars(row) for row in rows],
    }
    RESULTS.write_text(json.dumps(body, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

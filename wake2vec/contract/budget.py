"""Memory and time of a job before either is spent: what each part of a step holds, and how long a card takes.

Bytes and operations follow from the shapes. The formulas are held against measured peaks by `bench`. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from wake2vec.contract.models.model_shapes import ModelShape
from wake2vec.contract.plan import Plan
from wake2vec.contract.spec import JobTable

GIB = 1 << 30
Trained = Literal["p1", "p2", "p3"]  # rows, adapters, or both
RowSets = Literal["shared", "separate", "input"]
Load = Literal["nf4", "int8", "fp16", "bf16", "fp32"]
BLOCK_BYTES = 64 << 20  # of one block of fp32 logits: wake2vec.model.loss
WORKSPACE_BYTES = 64 << 20  # cuBLAS and cuBLASLt, 32 MiB each


@dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU: what PyTorch can use of it, and the rates it sustains in large products and copies."""

    name: str
    memory_gib: float
    half_tflops: float
    bandwidth_gbs: float
    capability: tuple[int, int]
    link_gbs: float = 5.0  # what adding up over the cards of a host gets: through its memory, for want of NVLink
    overhead_gib: float = 0.45  # CUDA context, cuBLAS workspace, fragmentation under expandable segments


def _card(name: str, memory: float, tflops: float, bandwidth: float, major: int, minor: int) -> Card:
    return Card(name=name, memory_gib=memory, half_tflops=tflops, bandwidth_gbs=bandwidth, capability=(major, minor))


# T4: 24 TFLOP/s is what its 70 W sustain in fp16 (NVIDIA, forums.developer.nvidia.com/t/264462), 14.56 GiB what recent
# drivers leave. H100: measured by bench. The others: two thirds of the data sheet's dense fp16 rate, 0.75 of bandwidth.
CARDS: dict[str, Card] = {
    card.name: card
    for card in (
        _card("t4", 14.56, 24, 240, 7, 5),
        _card("p100", 15.89, 12.5, 550, 6, 0),
        _card("v100", 15.77, 75, 675, 7, 0),
        _card("l4", 22.03, 60, 225, 8, 9),
        _card("a10g", 22.06, 47, 450, 8, 6),
        _card("rtx3090", 23.69, 47, 700, 8, 6),
        _card("rtx4090", 23.64, 110, 756, 8, 9),
        _card("l40s", 44.39, 240, 648, 8, 9),
        _card("a100", 39.39, 210, 1170, 8, 0),
        _card("a100-80g", 79.15, 210, 1500, 8, 0),
        replace(_card("h100", 79.10, 640, 2600, 9, 0), link_gbs=300.0),
    )
}


def trained_by(job: JobTable) -> Trained:
    """Of what kind a job is, whatever its phase is called."""
    rows = job.lora is not None and job.lora.train in ("lora+rows", "rows")
    return "p3" if rows else "p1" if job.phase == "p1" else "p2"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What a step has to do."""

    shape: ModelShape
    phase: Trained
    load: Load
    new_tokens: int
    rows: RowSets  # resolved, not auto
    row_bytes: int = 4  # of a number of the new rows; their gradient and optimizer state are fp32 all the same
    batch: int
    seq_len: int
    optimizer: Literal["adafactor", "adamw"] = "adafactor"
    rank: int = 8  # of LoRA
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj")
    in_flight: int = 1  # micro-batches between their passes at once: more where layers are dealt out to several cards

    @property
    def number_bytes(self) -> int:
        """Of one number in the body's arithmetic."""
        return 4 if self.load == "fp32" else 2

    @property
    def row_sets(self) -> int:
        return 1 if self.rows == "shared" else 2

    @property
    def trained_row_sets(self) -> int:
        return 0 if self.phase == "p2" else 2 if self.rows == "separate" else 1

    @property
    def adapter_weights(self) -> int:
        """Weights of all LoRA matrices."""
        if self.phase == "p1":
            return 0
        s = self.shape
        query, group = s.heads * s.head_dim, s.groups * s.head_dim
        sides = {
            "q_proj": s.width + query,
            "k_proj": s.width + group,
            "v_proj": s.width + group,
            "o_proj": s.width + query,
            "gate_proj": s.width + s.feed,
            "up_proj": s.width + s.feed,
            "down_proj": s.width + s.feed,
            "qkv_proj": s.width + query + 2 * group,
            "gate_up_proj": s.width + 2 * s.feed,
            "c_attn": s.width + query + 2 * group,
            "c_fc": s.width + s.feed,
            "mlp.c_proj": s.width + s.feed,
        }
        return s.layers * self.rank * sum(sides.get(target, 0) for target in self.targets)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Bytes of each part at the peak of a step."""

    body: int
    head: int
    embedding: int
    rows: int
    adapters: int
    gradients: int
    optimizer: int
    kept: int  # activations between forward and backward
    working: int  # of the layer, the loss or the update in progress, whichever is largest with what is kept then

    @property
    def total(self) -> int:
        return sum(getattr(self, name) for name in self.__dataclass_fields__)


def budget(job: Workload, plan: Plan) -> Budget:
    """Peak device memory of a step, as PyTorch's allocator counts it."""
    shape = job.shape
    tokens = plan.micro_batch * job.seq_len // plan.block_splits
    kept, working = _activations(job, plan, tokens)
    matrix = shape.matrix_rows * shape.width * job.number_bytes
    return Budget(
        body=_body(job),
        head=matrix,
        embedding=0 if plan.embedding == "host" or shape.tied else matrix,
        rows=_rows(job, plan),
        adapters=job.adapter_weights * 4,
        gradients=trained_bytes(job),
        optimizer=_optimizer(job),
        kept=kept,
        working=working,
    )


def _body(job: Workload) -> int:
    shape, weights = job.shape, job.shape.body_weights
    # NF4 with double quantisation: half a byte, one byte in 64 for the scale, four in 64 * 256 for the scale of scales
    held = {"nf4": weights // 2 + weights // 64 + weights // 4096, "int8": weights, "fp32": 4 * weights}
    rest = (2 * shape.layers + 1) * shape.width
    if shape.family == "qwen2":
        rest += shape.layers * (shape.heads + 2 * shape.groups) * shape.head_dim
    return held.get(job.load, 2 * weights) + rest * job.number_bytes


def _rows(job: Workload, plan: Plan) -> int:
    """New rows: as the job holds them while they train, afterwards no wider than the base rows of their side."""
    numbers = job.new_tokens * job.shape.width
    if job.phase != "p2":
        return job.row_bytes * job.row_sets * numbers
    sides = 1 if plan.embedding == "host" or job.rows == "shared" else 2
    return sides * numbers * min(job.row_bytes, job.number_bytes)


def _optimizer(job: Workload) -> int:
    trained = job.trained_row_sets * job.new_tokens * job.shape.width + job.adapter_weights
    if job.optimizer == "adamw":
        return 8 * trained
    return 4 * job.trained_row_sets * (job.new_tokens + job.shape.width) + 4 * job.adapter_weights // max(1, job.rank)


def kept_width(shape: ModelShape) -> int:
    """Numbers that the lean path keeps for each token and layer: two norm inputs, q, k, v, gate, up."""
    bare = shape.heads + shape.groups if shape.family == "qwen3" else 0  # q and k before their norms
    return 2 * shape.width + (shape.heads + 2 * shape.groups + bare) * shape.head_dim + 2 * shape.feed


def _activations(job: Workload, plan: Plan, tokens: int) -> tuple[int, int]:
    """Bytes kept between the passes, and of the work in progress when both together are largest."""
    shape, b = job.shape, job.number_bytes
    one_input = tokens * shape.width * b
    one_layer = tokens * kept_width(shape) * b
    kept = {
        "lean": shape.layers * one_layer,
        "checkpoint": shape.layers * one_input,
        "offload": 2 * one_input,
        "recompute": shape.layers * one_input,
        "autograd": 2 * shape.layers * one_layer,  # measured: 1.8 to 2.3 times the lean path
    }[plan.layers] * min(job.in_flight, job.batch // plan.micro_batch * plan.block_splits)
    return kept, max(_loss_work(job, tokens), _layer_work(job, plan, tokens))


def _loss_work(job: Workload, tokens: int) -> int:
    """Hidden states, their gradient in fp32 and below, one block of logits with its copies, and cuBLAS's workspace."""
    block = max(1024, min(8192, BLOCK_BYTES // (4 * max(tokens, 1)) // 64 * 64))
    hidden = tokens * job.shape.width * (2 * job.number_bytes + 4 + job.number_bytes)
    logits = tokens * block * (4 + 4 + job.number_bytes)
    weights = 4 * block * job.shape.width
    return hidden + logits + weights + WORKSPACE_BYTES


def _layer_work(job: Workload, plan: Plan, tokens: int) -> int:
    """One layer's backward pass: what it recomputed, the gradients in flight and a dequantised weight."""
    shape, b = job.shape, job.number_bytes
    again = {"lean": 0, "autograd": 0, "recompute": 2}.get(plan.layers, 1)  # the library's layer keeps twice as much
    recomputed = again * tokens * kept_width(shape) * b
    gradients = tokens * (2 * shape.width + 3 * shape.feed) * b
    weight = shape.largest_linear * b if job.load in ("nf4", "int8") else 0
    return recomputed + gradients + weight


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a step costs at least: operations and bytes through device memory."""

    flop: float
    moved: float

    def seconds(self, tflops: float, bandwidth_gbs: float) -> float:
        """Without any overlap of arithmetic and copies."""
        return self.flop / (tflops * 1e12) + self.moved / (bandwidth_gbs * 1e9)


def trained_bytes(job: Workload) -> int:
    """Of the gradient in fp32, which the cards of a group add up once a step."""
    return 4 * (job.trained_row_sets * job.new_tokens * job.shape.width + job.adapter_weights)


def exchange_seconds(job: Workload, card: Card, cards: int) -> float:
    """To add it up in a ring, not overlapped with anything."""
    return 2 * (cards - 1) / cards * trained_bytes(job) / (card.link_gbs * 1e9)


def work(job: Workload, plan: Plan) -> Work:
    """Floor of one step on a path: 2 FLOP per weight, token and pass; each weight dequantised once a pass."""
    shape = job.shape
    tokens = job.batch * job.seq_len
    micro_batches = job.batch // plan.micro_batch * plan.block_splits
    recomputed = {"lean": 0, "autograd": 0, "recompute": shape.body_weights}.get(
        plan.layers, shape.body_weights - shape.down_weights
    )
    passes = 2 * shape.body_weights + recomputed
    context = job.seq_len // plan.block_splits
    attention = shape.layers * 2 * context * shape.heads * shape.head_dim  # causal: half of 4 * s * h * e
    vocabulary = shape.tokenizer_length + job.new_tokens
    head = 4 * vocabulary * shape.width
    rows = 2 * job.new_tokens * shape.width if job.trained_row_sets and job.rows != "input" else 0
    adapters = 6 * job.adapter_weights
    dequantised = {"nf4": 2.515, "int8": 3.0}.get(job.load, float(job.number_bytes))  # bytes read and written
    matrices = 3 * vocabulary * shape.width * 2  # the head is read for logits, for gradients, and as the rows' gradient
    return Work(
        flop=tokens * (2.0 * passes + 3.5 * attention + head + rows + adapters),
        moved=micro_batches * (passes * dequantised + matrices),
    )

"""What a published model is, by content: hashes of its weights, its settings, its tokenizer and the code it brings."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from wake2vec.contract.errors import CheckpointCorrupt, InputError, ModelChanged, ModelError
from wake2vec.contract.files import digest_file, read_json, write_json
from wake2vec.contract.manifest import STATE, read_manifest, saved_steps
from wake2vec.contract.models.weight_files import SINGLE
from wake2vec.contract.order import Order
from wake2vec.contract.rundir import RunDir
from wake2vec.data.tokens import fingerprint as cut_and_vocabulary
from wake2vec.model.published_files import Origin

# Of config.json: where it lay, who wrote it, and the dtype, which a job chooses for itself.
NO_MATTER = ("_name_or_path", "transformers_version", "torch_dtype", "dtype")
YOUNG_NS = 2_000_000_000  # a file changed so lately may change again within one tick of its file system's clock
PUT_BACK = "put that model back and release the job; to train on this one, enqueue the file under another name"
SHOWN = 12  # characters of a hash


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Equal by content; where it lies is for people, and a commit that changed no file that matters is no change."""

    base: str
    commit: str | None  # on the hub
    weights: dict[str, str]  # file → sha256
    settings: dict[str, Any]  # its config.json
    tokenizer: str
    code: str

    @property
    def key(self) -> str:
        """Another one for another model."""
        settings = {key: value for key, value in self.settings.items() if key not in NO_MATTER}
        return _hash([sorted(self.weights.values()), settings, self.tokenizer, self.code])

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> Identity:
        return cls(**{field.name: table[field.name] for field in fields(cls)})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def differences(was: Identity, now: Identity) -> list[str]:
    """What is not as it was, each with both values; empty for the same model."""
    found = []
    if sorted(was.weights.values()) != sorted(now.weights.values()):
        name = next(name for name in {**was.weights, **now.weights} if was.weights.get(name) != now.weights.get(name))
        found.append(_told(f"sha256 of {name}", was.weights.get(name), now.weights.get(name)))
    for key in sorted({*was.settings, *now.settings} - set(NO_MATTER)):
        if was.settings.get(key) != now.settings.get(key):
            found.append(_told(f"{key} in config.json", was.settings.get(key), now.settings.get(key), most=60))
    for what, before, here in (("tokenizer", was.tokenizer, now.tokenizer), ("code", was.code, now.code)):
        if before != here:
            found.append(_told(f"sha256 of its {what}", before, here))
    return found


def _told(what: str, was: Any, now: Any, most: int = SHOWN) -> str:
    before, here = ("none" if value is None else str(value)[:most] for value in (was, now))
    return f"{what} was {before}, is {here}"


def require_same(was: Identity | None, now: Identity, remedy: str = PUT_BACK) -> None:
    """Raises ModelChanged, naming what it was and is. What a job of an older version began with is not known."""
    if was is None or was.key == now.key:
        return
    found = differences(was, now)
    at = f", which it read from {was.base}" if was.base != now.base else ""
    more = f"; {len(found) - 3} more" if len(found) > 3 else ""
    raise ModelChanged(
        f"model.base = {now.base}",
        f"is not the model that this job began with{at}: {'; '.join(found[:3])}{more}",
        remedy,
    )


def began_with(run: RunDir, order: Order) -> Identity | None:
    """The model that the newest checkpoint was trained on, or the P1 that a P2 stands on; None before there is one."""
    folders = [run.checkpoint(step) for step in saved_steps(run)]
    if order.source is not None:
        folders.append(run.checkpoint(order.source.step, order.source.folder))
    tables = (_noted(folder) for folder in folders)
    return next((Identity.from_json(table) for table in tables if table), None)


def _noted(folder: Path) -> dict[str, Any] | None:
    with suppress(CheckpointCorrupt, OSError):
        if digest_file(folder / STATE) == read_manifest(folder).files[STATE]:
            found = (read_json(folder / STATE) or {}).get("model")
            return found if isinstance(found, dict) else None
    return None


def pinned(run: RunDir, order: Order, *, at_once: bool = False) -> Order:
    """The order at the commit that the job began with: a name on the hub may move on. `at_once`: or at that of now."""
    table, was = order.job.model, began_with(run, order)
    if table is None or Path(table.base).is_dir():
        return order
    commit = was.commit if was else None
    if commit is None and at_once:
        with suppress(OSError, ValueError):  # no such name, or no network: whoever reads the tokenizer says so
            commit = commit_of(Origin(path=table.base, revision=table.revision))
    model = table.model_copy(update={"revision": commit or table.revision})
    return order.model_copy(update={"job": order.job.model_copy(update={"model": model})})


def trained_order(run: RunDir) -> Order:
    """The order of a run whose results are used. Raises InputError."""
    try:
        return pinned(run, Order.model_validate(read_json(run.order)))
    except ValidationError as error:
        remedy = "restore the run directory, or retry the job"
        raise InputError(run.order, "is missing or not an order", remedy) from error


def commit_of(origin: Origin) -> str | None:
    """By the folder of the hub's cache that its config lies in; None for a folder of one's own."""
    path = None if Path(origin.path).is_dir() else origin.file("config.json")
    return path.parent.name if path is not None and re.fullmatch(r"[0-9a-f]{40}", path.parent.name) else None


def identify(origin: Origin, tokenizer: Any, digests: Digests) -> Identity:
    """Reads every byte of the weights, unless their hashes are known. `tokenizer` is the published one."""
    config, rules = origin.file("config.json"), origin.file("tokenizer.json")
    return Identity(
        base=origin.path,
        commit=commit_of(origin),
        weights={name: digests.of(path) for name in weight_files(origin) if (path := origin.file(name))},
        settings=(read_json(config) if config else None) or {},
        tokenizer=_hash([cut_and_vocabulary(tokenizer), read_json(rules) if rules else None]),
        code=_code(config.parent) if config and origin.trust_remote_code else "",
    )


def identify_beside(origin: Origin, tokenizer: Any, digests: Digests) -> Future[Identity]:
    """The same in a thread: while the model is loaded, both read the same pages of the same files in the same order.

    Whole files and not tensors are hashed, since that is what the hub names its files by: those cost nothing at all.
    """
    future: Future[Identity] = Future()

    def run() -> None:
        try:
            future.set_result(identify(origin, tokenizer, digests))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="identity", daemon=True).start()
    return future


def weight_files(origin: Origin) -> list[str]:
    index = origin.index()
    return [SINGLE] if index is None else sorted(set(index.values()))


def _code(folder: Path) -> str:
    return _hash([(path.name, path.read_text("utf-8", "replace")) for path in sorted(folder.glob("*.py"))])


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class Digests:
    """sha256 of large files, remembered with their size, times and inode: each is read for it once on a machine."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def of(self, path: Path) -> str:
        """Raises ModelError when the file changes meanwhile."""
        path = path.resolve()
        if path.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", path.name):
            return path.name  # the hub's cache names a large file by its sha256
        sign = _sign(path)
        known = (self._read().get(str(path))) or {}
        if known.get("sign") == sign:
            return str(known["sha256"])
        is_settled, sha256 = time.time_ns() - sign[2] > YOUNG_NS, sha256_of(path)
        if _sign(path) != sign:
            raise ModelError(path, "changed while it was read", "start again when it is at rest")
        if is_settled:
            with suppress(OSError):  # it is hashed again next time
                write_json(self._place, self._read() | {str(path): {"sign": sign, "sha256": sha256}}, durable=False)
        return sha256

    def _read(self) -> dict[str, Any]:
        table = read_json(self._place)
        return table if isinstance(table, dict) else {}


def _sign(path: Path) -> list[int]:
    """No program can set the third, the time of the last change of any kind, to what it was."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests_of(order: Order) -> Digests:
    """Those of the home that the order comes from."""
    return Digests(Path(order.inputs_folder).with_name("digests.json"))

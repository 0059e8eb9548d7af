"""The store seam: what every place that outlives a session promises, whatever keeps the bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from wake2vec.contract.files import FileDigest

Progress = Callable[[int], None]  # called with the bytes of this object that have arrived so far


@dataclass(frozen=True, kw_only=True)
class Properties:
    """In what stores differ, as data: nobody asks for a store's type."""

    place: str  # for people: "Google Drive, folder wake2vec"
    single_writer: bool = False  # no exclusive create behind it: two runners must never share this store
    firm_head: bool = True  # False: two who swap a HEAD at once may both be told True; the log decides all the same
    ids_once: bool = False  # an id whose record was deleted is spent: a log with a gap can never be added to
    remote: bool = False  # reached over a network, so worth a process of its own and a progress bar
    at_once: int = 1  # so many `put` may run side by side, each in a thread of its own
    together: bool = False  # those that run side by side land in one write, and writes are counted there
    pace: float = 1.0  # how many times rarer than elsewhere signs of life and copies of the queue are written


@dataclass(frozen=True, kw_only=True)
class Stat:
    """What the store says of an object; hashes are None where it does not keep them."""

    id: str
    size: int
    md5: str | None = None
    sha256: str | None = None
    created_at: float | None = None  # seconds since 1970 by the store's own clock
    in_bin: bool = False  # it, or a folder that it lies in, was thrown away and can still be had back


@dataclass(frozen=True, kw_only=True)
class Quota:
    """Room in bytes; `free` and `total` are None where there is no limit or none is known."""

    free: int | None
    total: int | None = None


class Store(Protocol):
    """Immutable objects, records with exactly one author, and small documents that change by compare-and-swap.

    A *name* is a path for people such as `jobs/qwen_p1/checkpoint-200.*/state.json`. Its one `*` is where a store that
    addresses by path puts what makes the id fresh; the others leave `.*` out. An *id* is opaque, belongs to one store,
    and is all that is ever needed to reach what it stands for. No store repeats a call by itself: `RetryingStore` does,
    so every method may be called again after any failure and must then end in the same state.

    Every method raises StoreUnavailable or one of its kinds: StoreBusy when a repetition may help, StoreFull,
    SignInNeeded. An id or a name that leads out of the store raises ValueError.
    """

    @property
    def properties(self) -> Properties: ...

    def root_id(self) -> str:
        """The id of the first record of the root log: the same for everyone who opens this store, on any machine."""

    def renew_root(self) -> None:
        """Make room for a new root log where the old one is gone for good; only ever on a person's word."""

    def new_ids(self, names: Sequence[str]) -> list[str]:
        """Fresh ids for things that belong together, one per name. Nothing is stored yet, and nobody else gets them."""

    def put(self, path: Path, *, id: str, name: str, digest: FileDigest, progress: Progress | None = None) -> None:
        """Store the file under an id from `new_ids`. When it returns, the store holds every byte, checked by hash.

        An object is never seen half written and never changes. If the id holds these bytes already, nothing is sent.
        A transfer that was cut, by whatever, goes on where it stopped when the store can do that.
        Raises Damaged when the file is not what `digest` says, or the id holds something else.
        """

    def get(self, id: str, path: Path, *, digest: FileDigest, progress: Progress | None = None) -> None:
        """Make `path` the object, verified and durable. An existing `path` is replaced only by verified bytes.

        A part that an earlier call left beside it (`.part`) is continued. Raises NotStored or Damaged.
        """

    def stat(self, id: str) -> Stat | None:
        """What the store holds under the id, or None; true at once after `put`, `create` and `delete`."""

    def delete(self, *ids: str) -> None:
        """Remove the objects for good and free their room. Nothing happens with one that is not there."""

    def find(self, folder: str) -> Iterator[Stat]:
        """The objects whose name lies under `folder`, records and documents too. May lag: only good for orphans."""

    def quota(self) -> Quota: ...

    def create(self, id: str, body: bytes, *, name: str) -> bool:
        """Store a small record if nothing is under the id. Among any number of callers exactly one ever gets True,
        unless the store is for a single writer.

        After a lost answer the record may be there: False then means to `read` it and look whose it is.
        """

    def read(self, id: str) -> bytes | None:
        """The body of a record, whole and as created, or None; true at once after `create`."""

    def read_head(self, id: str) -> tuple[bytes, str] | None:
        """The body of a small replaceable document and the tag that `swap_head` wants, or None."""

    def silence(self, id: str) -> float | None:
        """Seconds since a record or document was last written, all by the store's own clock; None where it has none."""

    def swap_head(self, id: str, body: bytes, tag: str | None, *, name: str) -> bool:
        """Replace the document if its tag is still this one; None creates it.

        True is final where `properties.firm_head`. False may be wrong, because tags can move by themselves: read
        again, decide, try again.
        """

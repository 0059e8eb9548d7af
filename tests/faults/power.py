"""A disk that forgets: what a process did not fsync may be gone after a power cut, whole or in part.

`install` makes os.fsync note what is durable from then on; after a SIGKILL `lose_power` rebuilds the folder as a disk
might show it. Contents that were not fsynced come back empty, torn or whole; names that came, went or changed since
their directory's last fsync come back as before or as after. A rename stays one event, as on a journalling file
system. What SQLite or another library fsyncs from C is not seen here.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

JOURNAL = "journal.jsonl"
Names = dict[str, int]  # of a directory: name -> inode; the names of folders end in a slash


def remember(root: Path, shadow: Path) -> None:
    """Take all of `root` as durable: what an earlier life left there is on the disk."""
    shutil.rmtree(shadow, ignore_errors=True)
    shadow.mkdir(parents=True)
    with open(shadow / JOURNAL, "w") as journal:
        for number, path in enumerate([root, *sorted(root.rglob("*"))]):
            found = {"names": _names(path)} if path.is_dir() else _content_of(path, shadow / f"before-{number}")
            journal.write(json.dumps({"inode": path.stat().st_ino, **found}) + "\n")


def install(root: Path, shadow: Path) -> None:
    """From now on every os.fsync of this process is noted below `shadow`."""
    real, numbers = os.fsync, itertools.count()
    journal = os.open(shadow / JOURNAL, os.O_WRONLY | os.O_APPEND)
    held: dict[int, int] = {}  # inode -> an open handle, so that no number is given out twice

    def hold(path: Path) -> int:
        handle = os.open(path, os.O_RDONLY)
        inode = os.fstat(handle).st_ino
        if held.setdefault(inode, handle) != handle:
            os.close(handle)
        return inode

    def names_of(folder: Path) -> Names:
        names = {}
        for path in folder.iterdir():
            with suppress(FileNotFoundError):  # another thread renamed it away
                names[_name(path)] = hold(path)
        return names

    def fsync(handle: int) -> None:
        real(handle)
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        blob = shadow / f"{os.getpid()}-{next(numbers)}"
        entry = {"inode": hold(path), **({"names": names_of(path)} if path.is_dir() else _content_of(path, blob))}
        os.write(journal, (json.dumps(entry) + "\n").encode())

    for path in (root, *root.rglob("*")):
        hold(path)

    os.fsync = fsync  # type: ignore[assignment]


def _content_of(path: Path, blob: Path) -> dict[str, object]:
    shutil.copyfile(path, blob)
    return {"blob": blob.name}


def _names(folder: Path) -> Names:
    return {_name(path): path.stat().st_ino for path in folder.iterdir()}


def _name(path: Path) -> str:
    return f"{path.name}/" if path.is_dir() else path.name


def lose_power(root: Path, shadow: Path, draw: random.Random) -> None:
    """Replace `root` by what a disk may hold that obeyed no more than the fsyncs asked for."""
    disk = _Disk.read(root, shadow, draw)
    rebuilt = root.with_name(root.name + ".after")
    disk.rebuild(root.stat().st_ino, f"{rebuilt}/")
    shutil.rmtree(root)
    rebuilt.rename(root)


@dataclass(kw_only=True)
class _Disk:
    draw: random.Random
    live: dict[int, Path]  # what the page cache held when the power went
    contents: dict[int, Path] = field(default_factory=dict)  # fsynced
    folders: dict[int, Names] = field(default_factory=dict)  # fsynced

    @classmethod
    def read(cls, root: Path, shadow: Path, draw: random.Random) -> _Disk:
        disk = cls(draw=draw, live={path.stat().st_ino: path for path in [root, *root.rglob("*")]})
        for line in (shadow / JOURNAL).read_text().splitlines():
            entry = json.loads(line)
            if "names" in entry:
                disk.folders[entry["inode"]] = entry["names"]
            else:
                disk.contents[entry["inode"]] = shadow / entry["blob"]
        return disk

    def rebuild(self, inode: int, place: str) -> None:
        if not place.endswith("/"):
            Path(place).write_bytes(self._content(inode))
            return
        Path(place).mkdir()
        for name, child in self._entries(inode):
            self.rebuild(child, place + name)

    def _content(self, inode: int) -> bytes:
        kept = self.contents[inode].read_bytes() if inode in self.contents else b""
        path = self.live.get(inode)
        if path is None or (new := path.read_bytes()) == kept:
            return kept
        torn = new[: self.draw.randrange(len(new) + 1)]
        return self.draw.choice([kept, torn, torn + bytes(len(new) - len(torn)), new])

    def _entries(self, inode: int) -> Iterator[tuple[str, int]]:
        path = self.live.get(inode)
        before, after = self.folders.get(inode, {}), (_names(path) if path else {})
        taken: dict[int, bool] = {}  # a file that was renamed is found under one name or the other, never under none
        for name in sorted(before.keys() | after.keys()):
            old, new = before.get(name), after.get(name)
            moved = next((one for one in (old, new) if one in taken), None)
            is_after = taken[moved] if moved is not None else self.draw.random() < 0.5
            taken |= {one: is_after for one in (old, new) if one is not None}
            chosen = new if is_after else old
            if chosen is not None:
                yield name, chosen

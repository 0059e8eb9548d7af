"""What every store must do. A store's own tests subclass `StoreSuite` and say how to open and how to damage it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runner.errors import Damaged, NotStored
from runner.store.base import Store
from wake2vec.contract.files import FileDigest, digest_file, write_json
from wake2vec.contract.manifest import CHECKPOINT_FILES, Manifest

Open = Callable[[], Store]  # each call is another client of the same place
NAME = "jobs/q/checkpoints/checkpoint-200.*/trainable.safetensors"


def written(path: Path, body: bytes) -> tuple[Path, FileDigest]:
    path.write_bytes(body)
    return path, digest_file(path)


def stored(store: Store, path: Path, body: bytes, name: str = NAME) -> tuple[str, FileDigest]:
    source, digest = written(path, body)
    [id] = store.new_ids([name])
    store.put(source, id=id, name=name, digest=digest)
    return id, digest


def checkpoint(folder: Path, step: int, salt: str = "", size: int = 20_000) -> Path:
    """A checkpoint whose optimizer state is the same at every step, as frozen things are; `size` is of each file."""
    place = folder / f"checkpoint-{step}"
    place.mkdir(parents=True)
    for name in CHECKPOINT_FILES:
        line = f"{name} {'' if 'optimizer' in name else step}{salt}\n".encode()
        (place / name).write_bytes(line * (size // len(line) + 1))
    files = {name: digest_file(place / name) for name in CHECKPOINT_FILES}
    manifest = Manifest(job="q", step=step, fingerprint="f", parent=None, probe_loss=None, files=files)
    write_json(place / "manifest.json", manifest.to_json())
    return place


class StoreSuite:
    """Fixtures to give: `open_store` (an `Open`) and `damage` (flip a byte of what is stored under an id)."""

    @pytest.fixture
    def store(self, open_store: Open) -> Store:
        return open_store()

    def test_everyone_finds_the_same_root(self, open_store: Open) -> None:
        assert open_store().root_id() == open_store().root_id()

    def test_ids_are_never_given_twice(self, open_store: Open) -> None:
        first, second = open_store(), open_store()

        ids = [
            id for store in (first, second) for _ in range(20) for id in store.new_ids([NAME, NAME.replace("tr", "x")])
        ]

        assert len(set(ids)) == 80

    @pytest.mark.parametrize("size", [0, 1, 256 << 10, (256 << 10) + 1, 1_000_003])
    def test_what_is_put_comes_back(self, store: Store, tmp_path: Path, size: int) -> None:
        body = bytes(range(256)) * (size // 256 + 1)
        id, digest = stored(store, tmp_path / "in", body[:size])

        store.get(id, tmp_path / "out", digest=digest)

        assert (tmp_path / "out").read_bytes() == body[:size]
        assert not (tmp_path / "out.part").exists()

    def test_a_stat_tells_size_and_age(self, store: Store, tmp_path: Path) -> None:
        id, digest = stored(store, tmp_path / "in", b"riverrun")

        stat = store.stat(id)

        assert stat is not None
        assert (stat.id, stat.size) == (id, 8)
        assert (stat.md5 or digest.md5) == digest.md5
        assert stat.created_at is not None

    def test_progress_ends_at_the_size(self, store: Store, tmp_path: Path) -> None:
        source, digest = written(tmp_path / "in", b"x" * 600_000)
        [id] = store.new_ids([NAME])
        sent: list[int] = []
        received: list[int] = []

        store.put(source, id=id, name=NAME, digest=digest, progress=sent.append)
        store.get(id, tmp_path / "out", digest=digest, progress=received.append)

        assert (sent[-1], received[-1]) == (600_000, 600_000)
        assert sent == sorted(sent)

    def test_putting_twice_is_putting_once(self, open_store: Open, tmp_path: Path) -> None:
        source, digest = written(tmp_path / "in", b"past Eve and Adam's")
        [id] = open_store().new_ids([NAME])

        for _ in range(2):
            open_store().put(source, id=id, name=NAME, digest=digest)

        assert [stat.id for stat in open_store().find("jobs/q/checkpoints")] == [id]

    def test_a_file_that_changed_since_it_was_hashed_is_not_kept(self, store: Store, tmp_path: Path) -> None:
        source, digest = written(tmp_path / "in", b"from swerve of shore")
        source.write_bytes(b"from swerve of shara")
        [id] = store.new_ids([NAME])

        with pytest.raises(Damaged):
            store.put(source, id=id, name=NAME, digest=digest)

        assert store.stat(id) is None

    def test_an_object_never_changes(self, store: Store, tmp_path: Path) -> None:
        id, digest = stored(store, tmp_path / "in", b"to bend of bay")
        source, other = written(tmp_path / "other", b"to bend of bar")

        with pytest.raises(Damaged):
            store.put(source, id=id, name=NAME, digest=other)

        store.get(id, tmp_path / "out", digest=digest)
        assert (tmp_path / "out").read_bytes() == b"to bend of bay"

    def test_a_part_is_continued(self, store: Store, tmp_path: Path) -> None:
        body = bytes(range(256)) * 4096
        id, digest = stored(store, tmp_path / "in", body)
        (tmp_path / "out.part").write_bytes(body[:700_000])
        received: list[int] = []

        store.get(id, tmp_path / "out", digest=digest, progress=received.append)

        assert (tmp_path / "out").read_bytes() == body
        assert min(received) > 700_000

    @pytest.mark.parametrize("size", [100, 1000, 5000])
    def test_a_rotten_part_does_not_become_the_file(self, store: Store, tmp_path: Path, size: int) -> None:
        id, digest = stored(store, tmp_path / "in", b"a" * 1000)
        (tmp_path / "out.part").write_bytes(b"b" * size)

        store.get(id, tmp_path / "out", digest=digest)

        assert (tmp_path / "out").read_bytes() == b"a" * 1000

    def test_damage_in_the_store_is_found_and_replaces_nothing(
        self, store: Store, damage: Callable[[str], None], tmp_path: Path
    ) -> None:
        id, digest = stored(store, tmp_path / "in", b"brings us by a commodius vicus")
        (tmp_path / "out").write_bytes(b"older")
        damage(id)

        with pytest.raises(Damaged):
            store.get(id, tmp_path / "out", digest=digest)

        assert (tmp_path / "out").read_bytes() == b"older"

    def test_what_is_not_stored_is_said_so(self, store: Store, tmp_path: Path) -> None:
        [id] = store.new_ids([NAME])
        _, digest = written(tmp_path / "in", b"x")

        assert store.stat(id) is None
        assert store.read(id) is None
        assert store.read_head(id) is None
        with pytest.raises(NotStored):
            store.get(id, tmp_path / "out", digest=digest)

    def test_a_deleted_object_is_gone_and_may_be_deleted_again(self, store: Store, tmp_path: Path) -> None:
        id, _ = stored(store, tmp_path / "in", b"x")

        store.delete(id)
        store.delete(id)

        assert store.stat(id) is None

    def test_find_lists_a_folder_and_what_is_below_it(self, store: Store, tmp_path: Path) -> None:
        here, _ = stored(store, tmp_path / "1", b"1", "jobs/q/checkpoints/checkpoint-1.*/state.json")
        below, _ = stored(store, tmp_path / "2", b"2", "jobs/q/checkpoints/old/checkpoint-2.*/state.json")
        stored(store, tmp_path / "3", b"3", "jobs/r/checkpoints/checkpoint-3.*/state.json")

        assert sorted(stat.id for stat in store.find("jobs/q/checkpoints")) == sorted([here, below])
        assert list(store.find("jobs/nobody")) == []

    def test_a_record_has_one_author(self, open_store: Open) -> None:
        [id] = open_store().new_ids(["jobs/q/log/000001.*.json"])

        assert open_store().create(id, b"first", name="jobs/q/log/000001.*.json")
        assert not open_store().create(id, b"second", name="jobs/q/log/000001.*.json")
        assert open_store().read(id) == b"first"

    def test_of_many_who_create_one_wins(self, open_store: Open) -> None:
        if open_store().properties.single_writer:
            pytest.skip("it says of itself that two writers are one too many")
        name = "jobs/q/log/000002.*.json"
        for _ in range(10):
            [id] = open_store().new_ids([name])
            clients = [open_store() for _ in range(6)]

            def race(number: int, id: str = id, clients: list[Store] = clients) -> bool:
                return clients[number].create(id, b"%d" % number, name=name)

            with ThreadPoolExecutor(6) as pool:
                won = list(pool.map(race, range(6)))

            assert won.count(True) == 1
            assert open_store().read(id) == b"%d" % won.index(True)

    def test_a_head_is_replaced_by_whoever_read_it_last(self, open_store: Open) -> None:
        [id] = open_store().new_ids(["jobs/q/head.*.json"])
        first, second = open_store(), open_store()

        assert first.swap_head(id, b"0", None, name="jobs/q/head.*.json")
        assert not second.swap_head(id, b"x", None, name="jobs/q/head.*.json")
        body, tag = first.read_head(id) or (b"", "")
        assert body == b"0"
        assert second.swap_head(id, b"1", tag, name="jobs/q/head.*.json")
        assert not first.swap_head(id, b"x", tag, name="jobs/q/head.*.json")
        assert (first.read_head(id) or (b"", ""))[0] == b"1"

    def test_of_many_who_swap_with_one_tag_one_wins(self, open_store: Open) -> None:
        if not open_store().properties.firm_head:
            pytest.skip("it says of itself that its HEAD is a hint")
        name = "jobs/q/head.*.json"
        [id] = open_store().new_ids([name])
        assert open_store().swap_head(id, b"-", None, name=name)
        for _ in range(10):
            clients = [open_store() for _ in range(4)]
            _, tag = clients[0].read_head(id) or (b"", "")

            def race(number: int, tag: str = tag, clients: list[Store] = clients) -> bool:
                return clients[number].swap_head(id, b"%d" % number, tag, name=name)

            with ThreadPoolExecutor(4) as pool:
                won = list(pool.map(race, range(4)))

            assert won.count(True) == 1
            assert (open_store().read_head(id) or (b"", ""))[0] == b"%d" % won.index(True)

    @pytest.mark.parametrize(
        "name", ["../out.*", "/etc/*", "jobs/../../*", "jobs//*", "jobs/.*/x", "jobs/a\\..\\*", ""]
    )
    def test_no_name_leads_out_of_the_store(self, store: Store, name: str) -> None:
        with pytest.raises(ValueError, match="name"):
            store.new_ids([name])

    def test_the_room_is_known_or_said_to_be_unknown(self, store: Store) -> None:
        quota = store.quota()

        assert quota.free is None or quota.free >= 0
        assert store.properties.place

"""Look at a model on the hub through its small files: what it refuses is the job's fault, being out of reach is not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.jobfile.modelcheck import Seen, look, read_object, vocabulary, weight_files
from wake2vec.contract.errors import ModelError
from wake2vec.contract.models.weight_files import INDEX

SECONDS = 5.0  # that the hub has to answer
SMALL = ("tokenizer.json", "vocab.json", "added_tokens.json", INDEX)  # beside config.json


def look_up(base: str, revision: str) -> Seen | None:
    """From the local cache, or the hub; None where nobody can say. Raises ModelError for a model that cannot be had."""
    from huggingface_hub import errors

    login = "accept its licence on its page, then `hf auth login`, or set HF_TOKEN"
    folder = _cached(base, revision)
    if folder is not None and _is_whole(folder):
        return look(folder)
    try:
        return _ask(base, revision)
    except errors.GatedRepoError as error:
        raise ModelError(base, "is gated, and the hub does not let this account have it", login) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(base, "is not on the hub, or is private", f"check its name; if private: {login}") from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(base, f"has no revision {revision} on the hub", "check model.revision") from error
    except errors.EntryNotFoundError as error:
        raise ModelError(base, "has no config.json on the hub", "choose one that transformers can load") from error
    except ModelError:
        raise
    except Exception:  # the network or the cache: the trainer asks again
        folder = _cached(base, revision)
        return None if folder is None else _seen(folder, {})


def _cached(base: str, revision: str) -> Path | None:
    """The snapshot in the local cache that has a config.json."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(base, "config.json", revision=revision)
    return Path(path).parent if isinstance(path, str) else None


def _is_whole(folder: Path) -> bool:
    """Whether a snapshot in the cache has its weights; a download may have been cut."""
    try:
        return bool(weight_files(folder, {path.name for path in folder.iterdir()}, ""))
    except ModelError:
        return False


def _ask(base: str, revision: str) -> Seen:
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url

    # one question without a second try: a hub that is far away must not hold up the queue
    get_hf_file_metadata(hf_hub_url(base, "config.json", revision=revision), timeout=SECONDS)
    listed = HfApi().model_info(base, revision=revision, timeout=SECONDS).siblings or ()
    names = {file.rfilename for file in listed}
    folder = Path(hf_hub_download(base, "config.json", revision=revision)).parent
    for name in names.intersection(SMALL):
        hf_hub_download(base, name, revision=revision)
    shapes: dict[str, Sequence[int]] = {}
    for file in weight_files(folder, names, base):
        header = HfApi().parse_safetensors_file_metadata(base, file, revision=revision)
        shapes |= {name: one.shape for name, one in header.tensors.items()}
    return _seen(folder, shapes)


def _seen(folder: Path, shapes: dict[str, Sequence[int]]) -> Seen:
    return Seen(config=read_object(folder / "config.json"), shapes=shapes, vocabulary=vocabulary(folder))

"""Ask the hub for a model's config.json: what it refuses is the job's fault, that it cannot be reached is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wake2vec.contract.errors import ModelError

SECONDS = 5.0  # that the hub has to answer


def hub_config(base: str, revision: str) -> dict[str, Any] | None:
    """None where nobody can say. Raises ModelError for a model that is gated or not there."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    login = "accept its licence on its page, then `hf auth login`, or set HF_TOKEN"
    try:
        path = try_to_load_from_cache(base, "config.json", revision=revision)
        if not isinstance(path, str):
            # one question without a second try: a hub that is far away must not hold up the queue
            get_hf_file_metadata(hf_hub_url(base, "config.json", revision=revision), timeout=SECONDS)
            path = hf_hub_download(base, "config.json", revision=revision)
        found = json.loads(Path(path).read_bytes())
    except errors.GatedRepoError as error:
        raise ModelError(base, "is gated, and the hub does not let this account have it", login) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(base, "is not on the hub, or is private", f"check its name; if private: {login}") from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(base, f"has no revision {revision} on the hub", "check model.revision") from error
    except errors.EntryNotFoundError as error:
        raise ModelError(base, "has no config.json on the hub", "choose one that transformers can load") from error
    except Exception:  # the network or the cache: the trainer asks again
        return None
    return found if isinstance(found, dict) else None

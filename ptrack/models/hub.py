"""Published weights: from the cache, or from the Hugging Face hub with progress and resume.

Honours ``HF_HUB_OFFLINE``, ``HF_ENDPOINT`` and ``HF_HOME`` as they are at the time of the call.
"""

from __future__ import annotations

import os
from pathlib import Path

from ptrack.errors import CheckpointError


def _cache() -> Path:
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()


def fetch(repo: str, filename: str, *, option: str = "--checkpoint") -> Path:
    """Return the local path of a file on the hub, downloading it if it is not in the cache.

    A broken download is resumed by the next call.

    Args:
        repo: "owner/name".
        filename: in the repository.
        option: how the user can give the file instead, for messages.

    Raises:
        CheckpointError: not in the cache, and offline or not reachable; the sentence says which file goes where.
    """
    from huggingface_hub import hf_hub_download

    cache = _cache()
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    address = f"{endpoint or 'https://huggingface.co'}/{repo}/resolve/main/{filename}"
    try:
        return Path(
            hf_hub_download(
                repo, filename, cache_dir=cache, endpoint=endpoint, local_files_only=offline, etag_timeout=10
            )
        )
    except Exception as error:  # the client raises its own errors, those of its HTTP library, and OSError
        reason = "HF_HUB_OFFLINE is set" if offline else _reason(error)
        raise CheckpointError(
            f"The weights {filename} are not in the cache {cache} and cannot be downloaded ({reason}): "
            f"fetch {address} elsewhere and give the file with {option}."
        ) from error


def _reason(error: BaseException) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"the server answered {status}: the files need an account that has accepted their licence"
    if status is not None:
        return f"the server answered {status}"
    return type(error).__name__ if not str(error) else str(error).strip().splitlines()[0].rstrip(".")[:120]

"""Published weights: from the cache, or from the Hugging Face hub or another server with progress and resume.

Honours ``HF_HUB_OFFLINE``, ``HF_ENDPOINT`` and ``HF_HOME`` as they are at the time of the call. Files of other servers
are cached under ``XDG_CACHE_HOME``, by default ``~/.cache/ptrack``.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import socket
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from ptrack.errors import CheckpointError
from ptrack.fileio import sha256_of

TRIES = 5  # times that a download which breaks off is taken up again
SECONDS = 10  # without an answer until a server counts as not reachable
BLOCK = 1 << 20  # bytes received at a time


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
        CheckpointError: not in the cache, and offline or not reachable; the sentence names which file goes where.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    cache = _cache()
    known = try_to_load_from_cache(repo, filename, cache_dir=cache)
    if isinstance(known, str):
        return Path(known)
    offline = _offline()
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
    address = f"{endpoint or 'https://huggingface.co'}/{repo}/resolve/main/{filename}"
    try:
        if not offline:
            _check_reachable(address)
        return Path(
            hf_hub_download(
                repo, filename, cache_dir=cache, endpoint=endpoint, local_files_only=offline, etag_timeout=10
            )
        )
    except Exception as error:  # the client raises its own errors, those of its HTTP library, and OSError
        raise _unavailable(filename, cache, address, option, _reason(error)) from error


def fetch_address(address: str, *, sha256: str = "") -> Path:
    """Return the local path of a file on a plain web server, downloading it if it is not in the cache.

    A broken download is resumed, by this call or the next one. What arrives is compared with ``sha256`` or, without it,
    with the checksum that the server sends along, if any.

    Args:
        address: of the file.
        sha256: of its content, where known.

    Raises:
        CheckpointError: not in the cache, and offline, not reachable, or not what was expected; the sentence
            names which file goes where.
    """
    from huggingface_hub.utils import WeakFileLock

    parts = urllib.parse.urlsplit(address)
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "ptrack"
    target = cache / (parts.hostname or "") / parts.path.lstrip("/")
    if target.is_file():
        return target
    try:
        if _offline():
            raise OSError("HF_HUB_OFFLINE is set")
        target.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(target.with_name(f"{target.name}.lock")):  # another process may be at it
            if not target.is_file():
                _download(address, target, sha256)
    except (OSError, http.client.HTTPException) as error:
        raise _unavailable(target.name, cache, address, "--checkpoint", _reason(error)) from error
    return target


def _download(address: str, target: Path, sha256: str) -> None:
    """Receive a file beside its final place, check it and move it there; raises OSError or HTTPException."""
    part = target.with_name(f"{target.name}.part")
    for left in reversed(range(TRIES)):
        before = part.stat().st_size if part.is_file() else 0
        try:
            checksum = _receive(address, part)
            break
        except urllib.error.HTTPError as error:
            if error.code != 416 or not left:  # 416: what is there goes beyond the file
                raise
            part.unlink()
        except (OSError, http.client.HTTPException):
            if not left or not part.is_file() or part.stat().st_size <= before:  # no progress: it will not come
                raise
    _tag(part).unlink(missing_ok=True)
    if (sha256 and sha256_of(part) != sha256) or (checksum and _md5(part) != checksum):
        part.unlink()
        raise OSError("what arrived is not the file: its checksum is another")
    os.replace(part, target)


def _receive(address: str, part: Path) -> str:
    """Add to ``part`` what is missing, and return the server's MD5 of the whole file as base64, "" without one."""
    from huggingface_hub.utils import tqdm

    start = part.stat().st_size if part.is_file() else 0
    tag = _tag(part).read_text() if _tag(part).is_file() else ""
    headers = {"Range": f"bytes={start}-", "If-Range": tag} if start and tag else {}
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=SECONDS) as answer:
        start = start if answer.status == 206 else 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        _tag(part).write_text(answer.headers.get("ETag", ""))
        with (
            open(part, "ab" if start else "wb") as file,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.name.removesuffix(".part")) as bar,
        ):
            while block := answer.read(BLOCK):
                file.write(block)
                bar.update(len(block))
        if total is not None and part.stat().st_size < total:
            raise OSError("the connection broke off")
        hashes = ",".join(answer.headers.get_all("x-goog-hash", []))
        return next((h.strip()[4:] for h in hashes.split(",") if h.strip().startswith("md5=")), "")


def _tag(part: Path) -> Path:
    """Return where the server's name for the version of a partial file is kept."""
    return part.with_name(f"{part.name}.etag")


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "md5").digest()).decode()


def _check_reachable(address: str) -> None:
    """Raise OSError where no way leads to the server: the hub's client tries for 30 to 46 s before it reports so."""
    parts = urllib.parse.urlsplit(address)
    if parts.scheme in urllib.request.getproxies():
        return  # the proxy finds the way
    port = parts.port or {"http": 80}.get(parts.scheme, 443)
    socket.create_connection((parts.hostname or "", port), timeout=SECONDS / 2).close()


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _unavailable(filename: str, cache: Path, address: str, option: str, reason: str) -> CheckpointError:
    reason = "HF_HUB_OFFLINE is set" if _offline() else reason
    return CheckpointError(
        f"The weights {filename} are not in the cache {cache} and cannot be downloaded ({reason}): "
        f"fetch {address} elsewhere and give the file with {option}."
    )


def _reason(error: BaseException) -> str:
    given: Any = error
    status = getattr(getattr(given, "response", None), "status_code", None) or getattr(given, "code", None)
    if isinstance(given, urllib.error.URLError) and isinstance(given.reason, BaseException):
        given = given.reason  # the message of the error itself is a representation of that
    if status in (401, 403):
        return f"the server answered {status}: the files need an account that has accepted their licence"
    if status is not None:
        return f"the server answered {status}"
    if isinstance(given, OSError) and given.strerror:
        return given.strerror
    return type(given).__name__ if not str(given) else str(given).strip().splitlines()[0].rstrip(".")[:120]

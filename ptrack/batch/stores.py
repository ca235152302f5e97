"""Files behind URLs, through fsspec: ``s3://``, ``gs://``, ``https://`` and what else it knows.

Credentials are the libraries' own matter (environment variables, configuration files, roles). A file is fetched whole
before it is read; outputs are uploaded whole, and the status file, which makes a job done, comes last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ptrack.errors import InputError, PTrackError, TransientError
from ptrack.fileio import temporary_folder

VIDEOS = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "m2v", "ts", "mts", "m2ts", "vob", "mxf"),
        *("wmv", "asf", "flv", "ogv", "3gp", "3g2", "gif", "h264", "h265", "hevc", "y4m", "dv"),
    )
)
STORES = ("s3://", "s3a://", "gs://", "gcs://", "az://", "abfs://", "abfss://", "sftp://", "memory://")
_WEB = re.compile(r"^https?://", re.IGNORECASE)
OBJECT_STORES = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"))  # an upload appears when whole
SILENCE_SECONDS = 60.0  # without a byte until a web server is given up
_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "crc32c", "Last-Modified", "LastModified", "mtime")


def is_remote(source: str) -> bool:
    """Return whether a source is a file behind a URL, to be fetched: a store's, or a video file on the web."""
    if source.lower().startswith(STORES):
        return True
    return bool(_WEB.match(source)) and Path(urlsplit(source).path).suffix.lower() in VIDEOS


def open_store(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL and the path in it.

    Raises:
        InputError: the kind of address is unknown or its library is not installed.
    """
    scheme = urlsplit(url).scheme.lower()
    try:
        import fsspec

        options: dict[str, Any] = {"use_listings_cache": False}
        if scheme in ("http", "https"):
            options["client_kwargs"] = {"timeout": _patience()}
        return fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{url}: {scheme}:// addresses need a library that is not installed ({error}); "
            "install it with: pip install 'pointtrack[cloud]'."
        ) from error


def _patience() -> Any:
    import aiohttp

    return aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS)


def _problem(url: str, error: Exception, kind: type[PTrackError]) -> PTrackError:
    """Return the error to raise for what a store's library raised: another try may help unless it is a refusal."""
    if isinstance(error, FileNotFoundError):
        return kind(f"There is no file {url}.")
    refused = isinstance(error, PermissionError) or type(error).__name__ in (
        "NoCredentialsError",
        "PartialCredentialsError",
        "TokenRetrievalError",
        "DefaultCredentialsError",
    )
    status = getattr(error, "status", None)  # of web servers
    if refused or status in (401, 403):
        return kind(f"{url} is refused ({_words(error)}). Check the address and the credentials.")
    if isinstance(status, int) and 400 <= status < 500:
        return kind(f"{url} cannot be had (the server answers {status}).")
    return TransientError(f"{url} cannot be reached or broke off ({_words(error)}).")


def _words(error: Exception) -> str:
    return (str(error) or type(error).__name__).rstrip(".")


@contextmanager
def store_errors(url: str, kind: type[PTrackError]) -> Iterator[None]:
    """Turn what a store's library raises into ``kind`` or TransientError."""
    try:
        yield
    except PTrackError:
        raise
    except Exception as error:  # the libraries raise many kinds
        raise _problem(url, error, kind) from error


def expand_remote(url: str) -> list[str]:
    """Return the videos that a URL stands for: itself, those that match a pattern, or those in a folder.

    Raises:
        InputError: the store cannot be reached, or there are none.
    """
    pattern = any(sign in url for sign in "*[")
    if not pattern and Path(urlsplit(url).path).suffix.lower() in VIDEOS:
        return [url]
    store, path = open_store(url)
    with store_errors(url, InputError):
        found = store.glob(path) if pattern else store.ls(path, detail=False)
    found = sorted(p for p in found if Path(p).suffix.lower() in VIDEOS)
    if not found:
        raise InputError(f"{url} holds no videos; name one, a folder of them, or a pattern such as s3://BUCKET/*.mp4.")
    return [store.unstrip_protocol(p) for p in found]


def remote_content(url: str) -> dict[str, Any]:
    """Return what a store states about a file: its size and a checksum, version or time.

    Raises:
        InputError: there is no such file, or it is refused.
        TransientError: the store cannot be reached.
    """
    store, path = open_store(url)
    with store_errors(url, InputError):
        info = store.info(path)
    marks = [f"{name}: {info[name]}" for name in _MARKS if info.get(name)]
    return {"url": url, "size": info.get("size"), "mark": marks[0] if marks else ""}


@contextmanager
def fetched(source: str) -> Iterator[str]:
    """Yield the name of a local copy of a file behind a URL, removed afterwards; of another source, its own.

    Raises:
        InputError, TransientError: as ``remote_content``; what arrives is shorter than the store states.
    """
    if not is_remote(source):
        yield source
        return
    store, path = open_store(source)
    with temporary_folder() as folder:
        local = folder / (Path(urlsplit(source).path).name or "video")
        with store_errors(source, InputError):
            expected = store.info(path).get("size")
            store.get_file(path, str(local))
        size = local.stat().st_size
        if expected is not None and size != expected:
            raise TransientError(f"{source} was cut off: {size} of {expected} bytes arrived.")
        yield str(local)

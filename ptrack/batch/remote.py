"""Sources and outputs behind URLs, through fsspec: ``s3://``, ``gs://``, ``https://`` and what else it knows.

Credentials are the libraries' own matter (environment variables, configuration files, roles). A file is fetched whole
before it is read; outputs are uploaded whole, and the status file, which makes a job done, comes last.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ptrack.batch.jobs import VIDEOS
from ptrack.batch.places import temporary_folder
from ptrack.batch.worker import TransientError
from ptrack.errors import InputError, OutputError, PTrackError

OBJECT_STORES = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "memory"))  # an upload appears when whole
SILENCE_SECONDS = 60.0  # without a byte until a web server is given up
_MARKS = ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "crc32c", "Last-Modified", "LastModified", "mtime")


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
def _sentences(url: str, kind: type[PTrackError]) -> Iterator[None]:
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
    with _sentences(url, InputError):
        found = store.glob(path) if pattern else store.ls(path, detail=False)
    found = sorted(p for p in found if Path(p).suffix.lower() in VIDEOS)
    if not found:
        raise InputError(f"{url} holds no videos; name one, a folder of them, or a pattern such as s3://BUCKET/*.mp4.")
    return [store.unstrip_protocol(p) for p in found]


def remote_content(url: str) -> dict[str, Any]:
    """Return what a store says about a file: its size and a checksum, version or time.

    Raises:
        InputError: there is no such file, or it is refused.
        TransientError: the store cannot be reached.
    """
    store, path = open_store(url)
    with _sentences(url, InputError):
        info = store.info(path)
    marks = [f"{name}: {info[name]}" for name in _MARKS if info.get(name)]
    return {"url": url, "size": info.get("size"), "mark": marks[0] if marks else ""}


@contextmanager
def fetched(url: str) -> Iterator[Path]:
    """Yield a local copy of a file, removed afterwards.

    Raises:
        InputError, TransientError: as ``remote_content``; what arrives is shorter than the store says.
    """
    store, path = open_store(url)
    with temporary_folder() as folder:
        local = folder / (Path(urlsplit(url).path).name or "video")
        with _sentences(url, InputError):
            expected = store.info(path).get("size")
            store.get_file(path, str(local))
        size = local.stat().st_size
        if expected is not None and size != expected:
            raise TransientError(f"{url} was cut off: {size} of {expected} bytes arrived.")
        yield local


class RemotePlace:
    """A folder behind a URL."""

    def __init__(self, url: str) -> None:
        self.name = url.rstrip("/")
        self._store, self._root = open_store(self.name)
        self._root = self._root.rstrip("/")
        self._whole = urlsplit(url).scheme.lower() in OBJECT_STORES

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, None if there is no such file."""
        with _sentences(f"{self.name}/{name}", OutputError):
            try:
                return self._store.cat_file(self._path(name))
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """Write or replace a whole file."""
        with temporary_folder() as folder:
            (folder / name).write_bytes(data)
            self.commit(folder, name)

    def create(self, name: str, data: bytes) -> bool:
        """Write a file only if there is none of that name."""
        with _sentences(f"{self.name}/{name}", OutputError):
            if self._store.exists(self._path(name)):
                return False
        self.write(name, data)
        return True

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        with _sentences(f"{self.name}/{name}", OutputError):
            try:
                self._store.rm_file(self._path(name))
            except FileNotFoundError:
                return

    def sizes(self) -> dict[str, int]:
        """Return the names of all files with their sizes in bytes."""
        with _sentences(self.name, OutputError):
            try:
                found = self._store.ls(self._root, detail=True)
            except FileNotFoundError:
                return {}
        return {entry["name"].rpartition("/")[2]: entry["size"] for entry in found if entry["type"] == "file"}

    def size(self, name: str) -> int | None:
        """Return a file's size in bytes, None if there is no such file."""
        with _sentences(f"{self.name}/{name}", OutputError):
            try:
                return self._store.info(self._path(name))["size"]
            except FileNotFoundError:
                return None

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """Yield a temporary folder; what is committed from it is uploaded."""
        with temporary_folder() as folder:
            yield folder

    def commit(self, folder: Path, name: str) -> None:
        """Upload a file: at once where uploads appear whole, elsewhere under a temporary name that is then changed."""
        with _sentences(f"{self.name}/{name}", OutputError):
            if self._whole:
                self._store.put_file(str(folder / name), self._path(name))
                return
            temporary = self._path(f".{name}.{secrets.token_hex(4)}.tmp")
            self._store.makedirs(self._root, exist_ok=True)
            self._store.put_file(str(folder / name), temporary)
            self._store.mv(temporary, self._path(name))

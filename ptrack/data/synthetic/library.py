"""Which actors and photos a clip may use: the packaged small set, or folders, parted into train and validation."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ptrack.errors import DataError

ASSETS = Path(__file__).parent / "assets"
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SPLITS = ("train", "val", "all")


@dataclass(frozen=True)
class Library:
    """Files of one split. No file of "train" is in "val"."""

    animated: tuple[Path, ...]
    static: tuple[Path, ...]
    photos: tuple[Path, ...]


def _family(path: Path, parts: int) -> str:
    """Return the name without trailing numbers and variants: models of a family look alike and stay in one split."""
    words = [w for w in path.stem.lower().split("_") if not w.isdigit()]
    return "_".join(words[:parts]).rstrip("0123456789") or path.stem


def in_validation(key: str) -> bool:
    """Return whether a family of files belongs to the validation split: one in five, by the name's hash."""
    return hashlib.sha256(key.encode()).digest()[0] % 5 == 0


def _chosen(paths: list[Path], split: str, parts: int) -> tuple[Path, ...]:
    if split == "all":
        return tuple(paths)
    return tuple(p for p in paths if in_validation(_family(p, parts)) == (split == "val"))


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted((p for p in folder.rglob("*") if p.suffix.lower() in suffixes), key=lambda p: p.as_posix())


@lru_cache(maxsize=32)
def open_library(actors_dir: str | None, textures_dir: str | None, split: str) -> Library:
    """Return the files of a split: the packaged set and what the folders add to it.

    Args:
        actors_dir: folder with actors (.npz), searched with its subfolders, or None.
        textures_dir: folder with pictures, searched with its subfolders, or None.
        split: "train", "val" or "all".

    Raises:
        DataError: a folder does not exist or holds nothing of the kind.
    """
    if split not in SPLITS:
        raise DataError(f"There is no split '{split}' of the synthetic world; choose one of {', '.join(SPLITS)}.")
    actors = _gather(actors_dir, "actors", (".npz",), "actors (.npz)")
    photos = _gather(textures_dir, "photos", PHOTO_SUFFIXES, "pictures")
    animated = [p for p in actors if _is_animated(p)]
    static = [p for p in actors if p not in set(animated)]
    return Library(_chosen(animated, split, 9), _chosen(static, split, 2), _chosen(photos, split, 9))


def _gather(folder: str | None, packaged: str, suffixes: tuple[str, ...], what: str) -> list[Path]:
    """Return the packaged files and those of a folder; of two with one name, the folder's."""
    files = {p.stem: p for p in _files(ASSETS / packaged, suffixes)}
    if folder is not None:
        if not Path(folder).is_dir():
            raise DataError(f"The folder {folder} with {what} does not exist.")
        more = {p.stem: p for p in _files(Path(folder), suffixes)}
        if not more:
            raise DataError(f"There are no {what} in {folder}.")
        files |= more
    return [files[name] for name in sorted(files)]


def _is_animated(path: Path) -> bool:
    """Return whether an actor file has an animation, reading no more than its list of arrays."""
    if path.parent.name in ("animated", "static"):
        return path.parent.name == "animated"
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.startswith("clip/") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is not a readable actor (.npz): {error}.") from error

"""Converting a dataset into clip stores: which clips, in which file, and what became of each.

Clips are loaded one by one in this process, or by a loader that gives them in order, such as the worker processes of
``ptrack.batch.converting``.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ptrack.data import images
from ptrack.data.clips import ArrayFrames, Clip
from ptrack.data.hdf5 import open_store
from ptrack.data.journal import check_free
from ptrack.data.packing import CodecChoice, Packed, PackedFrames, pack
from ptrack.data.source import ClipRef, Source
from ptrack.data.store_writer import StoreWriter
from ptrack.errors import DataError, Interrupted, OutputError, PTrackError, did_you_mean
from ptrack.fileio import check_writable


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """How to convert."""

    codec: CodecChoice = "keep"  # "keep": the source's own bytes, and its default codec where it has none
    quality: int = images.JPEG_QUALITY  # of JPEG encoding, 1..100
    shards: int = 1  # number of files the clips are divided over
    limit: int | None = None  # only the first so many clips
    clips: tuple[str, ...] = ()  # only these names, ids or patterns with *
    strict: bool = False  # a clip with a damaged frame is skipped instead of marked
    overwrite: bool = False  # replace finished files and start partial ones again

    def __post_init__(self) -> None:
        if self.codec not in ("keep", "jpeg", "png", "raw"):
            raise DataError(f"--codec must be keep, jpeg, png or raw, not '{self.codec}'.")
        for name, low, high in (("quality", 1, 100), ("shards", 1, 100_000)):
            if not low <= getattr(self, name) <= high:
                raise DataError(f"--{name} must be in {low}..{high}, not {getattr(self, name)}.")
        if self.limit is not None and self.limit < 1:
            raise DataError(f"--limit must be at least 1, not {self.limit}.")


@dataclass(frozen=True)
class ConvertEvent:
    """One clip is done; for progress bars."""

    position: int  # from 1
    total: int
    id: str
    outcome: str  # "written" or "skipped"
    reason: str = ""


@dataclass
class Report:
    """What a conversion did."""

    files: list[str] = field(default_factory=list)
    clips: int = 0  # in the files, kept ones included
    kept: int = 0  # of these, from an earlier interrupted run
    frames: int = 0
    points: int = 0  # tracks
    bytes: int = 0  # of the files
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (clip id, reason)
    damaged: list[tuple[str, int, str]] = field(default_factory=list)  # (clip id, frame, reason), clip kept
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return asdict(self)


Progress = Callable[[ConvertEvent], None]
Loaded = tuple[ClipRef, Packed | PTrackError]
Loader = Callable[[Source, Sequence[ClipRef], ConvertOptions, Path], Iterator[Loaded]]


def plan(source: Source, options: ConvertOptions) -> tuple[list[ClipRef], list[str]]:
    """Return the clips to convert, and remarks; equal ids get a number so that no clip is lost.

    Raises:
        DataError: the dataset is empty, or a name in ``options.clips`` matches nothing.
    """
    refs, notes, seen = [], [], {}
    for ref in source.refs():
        seen[ref.id] = seen.get(ref.id, 0) + 1
        if seen[ref.id] > 1:
            new = f"{ref.id}#{seen[ref.id]}"
            notes.append(f"Two clips are called '{ref.id}'; the later one is stored as '{new}'.")
            ref = replace(ref, id=new)
        refs.append(ref)
    if options.clips:
        refs = _chosen(refs, options.clips)
    return refs[: options.limit], notes


def _chosen(refs: list[ClipRef], patterns: Sequence[str]) -> list[ClipRef]:
    def match(ref: ClipRef, pattern: str) -> bool:
        return pattern in (ref.name, ref.id) or fnmatchcase(ref.name, pattern) or fnmatchcase(ref.id, pattern)

    for pattern in patterns:
        if not any(match(ref, pattern) for ref in refs):
            hint = did_you_mean(pattern, [r.name for r in refs])
            raise DataError(f"--clips: there is no clip '{pattern}'.{hint}")
    return [ref for ref in refs if any(match(ref, p) for p in patterns)]


def shard_paths(out: Path, shards: int) -> list[Path]:
    """Return the file of each shard: ``out`` itself, or ``name-00000-of-00004.h5``."""
    if shards == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{i:05d}-of-{shards:05d}{out.suffix}") for i in range(shards)]


def partial_path(path: Path) -> Path:
    """Return where a file is written until it is whole: a hidden sibling."""
    return path.with_name(f".{path.name}.partial")


def one_by_one(source: Source, refs: Sequence[ClipRef], options: ConvertOptions, target: Path) -> Iterator[Loaded]:
    """Yield clips in order, loaded in this process."""
    for ref in refs:
        yield ref, load_packed(source, ref, options)


def jobs_folder(path: Path) -> Path:
    """Return where worker processes leave clips for a file, and what became of each: a hidden sibling."""
    return path.with_name(f".{path.name}.jobs")


def convert(
    source: Source,
    out: Path | str,
    options: ConvertOptions,
    progress: Progress | None = None,
    loader: Loader = one_by_one,
) -> Report:
    """Convert a dataset; an interrupted conversion goes on where it stopped when it is started again.

    Args:
        source: the dataset.
        out: the HDF5 file; with several shards the pattern of their names.
        options: see ``ConvertOptions``.
        progress: called in this process after each clip.
        loader: gives the clips that a file still needs, in order, packed or with what is wrong with them.

    Returns:
        What was written, skipped and found damaged. The files are complete even if clips were skipped.

    Raises:
        OutputError: a finished file exists, the disk is full, or a partial file was begun with other options.
        DataError: the dataset is empty, or not one clip could be converted.
        Interrupted: Ctrl-C; what was written is kept.
    """
    out = Path(out)
    if out.suffix not in (".h5", ".hdf5"):
        raise OutputError(f"{out}: name the output .h5.")
    refs, notes = plan(source, options)
    targets = shard_paths(out, options.shards)
    _check_targets(targets, options)
    report = Report(notes=notes)
    for index, path in enumerate(targets):
        low, high = (len(refs) * i // len(targets) for i in (index, index + 1))
        if path.exists() and not options.overwrite:
            report.kept += _count(path, report)
        else:
            _convert_file(source, refs, range(low, high), path, options, report, progress, loader)
    if report.clips == 0:
        for path in report.files:
            Path(path).unlink()
        first = f" The first: {report.skipped[0][1]}" if report.skipped else ""
        raise DataError(f"None of the {len(refs)} clips of {source.root} could be converted.{first}")
    return report


def _check_targets(targets: list[Path], options: ConvertOptions) -> None:
    """Refuse finished output before anything is read; with --overwrite only what is partial goes away now."""
    if options.overwrite:
        for target in targets:
            path = partial_path(target)
            check_free(path)
            path.unlink(missing_ok=True)
            path.with_name(path.name + ".undo").unlink(missing_ok=True)
            shutil.rmtree(jobs_folder(target), ignore_errors=True)
    open_targets = [p for p in targets if options.overwrite or not p.exists()]
    check_writable((open_targets or targets)[0], overwrite=options.overwrite)


def _count(path: Path, report: Report) -> int:
    """Add a finished file to the report; return the number of its clips."""
    with open_store(path) as file:
        index: Any = file["index"]
        clips = len(index["id"])
        report.frames += int(index["num_frames"][()].sum())
        report.points += int(index["num_tracks"][()].sum())
    report.clips += clips
    report.files.append(str(path))
    report.bytes += path.stat().st_size
    return clips


def deciding_settings(source: Source, options: ConvertOptions) -> dict[str, Any]:
    """Return what decides the content of a file; it is stored in it and must be equal to go on."""
    return {
        "source": source.name,
        "codec": options.codec,
        "default_codec": source.default_codec,
        "quality": options.quality,
        "strict": options.strict,
    } | source.settings()


def _convert_file(
    source: Source,
    refs: list[ClipRef],
    span: range,
    path: Path,
    options: ConvertOptions,
    report: Report,
    progress: Progress | None,
    loader: Loader,
) -> None:
    """Write one shard, going on with its partial file if there is one."""
    writer = StoreWriter(partial_path(path), deciding_settings(source, options))
    ids = [refs[i].id for i in span]
    try:
        if unknown := sorted(set(writer.done) - set(ids)):
            raise OutputError(
                f"The partial file of {path} holds the clip '{unknown[0]}', which is not asked for now; "
                "use the same options to go on, or --overwrite to start again."
            )
        kept = len(writer.done)
        todo = [refs[i] for i in span if refs[i].id not in writer.done]
        for number, (ref, result) in enumerate(loader(source, todo, options, path), span.start + kept + 1):
            outcome = _write(writer, ref, result, options, report)
            if progress is not None:
                progress(ConvertEvent(number, len(refs), ref.id, *outcome))
        finished = bool(writer.done) or options.shards > 1
        if finished:
            writer.finish(ids, path)
        else:
            writer.discard()
    except (KeyboardInterrupt, Interrupted) as error:
        raise Interrupted(
            f"Stopped. {len(writer.done)} clips are kept beside {path}; run the same command again to go on.",
            error.signum if isinstance(error, Interrupted) else signal.SIGINT,
        ) from None
    finally:
        writer.close()
    shutil.rmtree(jobs_folder(path), ignore_errors=True)
    if finished:
        report.kept += kept
        _count(path, report)


def _write(
    writer: StoreWriter, ref: ClipRef, result: Packed | PTrackError, options: ConvertOptions, report: Report
) -> tuple[str, str]:
    """Store one loaded clip or note why not; return (outcome, reason)."""
    if isinstance(result, Packed) and options.strict and result.damaged:
        frame, reason = result.damaged[0]
        result = DataError(f"{ref.id}: frame {frame} is damaged. {reason}")
    if isinstance(result, PTrackError):
        report.skipped.append((ref.id, str(result)))
        return "skipped", str(result)
    writer.add(result.clip)
    report.damaged += [(ref.id, frame, reason) for frame, reason in result.damaged]
    return "written", ""


def load_packed(source: Source, ref: ClipRef, options: ConvertOptions) -> Packed | PTrackError:
    """Load and check one clip; return what is wrong with it where it cannot be used."""
    try:
        clip = source.load(ref)
        return pack(replace(clip, id=ref.id), options.codec, source.default_codec, options.quality)
    except PTrackError as error:
        return type(error)(str(error))  # without its traceback, which may hold what cannot be pickled
    except Exception as error:  # what damaged data can raise is without end, and the other clips must go on
        return DataError(f"{ref.id} cannot be read ({type(error).__name__}: {error}).")


def dry_run(source: Source, options: ConvertOptions, loader: Loader = one_by_one) -> Report:
    """Load and check every clip as ``convert`` would, writing nothing; ``bytes`` is an estimate."""
    refs, notes = plan(source, options)
    report = Report(notes=notes)
    with tempfile.TemporaryDirectory(prefix="ptrack-") as folder:
        for ref, result in loader(source, refs, options, Path(folder) / "dry.h5"):
            if isinstance(result, PTrackError) or (options.strict and result.damaged):
                reason = str(result) if isinstance(result, PTrackError) else result.damaged[0][1]
                report.skipped.append((ref.id, reason))
                continue
            report.clips += 1
            report.frames += result.clip.num_frames
            report.points += result.clip.num_tracks
            report.bytes += _stored_bytes(result.clip)
            report.damaged += [(ref.id, frame, reason) for frame, reason in result.damaged]
    return report


def _stored_bytes(clip: Clip) -> int:
    frames = clip.frames
    size = frames.array.nbytes if isinstance(frames, ArrayFrames) else 0
    size = frames.data.nbytes if isinstance(frames, PackedFrames) else size
    return size + clip.tracks.nbytes + (0 if clip.trajs_3d is None else clip.trajs_3d.nbytes)

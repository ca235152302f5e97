"""The published evaluation protocols, one dataclass per benchmark: what the tracker gets and what is scored.

The sources store pixels of the original picture and no protocol shifts them by half a pixel. All protocols follow
Track-On's evaluation code, which follows TAP-Vid, PointOdyssey, Dynamic Replica, EgoPoints and PIPs.

Letters: T frames, N tracks of the clip, Q queries, H W pixels of the picture the tracker gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ptrack import geometry
from ptrack.data.clips import Clip
from ptrack.errors import ConfigError, DataError, did_you_mean
from ptrack.evaluation import metrics
from ptrack.evaluation.metrics import Scores
from ptrack.evaluation.sampling import MODES, evenly, sample_first, sample_strided

RASTER = (256, 256)  # (H, W) of the space in which TAP-Vid measures
ODYSSEY = (384, 512)  # (H, W) of the pictures of PointOdyssey and EgoPoints
BADJA_EXTRA = ("cat_jump", "impala0", "rs_dog", "tiger")  # animals that PIPs does not score


class Skip(Exception):
    """The protocol does not score this video; the message gives the reason."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Case:
    """One video as its protocol poses it. Coordinates are pixels of ``size``."""

    size: tuple[int, int]  # (H, W) of the frames the tracker gets
    frames: int  # T, the first so many frames of the clip
    queries: np.ndarray  # (Q, 3) float32, rows (t, x, y)
    tracks: np.ndarray  # (T, Q, 2) float64
    visible: np.ndarray  # (T, Q) bool
    valid: np.ndarray  # (T, Q) bool
    track: np.ndarray  # (Q,) int64, the clip's track of each query
    labels: dict[str, np.ndarray]  # what else the scores need


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """First-visible or strided queries, scored as TAP-Vid does; benchmarks with rules of their own are subclasses."""

    name: str  # on the command line
    title: str  # for people
    source: str  # the reader of the original files, see ``ptrack convert --list``
    size: tuple[int, int] | None = None  # (H, W) the frames are resized to; None: as they are
    resampling: str = "lanczos"  # "lanczos" (antialiased, Pillow) or "linear" (no antialiasing, OpenCV's)
    memory: int = 72  # memory slots per point of models that have them
    max_frames: int | None = None  # only the first so many frames
    max_tracks: int | None = None  # evenly chosen
    split: str | None = None  # the split that is scored, where the data have several
    modes: tuple[str, ...] = MODES  # query modes that exist
    percent: ClassVar[bool] = False  # scores are percent, not fractions
    headline: ClassVar[tuple[str, ...]] = ("average_pts_within_thresh", "occlusion_accuracy", "average_jaccard")

    def case(self, clip: Clip, mode: str = "first") -> Case:
        """Pose a clip.

        Raises:
            Skip: the protocol does not score it.
        """
        size = self.size or clip.size
        t = min(clip.num_frames, self.max_frames or clip.num_frames)
        tracks = geometry.rescale(clip.tracks_filled[:t].astype(np.float64), clip.size, size)
        visible = clip.visibility[:t]
        if self.max_tracks is not None:
            ever = np.flatnonzero(visible.any(axis=0))
            chosen = ever[evenly(len(ever), self.max_tracks)]
        else:
            chosen = np.arange(clip.num_tracks)
        sample = sample_first if mode == "first" else sample_strided
        sampled = sample(tracks[:, chosen], visible[:, chosen])
        if not len(sampled.track):
            raise Skip("no point is visible")
        track = chosen[sampled.track]
        labels = self.labels(clip, t)
        return _posed(clip, size, tracks[:, track], visible[:, track], track, queries=sampled.queries, labels=labels)

    def labels(self, clip: Clip, frames: int) -> dict[str, np.ndarray]:
        """Return what else the scores need; here the frames that carry labels, where only some do."""
        return {}

    def score(self, case: Case, tracks: np.ndarray, visible: np.ndarray, mode: str = "first") -> Scores:
        """Score predictions for the queries of a case.

        Args:
            case: from ``case``.
            tracks: (T, Q, 2) pixels of ``case.size``.
            visible: (T, Q) bool.
            mode: the query mode of the case.

        Raises:
            TracksError: a prediction that is read is not finite.
        """
        gt = geometry.rescale(case.tracks, case.size, RASTER)
        pred = geometry.rescale(np.asarray(tracks, np.float64), case.size, RASTER)
        out = metrics.tapvid(
            case.queries[:, 0], gt, case.visible, pred, visible, mode=mode, labelled=case.labels.get("labelled")
        )
        if mode == "first" and "labelled" not in case.labels:
            out |= {k: v for k, v in metrics.redetection(gt, case.visible, pred, visible).items() if "_D" not in k}
        return out

    def error_scale(self, case: Case) -> metrics.Scale:
        """Return (x, y) factors that turn pixels of the case into pixels of a 256x256 picture."""
        return (case.size[1] / RASTER[1], case.size[0] / RASTER[0])


@dataclass(frozen=True, kw_only=True)
class PointOdysseyProtocol(Protocol):
    """PointOdyssey test (arXiv 2307.15055): strict filters, hidden positions count too."""

    name: str = "point_odyssey"
    title: str = "PointOdyssey"
    source: str = "point-odyssey"
    size: tuple[int, int] | None = ODYSSEY
    resampling: str = "linear"
    max_tracks: int | None = 256
    split: str | None = "test"
    modes: tuple[str, ...] = ("first",)
    min_frames: int = 8  # a track must be visible in so many frames
    max_jump: float = 512.0  # pixels between two frames, in original pixels
    percent: ClassVar[bool] = True
    headline: ClassVar[tuple[str, ...]] = ("d_avg", "d_vis_avg", "survival", "median_l2")

    def case(self, clip: Clip, mode: str = "first") -> Case:
        """Apply the published filters in their order. ``valid`` of the file is not used, as published.

        The bounds are constants for 540x960 pictures, whatever the real size.
        """
        tracks = np.nan_to_num(clip.tracks, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float64)
        x, y = tracks[..., 0], tracks[..., 1]
        inside = (x >= 1) & (x <= 958) & (y >= 1) & (y <= 538)
        valid = clip.finite & inside
        visible = clip.visibility & valid
        keep = visible[0] & (visible.sum(axis=0) >= self.min_frames)
        jump = np.sqrt(np.square(np.diff(tracks, axis=0)).sum(axis=-1)).max(axis=0, initial=0.0)
        keep = np.flatnonzero(keep & (jump < self.max_jump))
        if not len(keep):
            raise Skip("no track passes the filters of the protocol")
        track = keep[evenly(len(keep), self.max_tracks or len(keep))]
        size = self.size or clip.size
        bounded = np.clip(tracks[:, track], (-32.0, -32.0), (992.0, 572.0))
        scaled = geometry.rescale(bounded, clip.size, size)
        return _posed(clip, size, scaled, visible[:, track], track, valid=valid[:, track])

    def score(self, case: Case, tracks: np.ndarray, visible: np.ndarray, mode: str = "first") -> Scores:
        """Score predictions; predicted visibility plays no role."""
        return metrics.point_odyssey(case.tracks, case.visible, case.valid, tracks, scale=self.error_scale(case))


@dataclass(frozen=True, kw_only=True)
class DynamicReplicaProtocol(Protocol):
    """Dynamic Replica valid, left camera (arXiv 2305.02296): queries at frame 0, even for hidden points."""

    name: str = "dynamic_replica"
    title: str = "Dynamic Replica"
    source: str = "dynamic-replica"
    max_frames: int | None = 300
    max_tracks: int | None = 256
    split: str | None = "valid"
    modes: tuple[str, ...] = ("first",)
    min_frames: int = 10  # a track must be visible in more frames than that
    percent: ClassVar[bool] = True
    headline: ClassVar[tuple[str, ...]] = ("accuracy_vis", "accuracy_occ", "accuracy", "survival")

    def case(self, clip: Clip, mode: str = "first") -> Case:
        """Choose tracks with a stride, then drop those that are hardly ever visible."""
        t, limit = min(clip.num_frames, self.max_frames or clip.num_frames), self.max_tracks or clip.num_tracks
        n = clip.num_tracks
        chosen = np.arange(0, n, n // limit)[:limit] if n >= limit else np.arange(n)
        tracks = clip.tracks_filled[:t, chosen].astype(np.float64)
        h, w = clip.size
        x, y = tracks[..., 0], tracks[..., 1]
        visible = clip.visibility[:t, chosen] & ~((x < 0) | (x > w - 1) | (y < 0) | (y > h - 1))
        keep = np.flatnonzero(visible.sum(axis=0) > self.min_frames)
        if not len(keep):
            raise Skip(f"no track is visible in more than {self.min_frames} frames")
        return _posed(clip, clip.size, tracks[:, keep], visible[:, keep], chosen[keep])

    def score(self, case: Case, tracks: np.ndarray, visible: np.ndarray, mode: str = "first") -> Scores:
        """Score predictions; predicted visibility plays no role."""
        return metrics.dynamic_replica(case.tracks, case.visible, tracks, scale=self.error_scale(case))

    def error_scale(self, case: Case) -> metrics.Scale:
        """Return the published factors, one pixel less than the size on both sides."""
        return ((case.size[1] - 1) / (RASTER[1] - 1), (case.size[0] - 1) / (RASTER[0] - 1))


@dataclass(frozen=True, kw_only=True)
class EgoPointsProtocol(Protocol):
    """EgoPoints (arXiv 2412.04592): sparse labels, points that leave the view and come back."""

    name: str = "ego_points"
    title: str = "EgoPoints"
    source: str = "ego-points"
    size: tuple[int, int] | None = ODYSSEY
    resampling: str = "linear"
    modes: tuple[str, ...] = ("first",)
    percent: ClassVar[bool] = True
    headline: ClassVar[tuple[str, ...]] = ("d_avg", "visibility_accuracy", "reid", "median_l2")

    def case(self, clip: Clip, mode: str = "first") -> Case:
        """Query every point in frame 0."""
        size = self.size or clip.size
        if not clip.num_tracks:
            raise Skip("there are no points")
        tracks = geometry.rescale(clip.tracks_filled.astype(np.float64), clip.size, size)
        none = np.zeros_like(clip.visibility)
        labels = {
            "vis_valid": np.ones_like(none) if clip.vis_valid is None else clip.vis_valid,
            "out_of_view": none if clip.out_of_view is None else clip.out_of_view,
            "occluded": none if clip.occluded_label is None else clip.occluded_label,
        }
        return _posed(clip, size, tracks, clip.visibility, np.arange(clip.num_tracks), labels=labels)

    def score(self, case: Case, tracks: np.ndarray, visible: np.ndarray, mode: str = "first") -> Scores:
        """Score positions, visibility and re-identification."""
        known, away, hidden = (case.labels[k] for k in ("vis_valid", "out_of_view", "occluded"))
        return metrics.ego_points(
            case.tracks, case.visible, case.valid, known, away, hidden, tracks, visible, size=case.size
        )


@dataclass(frozen=True, kw_only=True)
class BadjaProtocol(Protocol):
    """BADJA (arXiv 1811.05804) as PIPs scores it: joints of animals, errors relative to the animal's size."""

    name: str = "badja"
    title: str = "BADJA"
    source: str = "badja"
    size: tuple[int, int] | None = (320, 512)
    resampling: str = "linear"
    modes: tuple[str, ...] = ("first",)
    percent: ClassVar[bool] = True
    headline: ClassVar[tuple[str, ...]] = ("pck", "below_3")

    def case(self, clip: Clip, mode: str = "first") -> Case:
        """Query every joint in the first annotated frame, hidden or not."""
        size = self.size or clip.size
        if clip.name in BADJA_EXTRA:
            raise Skip("the animal is not from DAVIS; the published scores leave it out")
        if clip.masks is None:
            raise Skip("the animal has no masks, which the score needs")
        if not clip.visibility[1:].any():
            raise Skip("no joint is visible after the first frame")
        tracks = geometry.rescale(clip.tracks_filled.astype(np.float64), clip.size, size)
        labels = {"foreground": foreground_areas(clip, size, np.asarray(clip.visibility.any(axis=1)))}
        return _posed(clip, size, tracks, clip.visibility, np.arange(clip.num_tracks), labels=labels)

    def score(self, case: Case, tracks: np.ndarray, visible: np.ndarray, mode: str = "first") -> Scores:
        """Score positions."""
        return metrics.badja(case.tracks, case.visible, tracks, case.labels["foreground"])


@dataclass(frozen=True, kw_only=True)
class CustomProtocol(Protocol):
    """Your own videos at their own size, scored as TAP-Vid; frames without any label are not scored."""

    name: str = "custom"
    title: str = "own videos"
    source: str = "folder"

    def labels(self, clip: Clip, frames: int) -> dict[str, np.ndarray]:
        """Return the frames with labels, if they are not all."""
        labelled = np.asarray((clip.finite | clip.visibility).any(axis=1))
        if clip.annotated_frames is not None:
            labelled[clip.annotated_frames] = True
        return {} if labelled.all() else {"labelled": labelled[:frames]}


def _posed(
    clip: Clip, size: tuple[int, int], tracks: np.ndarray, visible: np.ndarray, track: np.ndarray, **more: Any
) -> Case:
    """Make the case of ``tracks`` (T, Q, 2), pixels of ``size``; without ``queries`` all are queried at frame 0."""
    made = {"valid": clip.valid[: len(tracks), track], "labels": {}} | more
    if "queries" not in made:
        made["queries"] = np.column_stack([np.zeros(len(track)), tracks[0]]).astype(np.float32)
    return Case(size=size, frames=len(tracks), tracks=tracks, visible=visible, track=track, **made)


def foreground_areas(clip: Clip, size: tuple[int, int], needed: np.ndarray) -> np.ndarray:
    """Return (T,) object pixels of each mask resized to ``size`` (nearest neighbour); 0 where there is no mask.

    Foreground is where the red channel of the mask picture is above 0, as in PIPs: palette colours without red
    do not count.

    Args:
        clip: with masks.
        size: (H, W).
        needed: (T,) bool, the frames that are scored.
    """
    if clip.masks is None:
        return np.zeros(clip.num_frames, np.int64)
    h, w = size
    out = np.zeros(clip.num_frames, np.int64)
    for t in np.flatnonzero(needed):
        if clip.masks.present(int(t)):
            red = clip.masks.rgb(int(t))[..., 0] > 0
            rows = np.minimum((np.arange(h) * (red.shape[0] / h)).astype(np.int64), red.shape[0] - 1)
            columns = np.minimum((np.arange(w) * (red.shape[1] / w)).astype(np.int64), red.shape[1] - 1)
            out[t] = int(red[rows][:, columns].sum())
    return out


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in (
        # TAP-Vid: arXiv 2211.03726; 30 videos of DAVIS, Kinetics up to 250 frames each, 50 rendered ones.
        Protocol(name="davis", title="TAP-Vid DAVIS", source="tapvid-davis", size=RASTER, memory=24),
        Protocol(name="kinetics", title="TAP-Vid Kinetics", source="tapvid-kinetics", size=RASTER),
        Protocol(name="robotap", title="RoboTAP", source="robotap", size=RASTER),  # arXiv 2308.15975, 265 videos
        Protocol(name="rgb_stacking", title="TAP-Vid RGB-Stacking", source="tapvid-rgb-stacking", size=RASTER),
        PointOdysseyProtocol(),
        DynamicReplicaProtocol(),
        EgoPointsProtocol(),
        # Not published benchmarks: Kubric MOVi-F, and ptrack's own synthetic clips at their own size.
        Protocol(name="kubric", title="Kubric MOVi-F", source="kubric", size=RASTER, max_tracks=256),
        BadjaProtocol(),
        Protocol(name="synthetic", title="synthetic clips", source="synthetic", max_tracks=256),
        CustomProtocol(),
    )
}


def find_protocol(name: str) -> Protocol:
    """Return a protocol by name, ``-`` and ``_`` being the same.

    Raises:
        ConfigError: unknown name; the nearest is suggested.
    """
    key = name.lower().replace("-", "_").removeprefix("tapvid_")
    if key not in PROTOCOLS:
        raise ConfigError(
            f"There is no benchmark '{name}'; choose one of {', '.join(PROTOCOLS)}.{did_you_mean(key, PROTOCOLS)}"
        )
    return PROTOCOLS[key]


def check_mode(protocol: Protocol, mode: str) -> str:
    """Return the query mode if the protocol has it; raises ConfigError otherwise."""
    if mode not in protocol.modes:
        raise ConfigError(f"{protocol.title} has the query mode {' and '.join(protocol.modes)}, not '{mode}'.")
    return mode


def select_split(protocol: Protocol, splits: list[str], where: object) -> list[int]:
    """Return the positions of the clips that the protocol scores.

    Raises:
        DataError: there is no clip.
    """
    if not splits:
        raise DataError(f"{where} holds no clips.")
    wanted = [i for i, split in enumerate(splits) if split == protocol.split]
    return wanted if wanted and len(set(splits)) > 1 else list(range(len(splits)))

"""The field's metrics as pure NumPy functions, computed in float64. Nothing here knows about datasets or models.

Conventions of every function: tracks (T, N, 2) pixels (x, y) of the space the score is defined in, flags (T, N) bool
with True = visible or valid. A value that is undefined (0 divided by 0) is NaN, except where the published definition
adds 1e-6 to the denominator and so gives 0: then it is 0 here too.

Letters: T frames, N tracks, E events, K thresholds.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ptrack.errors import TracksError

DELTA = (1, 2, 4, 8, 16)  # pixels, of TAP-Vid and everything after it
DELTA_STAR = (8, 16, 24)  # pixels, of EgoPoints
GAPS = (1, 4, 16, 64, 256)  # frames, of the re-detection score
LOST = 50.0  # pixels beyond which a track is lost (Track-On, CoTracker)
EPS = 1e-6  # added to the denominators of the masked means, as published
Scores = dict[str, float]
Scale = tuple[float, float]  # (x, y) factors that divide an error


def errors(pred: np.ndarray, gt: np.ndarray, scale: Scale = (1.0, 1.0)) -> np.ndarray:
    """Return the (T, N) Euclidean distances, each axis divided by ``scale`` first."""
    difference = (np.asarray(pred, np.float64) - np.asarray(gt, np.float64)) / np.asarray(scale, np.float64)
    return np.sqrt(np.square(difference).sum(axis=-1))


def need_finite(pred: np.ndarray, where: np.ndarray | None = None) -> None:
    """Refuse predictions that are not finite where a score reads them.

    A NaN error would be "not within" every threshold but also "not lost", so scoring it would be wrong either way.

    Raises:
        TracksError: names the first frame and point.
    """
    bad = ~np.isfinite(pred).all(axis=-1)
    if where is not None:
        bad &= where
    if bad.any():
        t, n = (int(i[0]) for i in np.nonzero(bad))
        raise TracksError(f"The predicted position of point {n} in frame {t} is not a number, but the score reads it.")


def first_visible(visible: np.ndarray) -> np.ndarray:
    """Return the (N,) first visible frame of each track; 0 for a track that is never visible."""
    return np.argmax(np.asarray(visible, bool), axis=0)


def _mmean(values: np.ndarray, mask: np.ndarray) -> float:
    """Masked mean with the published 1e-6 in the denominator: 0 for an empty mask."""
    return float((values * mask).sum() / (mask.sum() + EPS))


def _within(
    name: str, error: np.ndarray, mask: np.ndarray, deltas: Sequence[int] = DELTA, mean: str = "_avg"
) -> Scores:
    """Percent of the errors in ``mask`` below each distance K as ``name_K``, and their mean as ``name`` + ``mean``."""
    out = {f"{name}_{k}": 100 * _mmean(error < k, mask) for k in deltas}
    return out | {f"{name}{mean}": float(np.mean(list(out.values())))}


def _quiet_nanmean(values: Any) -> float:
    """Mean without NaN; NaN where nothing is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(np.nanmean(np.asarray(values, np.float64)))


def _medians(error: np.ndarray, mask: np.ndarray) -> float:
    """Mean over tracks of the median error over the frames of ``mask``; NaN if one track has no such frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(np.nanmedian(np.where(mask, error, np.nan), axis=0).mean()) if error.size else float("nan")


def _survival(error: np.ndarray, mask: np.ndarray, limit: float) -> float:
    """Percent of the frames before each track's first error above ``limit`` on a frame of ``mask``."""
    alive = np.cumprod(~((error > limit) & mask), axis=0)
    return float(100.0 * alive.mean()) if alive.size else float("nan")


# --- TAP-Vid ---------------------------------------------------------------------------------------------------------


def scored_frames(query_frame: np.ndarray, frames: int, mode: str = "first") -> np.ndarray:
    """Return (T, N) bool, the frames that TAP-Vid scores: after the query ("first"), all but the query ("strided").

    Args:
        query_frame: (N,) query times; fractions are rounded half to even.
        frames: T.
        mode: "first" or "strided".

    Raises:
        ValueError: another mode.
    """
    t = np.arange(frames)[:, None]
    q = np.round(np.asarray(query_frame, np.float64))[None]
    if mode not in ("first", "strided"):
        raise ValueError(f"query mode must be 'first' or 'strided', not '{mode}'")
    return t > q if mode == "first" else t != q


def tapvid(
    query_frame: np.ndarray,
    gt_tracks: np.ndarray,
    gt_visible: np.ndarray,
    pred_tracks: np.ndarray,
    pred_visible: np.ndarray,
    *,
    mode: str = "first",
    per_track: bool = False,
    labelled: np.ndarray | None = None,
) -> dict[str, Any]:
    """TAP-Vid's scores of one video (arXiv 2211.03726), fractions 0..1.

    Args:
        query_frame: (N,) time of each query.
        gt_tracks, pred_tracks: (T, N, 2) pixels of a 256x256 raster.
        gt_visible, pred_visible: (T, N) bool.
        mode: "first" or "strided", see ``scored_frames``.
        per_track: return (N,) arrays, one value per track, instead of numbers.
        labelled: (T,) bool, frames whose labels exist; None: all. Others are not scored (sparsely labelled videos).

    Returns:
        ``occlusion_accuracy``, ``pts_within_K`` and ``jaccard_K`` for K in 1, 2, 4, 8, 16, their means
        ``average_pts_within_thresh`` and ``average_jaccard``. NaN where undefined: positions without a visible scored
        frame, Jaccard if moreover nothing was predicted visible, accuracy without a scored frame.

    Raises:
        TracksError: a prediction is not finite on a scored frame.
    """
    v, p = np.asarray(gt_visible, bool), np.asarray(pred_visible, bool)
    scored = scored_frames(query_frame, len(v), mode)
    if labelled is not None:
        scored &= np.asarray(labelled, bool)[:, None]
    need_finite(pred_tracks, scored)
    axis = 0 if per_track else None
    with np.errstate(invalid="ignore", divide="ignore"):
        squared = np.square(np.asarray(pred_tracks, np.float64) - np.asarray(gt_tracks, np.float64)).sum(axis=-1)
        seen = np.asarray((scored & v).sum(axis=axis), np.float64)
        out: dict[str, Any] = {
            "occlusion_accuracy": (scored & (v == p)).sum(axis=axis) / np.asarray(scored.sum(axis=axis), np.float64)
        }
        for k in DELTA:
            near = v & (squared < k * k)
            out[f"pts_within_{k}"] = (scored & near).sum(axis=axis) / seen
            false = (scored & p & ~near).sum(axis=axis)
            out[f"jaccard_{k}"] = (scored & p & near).sum(axis=axis) / (seen + false)
    out["average_jaccard"] = np.mean([out[f"jaccard_{k}"] for k in DELTA], axis=0)
    out["average_pts_within_thresh"] = np.mean([out[f"pts_within_{k}"] for k in DELTA], axis=0)
    return out if per_track else {key: float(value) for key, value in out.items()}


# --- PointOdyssey ----------------------------------------------------------------------------------------------------


def point_odyssey(
    gt_tracks: np.ndarray,
    visible: np.ndarray,
    valid: np.ndarray,
    pred_tracks: np.ndarray,
    *,
    scale: Scale = (1.0, 1.0),
    pips: bool = False,
) -> Scores:
    """PointOdyssey's scores (arXiv 2307.15055 as Track-On computes them), percent and pixels of a 256x256 raster.

    Args:
        gt_tracks, pred_tracks: (T, N, 2).
        visible, valid: (T, N) bool.
        scale: errors are divided by it, (W / 256, H / 256).
        pips: PIPs++'s definition: survival ends at 16 px on a valid frame, no scores of visible frames.

    Returns:
        ``d_K``, ``d_avg`` over valid positions (hidden ones too), ``d_vis_K``, ``d_vis_avg`` over visible ones after
        the first, ``survival``, ``median_l2`` and ``median_vis_l2`` (NaN if a track has no such frame).
    """
    need_finite(pred_tracks)
    v, ok = np.asarray(visible, bool), np.asarray(valid, bool)
    e = errors(pred_tracks, gt_tracks, scale)
    after = v & (np.arange(len(v))[:, None] > first_visible(v))
    out = _within("d", e[1:], ok[1:])
    out["survival"] = _survival(e, ok, 16.0) if pips else _survival(e, v, LOST)
    out["median_l2"] = _medians(e, ok)
    if not pips:
        out |= _within("d_vis", e[1:], after[1:])
        out["median_vis_l2"] = _medians(e, v)
    return out


# --- Dynamic Replica -------------------------------------------------------------------------------------------------


def dynamic_replica(
    gt_tracks: np.ndarray, visible: np.ndarray, pred_tracks: np.ndarray, *, scale: Scale = (1.0, 1.0)
) -> Scores:
    """Dynamic Replica's scores (arXiv 2305.02296 as CoTracker and Track-On compute them), percent.

    Args:
        gt_tracks, pred_tracks: (T, N, 2).
        visible: (T, N) bool.
        scale: errors are divided by it, ((W - 1) / 255, (H - 1) / 255).

    Returns:
        ``accuracy_vis_K``, ``accuracy_occ_K``, ``accuracy_K`` over the frames after a track's first visible one, their
        means without ``_K``, and ``survival``. Without hidden frames ``accuracy_occ`` is 0, as published.
    """
    need_finite(pred_tracks)
    v = np.asarray(visible, bool)
    e = errors(pred_tracks, gt_tracks, scale)
    after = np.arange(len(v))[:, None] > first_visible(v)
    groups = {"accuracy_vis": v & after, "accuracy_occ": ~v & after, "accuracy": after}
    out: Scores = {}
    for name, mask in groups.items():
        out |= _within(name, e, mask, mean="")
    out["survival"] = _survival(e, v, LOST)
    return out


# --- EgoPoints -------------------------------------------------------------------------------------------------------


def as_visible(pred: np.ndarray) -> np.ndarray:
    """Turn predicted visibility into bool: probabilities rounded half to even, other numbers through a sigmoid first.

    Args:
        pred: bool, or numbers; if all lie in [0, 1] they are probabilities, otherwise logits.
    """
    if pred.dtype == np.bool_:
        return pred
    x = np.asarray(pred, np.float64)
    if x.size and ((x < 0) | (x > 1)).any():
        x = 0.5 * (1 + np.tanh(0.5 * x))  # the sigmoid, without overflow
    return np.round(x) > 0


def ego_points(
    gt_tracks: np.ndarray,
    visible: np.ndarray,
    valid: np.ndarray,
    vis_valid: np.ndarray,
    out_of_view: np.ndarray,
    occluded: np.ndarray,
    pred_tracks: np.ndarray,
    pred_visible: np.ndarray,
    *,
    size: tuple[int, int],
) -> Scores:
    """EgoPoints' scores (arXiv 2412.04592), percent and pixels of a 256x256 raster.

    Args:
        gt_tracks, pred_tracks: (T, N, 2) pixels of an image of ``size`` (H, W).
        visible, valid, vis_valid, out_of_view, occluded: (T, N) labels, not 0 = yes.
        pred_visible: (T, N) bool, probabilities or logits, see ``as_visible``.
        size: (H, W); errors are divided by (W / 256, H / 256).

    Returns:
        ``d_K``, ``d_avg``, ``d_star_K``, ``d_star_avg`` (K = 8, 16, 24), ``median_l2``, ``visibility_accuracy``,
        and, where the labels exist, ``out_of_view_accuracy``, ``in_view_accuracy`` and ``reid``.
    """
    need_finite(pred_tracks)
    ok, known, away, hidden = (np.asarray(a) != 0 for a in (valid, vis_valid, out_of_view, occluded))
    h, w = size
    e = errors(pred_tracks, gt_tracks, (w / 256, h / 256))
    out = _within("d", e[1:], ok[1:]) | _within("d_star", e[1:], ok[1:], DELTA_STAR)
    out["median_l2"] = _medians(e, ok)
    out["visibility_accuracy"] = 100 * _mmean(as_visible(pred_visible) == (np.asarray(visible) != 0), known)
    x, y = pred_tracks[..., 0], pred_tracks[..., 1]
    inside = (x >= 0) & (x <= w) & (y >= 0) & (y <= h)
    here = ok[1:].astype(int) + hidden[1:] == 1
    if away[1:].any():
        out["out_of_view_accuracy"] = float(100 * (~inside[1:])[away[1:]].mean())
    if here.any():
        out["in_view_accuracy"] = float(100 * inside[1:][here].mean())
    score = reidentification(errors(pred_tracks, gt_tracks), ok, away, inside)
    return out if score is None else out | {"reid": score}


def _last(flags: np.ndarray) -> np.ndarray:
    """Return the (N,) last True frame, -1 if there is none."""
    return np.where(flags.any(axis=0), len(flags) - 1 - np.argmax(flags[::-1], axis=0), -1)


def reidentification(error: np.ndarray, valid: np.ndarray, away: np.ndarray, inside: np.ndarray) -> float | None:
    """EgoPoints' re-identification score in percent, None where it is undefined.

    Args:
        error: (T, N) in pixels of the 384x512 picture, not rescaled.
        valid: (T, N) bool, a coordinate is labelled.
        away: (T, N) bool, labelled out of view.
        inside: (T, N) bool, the prediction lies in the picture.

    The denominator counts valid frames after the last one labelled out of view; the numerator valid frames with an
    error below 8, 16, 24 px (mean) after the last one that was labelled and predicted out of view.
    """
    t = np.arange(len(valid))[:, None]
    labelled = away & (t >= 1)
    if not labelled.any():
        return None
    left, known = _last(labelled), _last(labelled & ~inside)
    ok = valid & (t >= 1)
    total = (ok & (left >= 0) & (t > left)).sum()
    if total == 0:
        return None
    found = ok & (known >= 0) & (t > known)
    return float(100 * np.mean([(found & (error < k)).sum() / (total + EPS) for k in DELTA_STAR]))


# --- re-detection ----------------------------------------------------------------------------------------------------


def reappearances(visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (E, 2) rows (t, n) of the re-appearances and their (E,) durations, in order of time.

    A re-appearance is a visible frame after a hidden one; its duration counts the hidden frames before it. Only those
    longer than every earlier one of the same track are kept.

    Args:
        visible: (T, N) bool.
    """
    v = np.asarray(visible, bool)
    run = np.zeros(v.shape[1], np.int64)
    longest = np.zeros(v.shape[1], np.int64)
    found: list[np.ndarray] = []
    durations: list[np.ndarray] = []
    for t in range(len(v)):
        who = np.flatnonzero(v[t] & (run > longest))
        found.append(np.column_stack([np.full(len(who), t), who]))
        durations.append(run[who])
        longest = np.where(v[t], np.maximum(longest, run), longest)
        run = np.where(v[t], 0, run + 1)
    empty = np.zeros((0, 2), np.int64)
    return np.concatenate([empty, *found]).astype(np.int64), np.concatenate([empty[:, 0], *durations])


def redetection_scores(
    events: np.ndarray, gt_tracks: np.ndarray, gt_visible: np.ndarray, pred_tracks: np.ndarray, pred_visible: np.ndarray
) -> np.ndarray:
    """Return the (E, 5) Jaccard from each event to the end of the video, for errors at most 1, 2, 4, 8, 16 px."""
    v, p = np.asarray(gt_visible, bool), np.asarray(pred_visible, bool)
    e = errors(pred_tracks, gt_tracks)
    t, n = events[:, 0], events[:, 1]

    def to_end(flags: np.ndarray) -> np.ndarray:
        return np.cumsum(flags[::-1], axis=0)[::-1][t, n].astype(np.float64)

    out = np.empty((len(events), len(DELTA)))
    for i, k in enumerate(DELTA):
        near = v & (e <= k)
        with np.errstate(invalid="ignore", divide="ignore"):
            out[:, i] = to_end(p & near) / (to_end(v) + to_end(p & ~near))
    return out


def redetection(
    gt_tracks: np.ndarray, gt_visible: np.ndarray, pred_tracks: np.ndarray, pred_visible: np.ndarray
) -> Scores:
    """TAPNext++'s re-detection Average Jaccard, fractions 0..1.

    Args:
        gt_tracks, pred_tracks: (T, N, 2) pixels of a 256x256 raster; predictions are read from each event on.
        gt_visible, pred_visible: (T, N) bool.

    Returns:
        ``AJ_RD_DK_dminM`` per threshold and least gap, ``AJ_RD_dminM`` and ``AJ_RD``; NaN without events. Several
        videos are pooled by concatenating their tracks along N (of equal T).
    """
    events, durations = reappearances(gt_visible)
    scores = redetection_scores(events, gt_tracks, gt_visible, pred_tracks, pred_visible)
    out: Scores = {}
    for m in GAPS:
        chosen = scores[durations >= m]
        for i, k in enumerate(DELTA):
            out[f"AJ_RD_D{k}_dmin{m}"] = float(chosen[:, i].mean()) if len(chosen) else float("nan")
        out[f"AJ_RD_dmin{m}"] = _quiet_nanmean([out[f"AJ_RD_D{k}_dmin{m}"] for k in DELTA])
    out["AJ_RD"] = _quiet_nanmean([out[f"AJ_RD_dmin{m}"] for m in GAPS])
    return out


# --- BADJA -----------------------------------------------------------------------------------------------------------


def badja(gt_tracks: np.ndarray, visible: np.ndarray, pred_tracks: np.ndarray, foreground: np.ndarray) -> Scores:
    """BADJA's PCK as PIPs computes it (arXiv 2204.04153), percent.

    Args:
        gt_tracks, pred_tracks: (T, N, 2) pixels of a 320x512 picture.
        visible: (T, N) bool.
        foreground: (T,) number of object pixels in each frame's 320x512 mask.

    Returns:
        ``pck``: visible joints after frame 0 with an error below 0.2 times the square root of the object's area, and
        ``below_3`` (CoTracker's addition): below 3 px. NaN without a visible joint.
    """
    seen = np.asarray(visible, bool)[1:]
    need_finite(pred_tracks[1:], seen)
    e = errors(pred_tracks, gt_tracks)[1:]
    if not seen.any():
        return {"pck": float("nan"), "below_3": float("nan")}
    limit = 0.2 * np.sqrt(np.asarray(foreground, np.float64))[1:, None]
    return {"pck": float(100 * (e < limit)[seen].mean()), "below_3": float(100 * (e < 3)[seen].mean())}

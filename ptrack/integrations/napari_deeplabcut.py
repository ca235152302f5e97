"""napari-deeplabcut tracks its keypoints with ptrack. Written for, and checked with, napari-deeplabcut 0.4.0.

Its tracking widget offers the models of a registry, ``AVAILABLE_TRACKERS``; ``register`` adds ptrack's. napari's menu
entry *Plugins > ptrack > Tracking controls with ptrack* does that and opens the widget.

There, keypoints are rows (frame, y, x), and (0, 0) is the centre of the upper-left pixel, as in every napari layer.

Letters: T frames of the slice that is tracked, K keypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ptrack import geometry
from ptrack.errors import ModelError

if TYPE_CHECKING:
    from ptrack.tracking.tracker import Tracker

THEIRS = "napari_deeplabcut.tracking"
# name in the list -> options of nano
OFFERED: dict[str, dict[str, Any]] = {
    "ptrack": {},
    "ptrack (fast)": {"quality": "fast"},
    "ptrack (best)": {"quality": "best"},
}


class Slice(NamedTuple):
    """What was tracked in T frames."""

    yx: np.ndarray  # (T, K, 2) float64, napari's coordinates
    visible: np.ndarray  # (T, K) bool
    confidence: np.ndarray  # (T, K) float32


def track_slice(
    tracker: Tracker,
    video: Iterable[Any],
    yx: np.ndarray,
    progress: Callable[[int], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Slice | None:
    """Track keypoints of the first frame of ``video`` through it; None if ``stop`` returned True.

    Args:
        tracker: with no points; it is reset.
        video: T frames, (H, W, 3) or (H, W), one after another; a lazy array is never held as a whole.
        yx: (K, 2) keypoints in the first frame, napari's coordinates.
        progress: called with the number of finished frames.
        stop: asked before every frame.

    Raises:
        QueryError: a keypoint outside the frame.
        InputError: the frames are no pictures.
    """
    from ptrack.video import open_source

    xy = np.asarray(yx, np.float64).reshape(-1, 2)[:, ::-1]
    tracker.reset()
    tracker.add(np.column_stack([np.zeros(len(xy)), geometry.from_opencv(xy)]))
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    last = xy
    for frame in open_source(np.asarray(picture) for picture in video):
        if stop():
            return None
        result = tracker.step(frame.rgb)
        here = geometry.to_opencv(result.positions.astype(np.float64))
        known = ~np.asarray(np.isnan(here).any(axis=1))
        last = np.where(known[:, None], here, last)  # napari's layers hold no gaps: where it was last, not visible
        found.append((last[:, ::-1], (result.visibility >= tracker.model.threshold) & known, result.confidence))
        progress(len(found))
    return Slice(*(np.stack(part) for part in zip(*found, strict=True)))


def backbone(name: str, model: str = "nano", **options: Any) -> type:
    """Return the class that napari-deeplabcut makes a tracker from: a ``TrackingModel`` around ``ptrack.load``.

    Args:
        name: in the widget's list.
        model: as ``ptrack models`` lists them.
        options: of ``ptrack.load``: checkpoint, device, quality and others.

    Raises:
        ModelError: napari-deeplabcut is not installed, or has no tracking.
    """
    data, models = _theirs()

    class PointTracker(models.TrackingModel):
        info_text = f"ptrack, model {model}{''.join(f', {key} {value}' for key, value in options.items())}."

        def auto_set_device(self) -> str:
            self.device = options.get("device", "auto")
            return self.device

        def load_model(self, device: str) -> Tracker:
            from ptrack.tracking.load import load

            return load(model, **{"device": device, **options})

        def prepare_inputs(self, cfg: Any, **_: Any) -> Any:
            self.cfg = cfg
            metadata = {"keypoint_range": cfg.keypoint_range, "backward_tracking": cfg.backward_tracking}
            return data.TrackingModelInputs(video=cfg.video, keypoints=np.asarray(cfg.keypoints), metadata=metadata)

        def run(self, inputs: Any, progress_callback: Any, stop_callback: Any, **_: Any) -> Any:
            frames = len(inputs.video)
            found = track_slice(
                self.model, inputs.video, inputs.keypoints[:, 1:], lambda t: progress_callback(t, frames), stop_callback
            )
            if found is None:
                return None
            features = {"visibility": found.visible, "confidence": found.confidence}
            return data.RawModelOutputs(keypoints=found.yx, keypoint_features=features)

        def prepare_outputs(self, model_outputs: Any, worker_inputs: Any = None, **_: Any) -> Any:
            order = slice(None, None, -1 if worker_inputs.backward_tracking else 1)  # backwards, the slice is reversed
            yx = model_outputs.keypoints[order]
            visible, confidence = (model_outputs.keypoint_features[key][order] for key in ("visibility", "confidence"))
            frames = np.arange(*map(int, worker_inputs.keypoint_range))
            features = data.expand_query_features_over_time(
                worker_inputs.keypoint_features, frame_ids=frames, visibility=visible, tracker_name=name
            )
            features["tracking_confidence"] = confidence.ravel()
            rows = np.column_stack([np.repeat(frames, yx.shape[1]), yx.reshape(-1, 2)])
            return data.TrackingWorkerOutput(keypoints=rows, keypoint_features=features)

        def validate_outputs(self, inputs: Any, outputs: Any) -> tuple[bool, str]:
            first, end = map(int, inputs.metadata["keypoint_range"])
            wanted = ((end - first) * len(inputs.keypoints), 3)
            if outputs.keypoints.shape != wanted:
                return False, f"The keypoints have the shape {outputs.keypoints.shape} where {wanted} was expected."
            return bool(np.isfinite(outputs.keypoints).all()), "A keypoint has no position."

    PointTracker.name = name
    return PointTracker


def register(name: str | None = None, model: str = "nano", **options: Any) -> None:
    """Add ptrack's models to the list of napari-deeplabcut's tracking widget, before the widget is opened.

    Args:
        name: of one more entry, for ``model`` with ``options``; None: nano at its three qualities.
        model, options: as in ``backbone``.

    Raises:
        ModelError: napari-deeplabcut is not installed, or has no tracking.
    """
    _, models = _theirs()
    entries = {name: (model, options)} if name else {key: ("nano", value) for key, value in OFFERED.items()}
    for key, (which, arguments) in entries.items():
        models.register_backbone(key)(backbone(key, which, **arguments))


def _theirs() -> tuple[Any, Any]:
    """Return napari-deeplabcut's modules of data types and of models."""
    try:
        return import_module(f"{THEIRS}.core.data"), import_module(f"{THEIRS}.core.models")
    except ImportError as error:
        raise ModelError(
            f"napari-deeplabcut 0.4 or later with its tracking is needed ({error}): pip install napari-deeplabcut."
        ) from error


def __getattr__(name: str) -> Any:
    """Return napari-deeplabcut's widget with ptrack's models in its list; napari asks for it by this name."""
    if name != "TrackingControls":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    register()
    return import_module(f"{THEIRS}._widgets").TrackingControls

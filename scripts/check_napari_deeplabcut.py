"""The adapter in the real napari-deeplabcut, without a screen: its widget tracks keypoints forwards and backwards.

pip install pointtrack napari-deeplabcut
QT_QPA_PLATFORM=offscreen python scripts/check_napari_deeplabcut.py

A texture moves by (2, 1) pixels a frame; the keypoints must follow within half a pixel and keep their names.
"""

from __future__ import annotations

import importlib.metadata
import time

import napari
import numpy as np
from napari.components import ViewerModel
from napari.plugins import _initialize_plugins
from npe2 import PluginManager
from qtpy.QtWidgets import QApplication
from scipy.ndimage import gaussian_filter, shift

FRAMES, REFERENCE = 12, 5
START = np.array([[60.0, 80.0], [100.0, 150.0]])  # (y, x) in the reference frame


def moving() -> np.ndarray:
    """Return (FRAMES, 160, 240, 3) uint8."""
    texture = gaussian_filter(np.random.default_rng(0).uniform(0, 255, (160, 240, 3)), (2, 2, 0))
    texture = (texture - texture.min()) / np.ptp(texture) * 255
    frames = [shift(texture, (t - REFERENCE, 2 * (t - REFERENCE), 0), mode="reflect") for t in range(FRAMES)]
    return np.stack(frames).clip(0, 255).astype(np.uint8)


def until(done: object, seconds: float = 60) -> None:
    """Let Qt work until ``done()``."""
    end = time.monotonic() + seconds
    while not done():
        QApplication.processEvents()
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def main() -> None:
    application = QApplication([])
    viewer = ViewerModel()  # no window: it would need OpenGL
    viewer.add_image(moving(), name="video")
    data = np.column_stack([np.full(2, REFERENCE), START])
    names = {"label": ["nose", "tail"], "id": ["", ""], "likelihood": [1.0, 1.0]}
    points = viewer.add_points(data, features=names, name="keypoints")
    _initialize_plugins()
    found = [w for w in PluginManager.instance().iter_widgets() if w.plugin_name == "pointtrack"]
    assert [w.display_name for w in found] == ["Tracking controls with ptrack"]
    widget = found[0].get_callable()(viewer)
    combo = widget._tracking_method_combo
    offered = [combo.itemText(i) for i in range(combo.count())]
    assert {"ptrack", "ptrack (fast)", "ptrack (best)"} <= set(offered), offered
    for name in ("ptrack", "ptrack (fast)"):
        combo.setCurrentText(name)
        for backward in (False, True):
            widget._keypoint_layer_combo.choices = [points]  # without a window they are not filled by themselves
            widget._video_layer_combo.choices = [viewer.layers["video"]]
            widget._reference_spinbox.setValue(REFERENCE)
            before = len(viewer.layers)
            (widget.track_backward_end if backward else widget.track_forward_end)()
            until(lambda before=before: len(viewer.layers) > before and not widget.is_tracking)
            layer = viewer.layers[-1]
            frames = range(REFERENCE + 1) if backward else range(REFERENCE, FRAMES)
            assert layer.data.shape == (2 * len(frames), 3)
            t = layer.data[:, :1] - REFERENCE
            truth = np.tile(START, (len(frames), 1)) + t * [1, 2]
            worst = np.abs(layer.data[:, 1:] - truth).max()
            assert worst < 0.5, worst
            assert list(layer.features["label"][:2]) == ["nose", "tail"]
            print(f"{name}, {'backward' if backward else 'forward'}: {len(frames)} frames within {worst:.2f} px")
    print("napari-deeplabcut", importlib.metadata.version("napari-deeplabcut"), "napari", napari.__version__)
    application.quit()


if __name__ == "__main__":
    main()

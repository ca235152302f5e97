"""SLEAP's own reader must see the points as nodes of one instance at the source's frame numbers."""

from __future__ import annotations

import numpy as np
import sleap_io

from ptrack.exports import export


def test_sleap_io_reads_the_analysis_file(tracks, tmp_path):
    path = tmp_path / "clip.analysis.h5"
    export(tracks, path, "sleap")
    labels = sleap_io.load_file(str(path))
    assert labels.skeletons[0].node_names == tracks.ids.tolist()
    assert [frame.frame_idx for frame in labels.labeled_frames] == tracks.frame_index.tolist()
    for t, frame in enumerate(labels.labeled_frames):
        np.testing.assert_allclose(frame.instances[0].numpy(), tracks.tracks[t] - 0.5, atol=1e-6)
    assert labels.videos[0].filename == "clip.mp4"
    assert [track.name for track in labels.tracks] == ["ptrack"]

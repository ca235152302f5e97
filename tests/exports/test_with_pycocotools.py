"""COCO's consumer is pycocotools: a file scored against itself is perfect."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ptrack.exports import export


def test_a_file_scored_against_itself_is_perfect(tracks, tmp_path):
    export(tracks, tmp_path / "k.json", "coco")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "k.json"))
        found = [{**a, "score": 1.0} for a in json.loads((tmp_path / "k.json").read_text())["annotations"]]
        judge = COCOeval(truth, truth.loadRes(found), "keypoints")
        judge.params.kpt_oks_sigmas = np.full(tracks.num_points, 0.05)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert judge.stats[0] == 1.0  # AP; with an annotation of id 0 it was 0.8 of it here
    assert judge.stats[5] == 1.0  # AR
    assert len(truth.getImgIds()) == len(truth.getAnnIds()) == tracks.num_frames

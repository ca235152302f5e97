"""K-EPIC, the training set that comes with EgoPoints: 24-frame sequences with dense tracks."""

from __future__ import annotations

from ptrack.data.sources.ego_points import EgoPoints


class KEpic(EgoPoints):
    """Same files as EgoPoints, annotated in every frame."""

    name = "k-epic"
    title = "K-EPIC"
    layout = "ROOT/[train/]SEQUENCE/rgbs/frame_0000000001.jpg and annot.npz"
    default_split = "train"


SOURCE = KEpic

"""Numbers that others published for these benchmarks, to be printed beside, never mixed with, measured ones.

Queries are "first" unless stated; values are percent. ``source`` names the public page that states the value.
"""

from __future__ import annotations

from dataclasses import dataclass

DELTA, OA, AJ = "average_pts_within_thresh", "occlusion_accuracy", "average_jaccard"
TO, TO2, CT, LT, TN, TNPP, AT = (
    "track_on README", "track_on README, branch track-on2", "co-tracker README", "lite-tracker README",
    "tapnet README", "tapnextpp README", "alltracker README",
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """One published value."""

    model: str
    benchmark: str  # name of a protocol
    metric: str
    value: float  # percent
    source: str
    mode: str = "first"


def _row(model: str, source: str, metric: str, mode: str = "first", **values: float) -> list[Published]:
    return [Published(model, b, metric, v, source, mode) for b, v in values.items()]


TABLE: list[Published] = [
    *_row("Track-On-R", TO, DELTA, davis=80.3, kinetics=71.0, robotap=82.6),
    *_row("Track-On-R", TO, "d_avg", ego_points=67.3, point_odyssey=53.4),
    *_row("Track-On-R", TO, "accuracy_vis", dynamic_replica=75.1),
    *_row("Track-On2 (DINOv3)", TO, DELTA, davis=79.9, kinetics=69.3, robotap=80.5),
    *_row("Track-On2 (DINOv3)", TO, "d_avg", ego_points=61.7, point_odyssey=45.1),
    *_row("Track-On2 (DINOv3)", TO, "accuracy_vis", dynamic_replica=74.5),
    *_row("Track-On2 (DINOv2)", TO2, DELTA, davis=79.8, kinetics=69.1, robotap=80.0),
    *_row("Track-On2 (DINOv2)", TO2, "d_avg", point_odyssey=47.4),
    *_row("Track-On2 (DINOv2)", TO2, "accuracy_vis", dynamic_replica=74.6),
    *_row("Track-On (48 memory)", LT, DELTA, davis=78.0, kinetics=67.3, robotap=76.4, rgb_stacking=85.2),
    *_row("Track-On (48 memory)", LT, AJ, davis=65.0, kinetics=53.9, robotap=63.5, rgb_stacking=71.4),
    *_row("Track-On (48 memory)", LT, OA, davis=90.8, kinetics=87.8, robotap=89.4, rgb_stacking=91.7),
    *_row("Track-On (48 memory)", LT, "accuracy_vis", dynamic_replica=73.6),
    *_row("CoTracker2.1", CT, DELTA, davis=76.1, kinetics=63.0, robotap=70.6, rgb_stacking=79.6),
    *_row("CoTracker3 offline", CT, DELTA, davis=76.9, kinetics=67.8, robotap=78.0, rgb_stacking=85.0),
    *_row("CoTracker3 online", CT, DELTA, davis=76.7, kinetics=68.3, robotap=78.8, rgb_stacking=82.7),
    *_row("CoTracker3 online", LT, AJ, davis=63.8, kinetics=55.8, robotap=66.4, rgb_stacking=71.7),
    *_row("CoTracker3 online", LT, OA, davis=90.2, kinetics=88.3, robotap=90.8, rgb_stacking=91.1),
    *_row("CoTracker3 online", LT, "accuracy_vis", dynamic_replica=73.3),
    *_row("CoTracker3 online", LT, "accuracy_occ", dynamic_replica=40.1),
    *_row("CoTracker3 online", LT, "survival", dynamic_replica=94.4),
    *_row("LiteTracker", LT, DELTA, davis=74.6, kinetics=66.9, robotap=76.7, rgb_stacking=81.7),
    *_row("LiteTracker", LT, AJ, davis=62.0, kinetics=54.4, robotap=63.6, rgb_stacking=71.0),
    *_row("LiteTracker", LT, OA, davis=88.4, kinetics=85.7, robotap=87.5, rgb_stacking=86.7),
    *_row("TAPNext++", TNPP, DELTA, davis=79.0, kinetics=68.4, robotap=75.4),
    *_row("TAPNext++", TNPP, AJ, davis=65.6, kinetics=53.9, robotap=61.1),
    *_row("TAPNext++", TNPP, OA, davis=92.0, kinetics=88.7, robotap=89.0),
    *_row("TAPNext++", TNPP, "d_avg", point_odyssey=51.8),
    *_row("TAPNext++", TNPP, "survival", point_odyssey=71.0),
    *_row("TAPNext++", TNPP, "median_l2", point_odyssey=14.4),
    *_row("TAPNext++ (512x512)", TNPP, AJ, davis=67.0),
    *_row("TAPNext++ (512x512)", TNPP, AJ, mode="strided", davis=71.2),
    *_row("BootsTAPNext", TN, AJ, davis=65.25, kinetics=57.3, robotap=64.1),
    *_row("BootsTAPNext", TN, AJ, mode="strided", davis=68.9),
    *_row("TAPIR", TN, AJ, davis=58.5, kinetics=50.0, robotap=59.6),
    *_row("TAPIR", TN, AJ, mode="strided", davis=63.3),
    *_row("BootsTAPIR", TN, AJ, davis=62.4, kinetics=55.8, robotap=69.2),
    *_row("BootsTAPIR", TN, AJ, mode="strided", davis=67.4),
    *_row("AllTracker (384x512)", AT, DELTA, davis=76.3),
    *_row("AllTracker (384x512)", AT, AJ, davis=63.3),
    *_row("AllTracker (384x512)", AT, OA, davis=90.0),
    *_row("PIPs", "pips README", "pck", badja=64.4),
]


def published(benchmark: str, mode: str = "first") -> dict[tuple[str, str], dict[str, float]]:
    """Return (model, source) -> metric -> percent, in the order of the table."""
    out: dict[tuple[str, str], dict[str, float]] = {}
    for row in TABLE:
        if row.benchmark == benchmark and row.mode == mode:
            out.setdefault((row.model, row.source), {})[row.metric] = row.value
    return out

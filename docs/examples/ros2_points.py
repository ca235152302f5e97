"""A ROS 2 node: follows a grid of points on an image topic and publishes them as a PointCloud2 in pixels.

    python ros2_points.py --ros-args -p image:=/camera/image_raw -p grid:=8 -p model:=nano

Subscribes to ``image`` (sensor_msgs/Image; rgb8, bgr8 or mono8) and publishes ``points`` (sensor_msgs/PointCloud2) with
the image's own header and the fields x, y (raster pixels: the picture's corner is 0, 0), visibility, confidence (0-1)
and id. A frame that comes while another is tracked replaces the one that waits: nothing falls behind.
"""

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2, PointField

import ptrack
from ptrack.tracks import Queries

FIELDS = ("x", "y", "visibility", "confidence")
LATEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
CHANNELS = {"rgb8": 3, "bgr8": 3, "mono8": 1}


def to_rgb(image):
    """Return a sensor_msgs/Image as (H, W, 3) uint8 RGB."""
    channels = CHANNELS.get(image.encoding)
    if channels is None:
        raise ValueError(f"images must be {', '.join(CHANNELS)}, not {image.encoding}")
    rows = np.frombuffer(bytes(image.data), np.uint8).reshape(image.height, image.step)
    pixels = rows[:, : image.width * channels].reshape(image.height, image.width, channels)
    pixels = pixels[..., ::-1] if image.encoding == "bgr8" else pixels
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def to_cloud(header, ids, result):
    """Return the points whose place is known as a PointCloud2."""
    known = np.isfinite(result.positions).all(axis=1)
    kinds = [(name, "<f4") for name in FIELDS] + [("id", "<u4")]
    table = np.zeros(int(known.sum()), dtype=kinds)
    table["x"], table["y"] = result.positions[known].T
    table["visibility"], table["confidence"] = result.visibility[known], result.confidence[known]
    table["id"] = ids[known].astype(np.int64)
    fields = [PointField(name=n, offset=4 * i, datatype=PointField.FLOAT32, count=1) for i, n in enumerate(FIELDS)]
    fields.append(PointField(name="id", offset=16, datatype=PointField.UINT32, count=1))
    return PointCloud2(
        header=header, height=1, width=len(table), fields=fields, is_bigendian=False, point_step=20,
        row_step=20 * len(table), data=table.tobytes(), is_dense=True,
    )  # fmt: skip


class PointsNode(Node):
    """Tracks every image that comes while nothing else is tracked."""

    def __init__(self):
        super().__init__("ptrack_points")
        names = {"image": "image", "points": "points", "grid": 8, "model": "nano", "device": "auto"}
        self.options = {name: self.declare_parameter(name, value).value for name, value in names.items()}
        self.tracker = ptrack.load(self.options["model"], device=self.options["device"])
        self.publisher = self.create_publisher(PointCloud2, self.options["points"], LATEST)
        self.create_subscription(Image, self.options["image"], self.track, LATEST)

    def track(self, image):
        """Follow the points into one image and publish them."""
        rgb = to_rgb(image)
        if not len(self.tracker.ids):
            self.tracker.reset()
            self.tracker.add(Queries.grid(self.options["grid"], rgb.shape[:2]))
        self.publisher.publish(to_cloud(image.header, self.tracker.ids, self.tracker.step(rgb)))


if __name__ == "__main__":
    rclpy.init()
    rclpy.spin(PointsNode())

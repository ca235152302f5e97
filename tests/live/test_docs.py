"""Every command and program of docs/live.md and docs/examples is run, with cameras and ROS made by Python."""

import importlib.util
import json
import socket
import sys
import types

import numpy as np
import pytest

from ptrack.bench import live as bench_module
from ptrack.cli import app
from ptrack.live import request as request_module
from ptrack.live.publish import LinesOnPort
from ptrack.tracking.tracker import Tracker
from ptrack.video import open_source as real_open
from ptrack.video import open_writer
from tests.docs import DOCS, blocks, commands
from tests.fakes import DriftModel
from tests.live.fakes import FakeCamera, picture
from tests.live.test_publish import made


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the files that the page names; cameras are frames made by Python, the model moves points evenly."""
    with open_writer(tmp_path / "video.mp4", fps=25) as writer:
        for t in range(5):
            writer.write(picture(t), t / 25)
    with open_writer(tmp_path) as writer:
        writer.write(picture())
    next(tmp_path.glob("*.png")).rename(tmp_path / "cup.png")
    (tmp_path / "cup.csv").write_text("t,x,y\n0,20,20\n")
    monkeypatch.chdir(tmp_path)

    def opened(source, options, camera=False):
        return real_open(source, options) if source == "video.mp4" else FakeCamera(12, live=False)

    monkeypatch.setattr(request_module, "open_source", opened)
    monkeypatch.setattr(request_module, "load", lambda *_, **__: Tracker(DriftModel()))
    monkeypatch.setattr("ptrack.live.reference.Reference.lay_over", lambda *_: np.eye(3))
    row = bench_module.LiveRow(
        model="nano", points=64, rate=15.0, tracked=15.0, sent=1, came=1, dropped=0, latency_ms={}, age_ms={}
    )
    monkeypatch.setattr(bench_module, "_measure", lambda *_: row)
    monkeypatch.setattr(bench_module, "load", lambda *_, **__: None)
    return tmp_path


@pytest.mark.parametrize("command", commands("live.md"), ids=" ".join)
def test_commands(command, place, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as end:
        app.main()
    assert not end.value.code
    out = capsys.readouterr().out
    if command[1] == "bench":
        assert [r["rate"] for r in json.loads(out.splitlines()[-1])["rows"]] == [15.0, 15.0]
    elif "-" in command:
        assert [json.loads(line)["frame"] for line in out.splitlines()] == list(range(12))
    else:
        assert f"{5 if 'video.mp4' in command else 12} frames" in out
    if "--out" in command:
        assert (place / "day.0000.tracks.h5").exists()


def test_the_reader_in_ten_lines(monkeypatch, capsys):
    code = blocks("live.md", "python")[0]
    assert len(code.strip().splitlines()) <= 10
    port = LinesOnPort("127.0.0.1", 0)
    connect = socket.create_connection

    def connected(address):
        assert address == ("127.0.0.1", 5555)
        made_connection = connect(("127.0.0.1", port.port))
        for number in range(2):
            port.send(made(number))
        port.close()
        return made_connection

    monkeypatch.setattr(socket, "create_connection", connected)
    exec(compile(code, "live.md", "exec"), {})
    assert capsys.readouterr().out == "0 p 0 1.25 1.25\n1 p 0 1.25 1.25\n"


def test_the_callback(place, capsys):
    exec(compile(blocks("live.md", "python")[1], "live.md", "exec"), {})
    assert capsys.readouterr().out.count("(256, 2)") == 12


class Node:
    """As much of rclpy's Node as the example uses."""

    def __init__(self, name):
        self.name, self.published = name, []

    def declare_parameter(self, name, value):
        return types.SimpleNamespace(value={"grid": 2, "model": "static"}.get(name, value))

    def create_publisher(self, kind, topic, qos):
        return types.SimpleNamespace(publish=self.published.append)

    def create_subscription(self, kind, topic, callback, qos):
        self.callback = callback


def test_the_ros_2_node(monkeypatch):
    path = DOCS / "examples" / "ros2_points.py"
    assert len(path.read_text().splitlines()) <= 80

    class Field(types.SimpleNamespace):
        FLOAT32, UINT32 = 7, 6

    message = {"Image": object, "PointCloud2": types.SimpleNamespace, "PointField": Field}
    stubs = {
        "rclpy": {},
        "rclpy.node": {"Node": Node},
        "rclpy.qos": {"QoSProfile": types.SimpleNamespace, "ReliabilityPolicy": types.SimpleNamespace(BEST_EFFORT=2)},
        "sensor_msgs": {},
        "sensor_msgs.msg": message,
    }
    for name, content in stubs.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("ros2_points", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    node = module.PointsNode()
    for encoding, step, channels in (("bgr8", 200, 3), ("mono8", 64, 1)):
        pixels = np.zeros((48, step), np.uint8)
        pixels[:, 0 : 64 * channels : channels] = 9
        image = types.SimpleNamespace(
            encoding=encoding, height=48, width=64, step=step, data=pixels.tobytes(), header="stamp"
        )
        assert module.to_rgb(image)[0, 0].tolist() == ([0, 0, 9] if channels == 3 else [9, 9, 9])
        node.callback(image)
    cloud = node.published[-1]
    table = np.frombuffer(cloud.data, np.dtype([(f.name, "<u4" if f.datatype == 6 else "<f4") for f in cloud.fields]))
    assert (cloud.header, cloud.width, cloud.row_step) == ("stamp", 4, 80)
    assert table["x"].tolist() == [16, 48, 16, 48]
    assert table["id"].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="rgb8"):
        module.to_rgb(types.SimpleNamespace(encoding="16UC1"))

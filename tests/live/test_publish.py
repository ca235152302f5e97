import json
import math
import socket
import struct
import time

import numpy as np
import pytest

from ptrack.errors import ConfigError, OutputError
from ptrack.live import publish
from ptrack.live.publish import (
    LinesOnPort,
    LiveFrame,
    OscTo,
    frame_messages,
    host_and_port,
    lines_publisher,
    osc_bundles,
)


def made(number=3, n=2):
    xy = np.full((n, 2), 1.25, np.float32)
    xy[-1] = np.nan
    return LiveFrame(
        frame=number,
        time=1700000000.25,
        age_ms=12.3456,
        width=64,
        height=48,
        dropped=1,
        ids=tuple(f"p {i}" for i in range(n)),
        positions=xy,
        visible=np.arange(n) % 2 == 0,
        visibility=np.full(n, 0.75, np.float32),
        confidence=np.full(n, 0.5, np.float32),
    )


def test_a_line_of_json():
    data = json.loads(made().to_json())
    assert data == {
        "frame": 3,
        "time": 1700000000.25,
        "age_ms": 12.35,
        "size": [64, 48],
        "dropped": 1,
        "ids": ["p 0", "p 1"],
        "xy": [[1.25, 1.25], None],
        "visible": [True, False],
        "visibility": [0.75, 0.75],
        "confidence": [0.5, 0.5],
    }


def test_lines_into_a_file_and_onto_stdout(tmp_path, capsys):
    lines = lines_publisher(str(tmp_path / "a.jsonl"))
    lines.send(made())
    assert (tmp_path / "a.jsonl").read_text().count("\n") == 1  # at once, not when it is closed
    lines.close()
    lines_publisher("-").send(made())
    assert json.loads(capsys.readouterr().out)["frame"] == 3
    with pytest.raises(OutputError, match="Cannot write"):
        lines_publisher(str(tmp_path / "none" / "a.jsonl"))


def read_lines(connection, count):
    data = b""
    while data.count(b"\n") < count:
        data += connection.recv(65536)
    return [json.loads(line) for line in data.splitlines()]


def test_everybody_who_connects_to_the_port_gets_lines():
    port = LinesOnPort("127.0.0.1", 0)
    port.send(made(0))  # nobody listens
    with (
        socket.create_connection(("127.0.0.1", port.port)) as one,
        socket.create_connection(("127.0.0.1", port.port)) as two,
    ):
        port.send(made(1))
        port.send(made(2))
        assert [d["frame"] for d in read_lines(one, 2)] == [1, 2]
        assert [d["frame"] for d in read_lines(two, 1)] == [2]
    port.send(made(3))
    time.sleep(0.05)
    port.send(made(4))
    port.send(made(5))  # those who left are forgotten
    assert port._readers == []
    port.close()


def test_a_slow_reader_misses_whole_frames_and_delays_nobody(monkeypatch):
    monkeypatch.setattr(publish, "MOST_WAITING", 100_000)
    notes = []
    port = LinesOnPort("127.0.0.1", 0, notes.append)
    big = made(0, 400)
    with socket.create_connection(("127.0.0.1", port.port)) as slow:
        start = time.monotonic()
        for _ in range(400):
            port.send(big)
        assert time.monotonic() - start < 5
        assert notes == ["A reader of the TCP port is too slow and misses frames."]
        slow.settimeout(0.3)
        data = b""
        try:
            while True:
                data += slow.recv(1 << 20)
        except TimeoutError:
            pass
        lines = data.split(b"\n")
        assert all(json.loads(line)["frame"] == 0 for line in lines[:-1])
        assert len(lines) < 400
    port.close()


def test_osc_as_python_osc_reads_it():
    message = pytest.importorskip("pythonosc.osc_message")
    bundle = pytest.importorskip("pythonosc.osc_bundle")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(5)
        osc = OscTo("127.0.0.1", listener.getsockname()[1])
        osc.send(made())
        osc.close()
        packet = listener.recv(65536)
    assert bundle.OscBundle.dgram_is_bundle(packet)
    contents = list(bundle.OscBundle(packet))
    assert all(isinstance(c, message.OscMessage) for c in contents)
    assert [c.address for c in contents] == ["/ptrack/frame", "/ptrack/point/p_0"]  # the second point has no place
    frame, point = (list(c) for c in contents)
    assert frame[:2] == [3, 1700000000.25]
    assert frame[2] == pytest.approx(12.3456)
    assert frame[3:] == [64, 48, 2, 1]
    assert point == [1.25, 1.25, 0.75, 0.5, 3]


def test_osc_bundles_fit_a_packet_and_lose_nothing():
    messages = frame_messages(made(0, 300))
    bundles = osc_bundles(messages)
    assert len(bundles) > 5
    assert max(map(len, bundles)) <= publish.PACKET_BYTES
    assert sum(len(b) - 16 for b in bundles) == sum(len(m) + 4 for m in messages)
    assert all(len(m) % 4 == 0 for m in messages)
    assert struct.unpack(">Q", bundles[0][8:16]) == (1,)
    assert not math.isnan(struct.unpack(">f", messages[1][-20:-16])[0])


@pytest.mark.parametrize("text", ["9000", "host", "host:port", "host:99999", "a/b:3", ""])
def test_bad_addresses(text):
    with pytest.raises(ConfigError, match="--osc"):
        host_and_port(text, "--osc")
    assert host_and_port("[::1]:9000", "--osc") == ("::1", 9000)


def test_ports_and_hosts_that_cannot_be_had():
    port = LinesOnPort("127.0.0.1", 0)
    with pytest.raises(OutputError, match="Cannot listen"):
        LinesOnPort("127.0.0.1", port.port)
    port.close()
    with pytest.raises(ConfigError, match="--jsonl udp://"):
        lines_publisher("udp://127.0.0.1:3")
    with pytest.raises(OutputError, match="no such host"):
        OscTo("no-such-host.invalid", 9000)

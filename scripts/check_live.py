"""Live streams by ffmpeg on loopback: all that is sent is tracked or counted as dropped; a killed sender comes back.

    python -m scripts.check_live --model nano --quality fast

What must hold ends in "ok"; the first line that does not ends the script with an error.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from ptrack.tracks_io import load_tracks
from tests.batch.many import check
from tests.cli.helpers import PTRACK

SECONDS = 8


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def send(port: int, rate: int, seconds: float) -> subprocess.Popen[str]:
    """Start an ffmpeg that waits for one reader and sends it ``rate`` pictures a second."""
    picture = f"testsrc2=size=640x480:rate={rate}"
    coding = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", str(rate)]
    target = ["-f", "mpegts", f"tcp://127.0.0.1:{port}?listen=1"]
    command = ["ffmpeg", "-v", "error", "-re", "-f", "lavfi", "-i", picture, "-t", str(seconds), *coding, *target]
    return subprocess.Popen([*command[:-3], "-progress", "pipe:1", *command[-3:]], stdout=subprocess.PIPE, text=True)


def sent_frames(sender: subprocess.Popen[str]) -> int:
    """Return how many pictures an ffmpeg that has ended reports to have sent."""
    assert sender.stdout is not None
    return int([line for line in sender.stdout if line.startswith("frame=")][-1].partition("=")[2])


def follow(port: int, out: Path, *options: str) -> subprocess.Popen[str]:
    command = ["live", f"tcp://127.0.0.1:{port}", "--grid", "8", "--jsonl", "-", "--out", str(out), *options]
    return subprocess.Popen([*PTRACK, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def messages(follower: subprocess.Popen[str]) -> tuple[list[dict[str, Any]], str]:
    lines, remarks = follower.communicate(timeout=120)
    return [json.loads(line) for line in lines.splitlines()], remarks


def one_rate(rate: int, options: list[str], folder: Path) -> None:
    port, out = free_port(), folder / f"{rate}.tracks.h5"
    sender = send(port, rate, SECONDS)
    time.sleep(0.5)
    frames, _ = messages(follow(port, out, "--no-reconnect", *options))
    sent, dropped = sent_frames(sender), frames[-1]["dropped"]
    ages = np.percentile([f["age_ms"] for f in frames], [50, 95, 99]).round().astype(int)
    print(f"{rate}/s: {sent} sent, {len(frames)} tracked, {dropped} dropped, age p50 p95 p99 {ages} ms", flush=True)
    check("all that was sent came, and is tracked or counted as dropped", sent == len(frames) + dropped)
    check("drops are gaps in the tracks file", load_tracks(out).frame_index.tolist() == [f["frame"] for f in frames])
    check("nothing falls behind: the last second is no older than the others", frames[-1]["age_ms"] < 3 * ages[1])


def killed(options: list[str], folder: Path) -> None:
    """Kill the sender after 4 s, start it again 3 s later."""
    port = free_port()
    first = send(port, 15, 60)
    time.sleep(0.5)
    follower = follow(port, folder / "killed.tracks.h5", "--duration", "20s", *options)
    again: list[subprocess.Popen[str]] = []

    def disturb() -> None:
        time.sleep(9)  # the model is loaded, some seconds are tracked
        first.kill()
        time.sleep(3)
        again.append(send(port, 15, 60))

    threading.Thread(target=disturb).start()
    frames, remarks = messages(follower)
    for sender in (first, *again):
        sender.kill()
    times = np.array([f["time"] for f in frames])
    gap = int(np.diff(times).argmax())
    print(f"{gap + 1} frames before, {len(frames) - gap - 1} after; {times[gap + 1] - times[gap]:.1f} s without one")
    print("\n".join(line for line in remarks.splitlines() if "connect" in line or "back" in line))
    check("it was back", "is back after" in remarks and 3 <= times[gap + 1] - times[gap] < 8 and len(frames) - gap > 15)
    check("numbers go on", frames[-1]["frame"] + 1 == len(frames) + frames[-1]["dropped"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--quality", default="fast")
    arguments = parser.parse_args()
    options = ["--model", arguments.model] + (["--quality", arguments.quality] if arguments.model == "nano" else [])
    with tempfile.TemporaryDirectory() as folder:
        for rate in (15, 60):
            one_rate(rate, options, Path(folder))
        killed(options, Path(folder))


if __name__ == "__main__":
    main()

"""Many videos under fire: 200 short clips, 10 of them broken, undisturbed, again, with kills in between, and how fast.

    python scripts/check_batch.py                     # worker processes: kill -9 of the driver and of workers
    python scripts/check_batch.py --ray               # a local Ray cluster of two nodes, one of which is killed
    python scripts/check_batch.py --speed             # clips/s of 1 and 2 workers, in turns; wants an idle machine

Every line that must hold ends in "ok"; the first that does not ends the script with an error.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ptrack.video import open_writer

PTRACK = [sys.executable, "-c", "import sys; sys.argv[0] = 'ptrack'; from ptrack.cli.app import command; command()"]


def make_clips(folder: Path, good: int, bad: int, frames: int = 12) -> None:
    folder.mkdir()
    for i in range(good):
        texture = np.kron(
            np.random.default_rng(i).integers(0, 255, (24, 28, 3), np.uint8), np.ones((6, 6, 1), np.uint8)
        )
        with open_writer(folder / f"clip{i:03d}.mp4", fps=25) as writer:
            for t in range(frames):
                at = t % 40  # the texture is 40 pixels wider than a frame
                writer.write(np.ascontiguousarray(texture[at : at + 96, at : at + 128]), t / 25)
    for i in range(bad):
        whole = (folder / "clip000.mp4").read_bytes()
        (folder / f"bad{i:03d}.mp4").write_bytes([b"words", b"", whole[:200], bytes(3000)][i % 4])


def start(out: Path | str, clips: Path | str, *options: str) -> subprocess.Popen[bytes]:
    command = [*PTRACK, "track", str(clips), "--out", str(out), "--grid", "8", "-q", *options]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def states(out: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in out.glob("*.status.json")]


def outputs(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if not path.name.endswith(".json")}


def check(what: str, holds: bool) -> None:
    print(f"{what}: {'ok' if holds else 'NOT SO'}", flush=True)
    if not holds:
        sys.exit(1)


def disturbed(out: Path, clips: Path, options: list[str], disturb: list) -> None:
    """Run until everything is done or failed; after every 40 finished jobs one of ``disturb`` does its work."""
    for harm in [*disturb, None]:
        before = sum(s["state"] == "done" for s in states(out)) if out.exists() else 0
        run = start(out, clips, *options)
        while harm is not None and run.poll() is None:
            time.sleep(0.1)
            now = states(out) if out.exists() else []
            if sum(s["state"] == "done" for s in now) >= before + 40:
                harm(run, now)
                break
        run.wait()


def kill_driver(run: subprocess.Popen[bytes], now: list[dict]) -> None:
    run.kill()


def kill_worker(run: subprocess.Popen[bytes], now: list[dict]) -> None:
    os.kill(next(s["pid"] for s in now if s["state"] == "running"), signal.SIGKILL)


def timed(out: Path | str, clips: Path | str, *options: str) -> float:
    began = time.perf_counter()
    start(out, clips, *options).wait()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--clips", type=int, default=190)
    parser.add_argument("--model", default="static")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place, options = Path(name), ["--model", arguments.model, "--quiet"]
        make_clips(place / "clips", arguments.clips, 0 if arguments.speed else 10, 50 if arguments.speed else 12)
        if arguments.speed:
            for turn in range(3):
                took = [timed(place / f"{turn}-{n}", place / "clips", *options, "--workers", str(n)) for n in (1, 2)]
                print(f"1 worker {took[0]:.1f} s, 2 workers {took[1]:.1f} s: {took[0] / took[1]:.2f} times as fast")
            return
        whole = timed(place / "whole", place / "clips", *options, "--workers", "2")
        counts = [s["state"] for s in states(place / "whole")]
        done, failed = counts.count("done"), counts.count("failed")
        check(f"{done} done, {failed} failed in {whole:.0f} s", (done, failed) == (arguments.clips, 10))
        sentences = [s["error"] for s in states(place / "whole") if s["state"] == "failed"]
        check("every failure is a sentence", all(s.endswith(".") for s in sentences))
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        again = min(timed(place / "whole", place / "clips", *options, "--workers", "2") for _ in range(3))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        work = (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) / 3
        check(f"a second run takes {again:.1f} s, the best of three; {work:.1f} s of a processor", min(again, work) < 5)
        if arguments.ray:
            from check_ray import cluster

            with cluster() as (address, harms):
                on_ray = [*options, "--ray", address, "--workers", "2"]
                disturbed(place / "cut", place / "clips", on_ray, [kill_driver, *harms])
        else:
            harms = [kill_driver, kill_worker, kill_driver]
            disturbed(place / "cut", place / "clips", [*options, "--workers", "2"], harms)
        check("the outputs of killed runs are the same bytes", outputs(place / "cut") == outputs(place / "whole"))


if __name__ == "__main__":
    main()

"""Many videos: 200 short clips, 10 of them broken, without and with kills in between, run twice, and the speed.

    python -m scripts.check_batch                     # worker processes: kill -9 of the driver and of workers
    python -m scripts.check_batch --ray               # a local Ray cluster of two nodes, one of which is killed
    python -m scripts.check_batch --speed             # clips/s of 1 and 2 workers, in turns; wants an idle machine

Every line that must hold ends in "ok"; the first that does not ends the script with an error.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from tests.batch.many import check, make_clips, outputs, start, states, timed


def run_with_kills(out: Path, clips: Path, options: list[str], kills: list) -> None:
    """Run until everything is done or failed; after every 40 finished jobs one of ``kills`` ends a process."""
    for kill in [*kills, None]:
        before = sum(s["state"] == "done" for s in states(out)) if out.exists() else 0
        run = start(out, clips, *options)
        while kill is not None and run.poll() is None:
            time.sleep(0.1)
            now = states(out) if out.exists() else []
            if sum(s["state"] == "done" for s in now) >= before + 40:
                kill(run, now)
                break
        run.wait()


def kill_driver(run: subprocess.Popen[bytes], now: list[dict]) -> None:
    run.kill()


def kill_worker(run: subprocess.Popen[bytes], now: list[dict]) -> None:
    os.kill(next(s["pid"] for s in now if s["state"] == "running"), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--clips", type=int, default=190)
    parser.add_argument("--model", default="static")
    parser.add_argument("--turns", type=int, default=3, help="of --speed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        place, options = Path(name), ["--model", arguments.model, "--quiet"]
        make_clips(place / "clips", arguments.clips, 0 if arguments.speed else 10, 50 if arguments.speed else 12)
        if arguments.speed:
            for turn in range(arguments.turns):
                one, two = (timed(place / f"{turn}-{n}", place / "clips", *options, "--workers", n) for n in "12")
                print(f"1 worker {one:.1f} s, 2 workers {two:.1f} s: {one / two:.2f} times as fast")
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
            from scripts.check_ray import cluster

            with cluster() as (address, kill_nodes):
                on_ray = [*options, "--ray", address, "--workers", "2"]
                run_with_kills(place / "cut", place / "clips", on_ray, [kill_driver, *kill_nodes])
        else:
            kills = [kill_driver, kill_worker, kill_driver]
            run_with_kills(place / "cut", place / "clips", [*options, "--workers", "2"], kills)
        check("the outputs of killed runs are the same bytes", outputs(place / "cut") == outputs(place / "whole"))


if __name__ == "__main__":
    main()

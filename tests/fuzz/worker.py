"""The process that reads the cases: one line in, one line out; whatever goes wrong in it is a fault of the reader."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

MEMORY = 2 << 30  # bytes that the process may hold at most
SPARE = 12 << 30  # of address space, so that a runaway cannot take the machine
RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect", "shutil.rmtree")
SENTENCE = re.compile(r"[^\n]{10,1500}[^.][.?]")
ODD_WORDS = re.compile(r"np\.(float|int|bool|str)\w*\(|Traceback|<class |object at 0x")


def readers() -> dict[str, Any]:
    """Return what reads a file of each kind to its end."""
    from ptrack.config import from_mapping, load_yaml
    from ptrack.data.hdf5 import ClipStore
    from ptrack.data.inspect import describe
    from ptrack.data.pickles import load_npy, load_pickle
    from ptrack.exports import load_any
    from ptrack.models.nano.config import NanoConfig
    from ptrack.models.nano.weights import read_weights
    from ptrack.models.online.weights import read_checkpoint
    from ptrack.models.saved import read_format
    from ptrack.queries_io import QueryOptions, load_queries, plan_queries
    from ptrack.video import read_frames

    def video(path: Path) -> None:
        for _ in read_frames(path, end=50):
            pass

    def store(path: Path) -> None:
        describe(path)
        clips = ClipStore(path)
        for i, clip in enumerate(clips):
            clip.frames.rgb(0)
            clips.window(i, 0, clip.num_frames)
        clips.close()

    def weights(path: Path) -> None:
        if path.suffix == ".safetensors":
            read_format(path)
            read_weights(path)
        elif path.suffix == ".pth":
            read_weights(path)
        else:
            read_checkpoint(path)

    return {
        "video": video,
        "image": video,
        "gif": video,
        "tracks": load_any,
        "store": store,
        "queries": load_queries,
        "mask": lambda path: plan_queries(QueryOptions(mask=path)).build((32, 48)),
        "weights": weights,
        "pickle": lambda path: load_npy(path) if path.suffix == ".npy" else load_pickle(path),
        "yaml": lambda path: from_mapping(NanoConfig, load_yaml(path)),
    }


def peak() -> int:
    """Return the most bytes that the process held since ``reset_peak``; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) << 10


def reset_peak() -> None:
    """Count the most memory anew."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def judged(read: Any, path: Path) -> tuple[str, str]:
    """Read a file; return "result", "error" or a fault, and its words."""
    from ptrack.errors import PTrackError

    try:
        read(path)
    except PTrackError as error:
        words = str(error)
        good = SENTENCE.fullmatch(words) and not ODD_WORDS.search(words)
        return ("error", words) if good else ("words", repr(words))
    except BaseException as error:
        import traceback

        return "traceback", "".join(traceback.format_exception(error)[-4:])
    return "result", ""


def main() -> None:
    """Answer cases, lines of JSON on standard input, until it ends."""
    ran: list[str] = []
    sys.addaudithook(lambda event, args: ran.append(f"{event} {args!r:.200}") if event.startswith(RUNS) else None)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)  # libraries complain about damaged files there
    known = readers()
    resource.setrlimit(resource.RLIMIT_DATA, (SPARE, SPARE))
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        case = json.loads(line)
        ran.clear()
        reset_peak()
        start = time.process_time()
        outcome, words = judged(known[case["kind"]], Path(case["path"]))
        most = peak()
        if ran:
            outcome, words = "code", "; ".join(ran)
        elif most > MEMORY:
            outcome, words = "memory", f"{most >> 20} MiB ({outcome}: {words})"
        report = {"outcome": outcome, "words": words, "seconds": time.process_time() - start, "memory": most}
        print(json.dumps(report), file=answers, flush=True)


if __name__ == "__main__":
    main()

"""Quick stand-ins for tracking: what a job does is in its name. They import no torch; processes start at once."""

from __future__ import annotations

import errno
import os
import signal
import time

from ptrack.errors import InputError, ModelError, OutputError, TransientError


class Work:
    """Writes ``NAME.txt``; names that begin with ``bad-``, ``die-``, ``full-``, ``hang-`` and so on do as they say."""

    def __init__(self, log="", *, index=0, workers=1):
        self.index, self.log = index, log
        self._note(f"made {index}")

    def _note(self, text):
        if self.log:
            with open(self.log, "a") as file:
                file.write(text + "\n")

    def run(self, order, place, progress):
        self._note(order["job"])
        kind, first = order["job"].partition("-")[0], order["tries"] == 1
        if kind == "bad":
            raise InputError(f"{order['source']} is no video.")
        if kind == "bug":
            raise ZeroDivisionError("of nothing")
        if kind == "full":
            raise OutputError("Cannot write it.") from OSError(errno.ENOSPC, "No space left on device")
        if kind == "flaky" and first:
            raise TransientError("the network broke off.")
        if (kind == "die" and first) or kind == "dies":
            print("a library's message")
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang" and first:
            time.sleep(60)
        if kind == "slow":
            time.sleep(0.3)
        progress({"done": 1, "expected": 2})
        for name in order["outputs"]:
            place.write(name, order["path"].encode())
        if kind == "late" and first:  # killed between the result and its status
            os.kill(os.getpid(), signal.SIGKILL)
        content = {"bytes": source_bytes(order["path"])}
        return {"content": content, "outputs": {n: place.size(n) for n in order["outputs"]}, "frames": 2, "points": 3}


def no_model(*arguments, index, workers):
    raise ModelError("There is no such model.")


def crash(*arguments, index, workers):
    os.write(2, b"something is missing\n")
    os._exit(3)


def source_bytes(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


class Task:
    """What the driver knows of ``Work``."""

    private = False

    def __init__(self, **settings):
        self.settings = settings or {"grid": 16}

    def outputs(self, job):
        return [f"{job}.txt"]

    def changed(self, job, content):
        return content != {"bytes": source_bytes(job.path)}

"""Every error a user can cause, as a sentence that states what is wrong, where, and what to do.

Functions raise these; ``ptrack.cli.app`` turns each into one line on stderr and its ``exit_code``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_DOUBLED_STOP = re.compile(r"(?<=[\w)'\"])\.(?=\)?\.(?:\s|$))")  # of a sentence inside another one; "..." stays
MOST = 1200  # characters of a message; names in a damaged file may be of any length
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class PTrackError(Exception):
    """Base of all errors whose message is meant for the user.

    The message is one clear sentence naming the file or option, what is wrong and what to do. Where it quotes another
    sentence, the full stop of that one is left out. It is one line, whatever names and texts of files stand in it:
    control characters, which could also steer a terminal, become spaces.
    """

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        text = _DOUBLED_STOP.sub("", _CONTROL.sub(" ", str(message)))
        super().__init__(text if len(text) <= MOST else f"{text[: MOST - 400]} ... {text[-395:]}")


class InputError(PTrackError):
    """A source (video, image folder, camera, array) cannot be read."""


class QueryError(PTrackError):
    """Query points are malformed, outside the frame, or missing."""


class TracksError(PTrackError):
    """A tracks file cannot be read or does not hold what was expected."""


class OutputError(PTrackError):
    """An output cannot be written: it exists, the place is read-only, the disk is full."""


class TransientError(PTrackError):
    """Something that may go well at the next try: a network, a store."""


class ModelError(PTrackError):
    """Unknown model name, or a model used in a way it does not support."""


class CheckpointError(ModelError):
    """Weights are missing, damaged, or made for another architecture."""


class DeviceError(PTrackError):
    """The requested device or number type is not available."""


class DataError(PTrackError):
    """A dataset or a converted file cannot be read, or holds nothing usable."""


class ConfigError(PTrackError):
    """A configuration has an unknown key or a value outside its range."""


class Interrupted(PTrackError):
    """A signal asked the run to stop; what was finished is on disk.

    Args:
        message: what was saved and how to go on.
        signum: the signal's number; the exit code is ``128 + signum`` (130 for SIGINT, 143 for SIGTERM).
    """

    def __init__(self, message: str, signum: int = 2) -> None:
        super().__init__(message)
        self.signum = signum
        self.exit_code = 128 + signum


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the known word nearest to ``word``, or an empty string.

    A known word of initials is near what it stands for: ``lr`` to ``learning_rate`` and ``learning-rates``.
    """
    known = [name for name in known if name != word]
    initials = "".join(part[0] for part in re.split(r"[^A-Za-z0-9]+", word.lower()) if part)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5) or [k for k in known if k == initials]
    return f" Did you mean '{near[0]}'?" if near else ""


def reason(error: Exception) -> str:
    """Return why an operation failed, as a part of a sentence: the system's words where there are any."""
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")


def count(number: int, thing: str) -> str:
    """Return ``1 frame`` or ``2 frames``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"

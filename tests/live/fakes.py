"""Sources that behave like cameras, made by Python."""

from __future__ import annotations

import time

import numpy as np

from ptrack.video.frames import Frame, FrameSource, ReadOptions, SourceInfo


def picture(number=0, size=(48, 64)):
    return np.full((*size, 3), number % 256, np.uint8)


class FakeCamera(FrameSource):
    """Gives ``count`` frames, ``pause`` seconds apart, then ends or raises ``error``."""

    def __init__(self, count, *, pause=0.0, size=(48, 64), live=True, error=None, bad=(), gate=None, fps=25.0):
        super().__init__(ReadOptions())
        self.count, self.pause, self.size, self.error, self.bad, self.gate = count, pause, size, error, bad, gate
        self.fps, self.closed = fps, False
        self.info = SourceInfo(
            name="tcp://user:secret@host:1", kind="camera", width=size[1], height=size[0], live=live, fps=fps
        )

    def __iter__(self):
        for i in range(self.count):
            if self.pause:
                time.sleep(self.pause)
            yield Frame(picture(i, self.size), i, i / self.fps, ok=i not in self.bad)
            if self.gate is not None:
                self.gate(i)
        if self.error is not None:
            raise self.error

    def reversed(self, stop):
        raise NotImplementedError

    def close(self):
        self.closed = True

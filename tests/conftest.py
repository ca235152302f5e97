"""What all tests share."""

from __future__ import annotations

import signal

# A shell that starts the tests in the background makes them ignore SIGINT, and their child processes inherit that; the
# tests of Ctrl-C need the state of a foreground command.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

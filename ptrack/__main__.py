"""``python -m ptrack`` is the ``ptrack`` command; ``torchrun -m ptrack train`` starts it on several processes."""

from __future__ import annotations

from ptrack.cli.app import command

if __name__ == "__main__":
    command()

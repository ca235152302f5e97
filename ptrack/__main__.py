"""``python -m ptrack`` is the ``ptrack`` command; ``torchrun -m ptrack train`` starts it on several processes."""

from __future__ import annotations

from ptrack.cli.app import main

if __name__ == "__main__":
    main()

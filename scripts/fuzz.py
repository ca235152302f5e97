"""Try damaged and harmful files on every reader: ``python scripts/fuzz.py --minutes 10 --seed 1 [--only tracks]``.

A fault is a traceback, a hang, more than 2 GB of memory, a message that is no sentence, or code that ran. Files of
faults are kept; the exit code is 1 if there are any. What is guaranteed: docs/reliability.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.fuzz import campaign, seeds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="wall-clock time")
    parser.add_argument("--seed", type=int, default=1, help="another seed tries other cases")
    parser.add_argument("--only", action="append", choices=list(seeds.MAKERS), help="a kind of file; repeatable")
    parser.add_argument("--keep", type=Path, help="folder for the files of faults; a temporary one if not given")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ptrack-fuzz-", dir=given.keep))
    report = campaign.run(folder, seed=given.seed, seconds=60 * given.minutes, kinds=tuple(given.only or ()))
    print(", ".join(f"{count} {kind}" for kind, count in sorted(report.tried.items())))
    print(", ".join(f"{count} {outcome}" for outcome, count in sorted(report.outcomes.items())))
    print(f"{sum(report.tried.values())} cases, slowest {report.slowest:.1f} s, most memory {report.memory >> 20} MiB")
    for fault in report.faults:
        print(f"\n{fault.outcome} ({fault.case}), kept as {fault.path}:\n{fault.words[:1500]}")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""Every reader against damaged and harmful files: a result or one sentence, in bounded time and memory, no code run.

A fixed seed and few rounds here; ``scripts/fuzz.py --minutes N`` tries more.
"""

from __future__ import annotations

from tests.fuzz import campaign, seeds

ROUNDS = 12  # cases of each kind, about 10 s


def test_every_reader_survives_what_anybody_may_give_it(tmp_path):
    report = campaign.run(tmp_path, seed=17, rounds=ROUNDS)
    assert report.faults == []
    assert set(report.tried) == set(seeds.MAKERS)
    assert report.outcomes["result"] > 0
    assert report.outcomes["error"] > ROUNDS

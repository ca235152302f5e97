import threading

import pytest

from ptrack.tracking.consumer import Consumer


def test_items_are_consumed_in_order():
    seen = []
    consumer = Consumer(seen.append, depth=2)
    for i in range(20):
        consumer.put(i)
    consumer.finish()
    assert seen == list(range(20))


def test_an_error_reaches_the_producer():
    def work(item):
        raise ValueError(f"bad {item}")

    consumer = Consumer(work, depth=1)
    with pytest.raises(ValueError, match="bad 0"):
        for i in range(50):
            consumer.put(i)
    consumer.abort()
    late = Consumer(work)
    late.put(7)
    with pytest.raises(ValueError, match="bad 7"):
        late.finish()


def test_abort_drops_what_waits_and_leaves_no_thread():
    gate, seen = threading.Event(), []

    def work(item):
        gate.wait(10)
        seen.append(item)

    before = threading.active_count()
    consumer = Consumer(work)
    for i in range(3):
        consumer.put(i)
    threading.Timer(0.05, gate.set).start()
    consumer.abort()
    assert len(seen) <= 1
    assert threading.active_count() <= before + 1  # the timer may still be ending

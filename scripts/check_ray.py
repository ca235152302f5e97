"""A Ray cluster of two nodes on this machine, one of which can be killed; used by ``check_batch.py --ray``."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def cluster() -> Iterator[tuple[str, list[Callable]]]:
    """Yield the cluster's address and the harms that can be done to it."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = made.add_node(num_cpus=1)
    made.wait_for_nodes()

    def kill_node(run: subprocess.Popen[bytes], now: list[dict]) -> None:
        print(f"killing a node while {sum(s['state'] == 'running' for s in now)} clips run", flush=True)
        made.remove_node(second, allow_graceful=False)

    try:
        yield made.address, [kill_node]
    finally:
        made.shutdown()

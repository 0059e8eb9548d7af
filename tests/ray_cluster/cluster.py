"""A Ray cluster of several hosts on this machine, which come up and live however busy the machine is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PATIENCE_SECONDS = 300
# who gets no turn for so long Ray takes for dead, or for one that never began
PATIENT = {
    "RAY_gcs_server_port_wait_time_s": f"{PATIENCE_SECONDS}",
    "RAY_gcs_server_request_timeout_seconds": f"{PATIENCE_SECONDS}",
    "RAY_raylet_start_wait_time_s": f"{PATIENCE_SECONDS}",
    "RAY_agent_register_timeout_ms": f"{PATIENCE_SECONDS}000",
    "RAY_worker_register_timeout_seconds": f"{PATIENCE_SECONDS}",
    "RAY_health_check_timeout_ms": "60000",
}
SMALL: dict[str, Any] = {"object_store_memory": 80 << 20}


@contextmanager
def _patient() -> Iterator[None]:
    """While a host begins. What the tests start has Ray's own patience, or the program's."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in PATIENT.items():
            patch.setenv(name, value)
        from ray._private import services

        ask = services.get_node

        def wait_for(address: str, node: str) -> Any:
            give_up = time.monotonic() + PATIENCE_SECONDS
            while True:
                try:
                    return ask(address, node)
                except RuntimeError:
                    if time.monotonic() > give_up:
                        raise
                    time.sleep(0.1)

        patch.setattr(services, "get_node", wait_for)  # Ray's own loop ends after half a minute, whatever is set
        yield


class Hosts:
    """Ray's own Cluster: a head that takes no trainers unless it is told, and what is added to it."""

    def __init__(self, **head: Any) -> None:
        with _patient():
            from ray.cluster_utils import Cluster

            self._cluster = Cluster(
                initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **SMALL, **head}
            )

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self, **resources: Any) -> Any:
        with _patient():
            return self._cluster.add_node(**SMALL, **resources)

    def lose(self, host: Any) -> None:
        """At once, with all that runs there."""
        self._cluster.remove_node(host, allow_graceful=False)

    def lose_all(self) -> None:
        for host in tuple(self._cluster.worker_nodes):
            self.lose(host)
        self._cluster.wait_for_nodes(PATIENCE_SECONDS)  # until its head knows

    def lose_head(self) -> None:
        self._cluster.head_node.kill_gcs_server()

    def close(self) -> None:
        self._cluster.shutdown()

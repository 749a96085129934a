"""Registration: the server waits for the fleet that its plan is for."""

from __future__ import annotations

import time

from flwr.serverapp import Grid


def await_devices(grid: Grid, devices: int, limit_s: float = 60.0) -> None:
    """Waits until all devices of a fleet are registered; engines start the server before them.

    Args:
        grid: Where they register.
        devices: How many there will be.
        limit_s: Longest wait.

    Raises:
        RuntimeError: If some are missing after the wait.
    """
    deadline = time.monotonic() + limit_s
    while (registered := sum(1 for _ in grid.get_node_ids())) < devices:
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"the plan is for {devices} devices, but after {limit_s:g} s only {registered} "
                "are registered; start the others or plan for fewer"
            )
        time.sleep(0.1)

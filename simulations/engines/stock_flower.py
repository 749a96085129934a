"""Runs the same apps on Flower's own simulation, for parity.

Flower keeps one state per node and may run two messages of one node at once, so there is exactly
one actor. Nobody but us takes the observer's records out of replies, so a grid that only watches
stands between Flower's grid and the ServerApp.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import ray
from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from flwr.supercore.run import Run

from clients.app import FLEET_VARIABLE
from clients.app import app as client_app
from simulations.engines.cohort_grid import DeviceFailedError, Observer, Registry
from strategies.app import PLAN_VARIABLE
from strategies.app import app as server_app


@dataclass(frozen=True)
class ObservingGrid(Grid):
    """Passes everything on to another grid and shows each reply to the observer first.

    Attributes:
        inner: The grid that carries the messages.
        observer: Sees every reply first.
        on_cohort: Called with the number of devices after each round.
    """

    inner: Grid
    observer: Observer
    on_cohort: Callable[[int], None]

    def set_run(self, run: Run) -> None:
        """Passes on."""
        self.inner.set_run(run)

    @property
    def run(self) -> Run:
        """Flower's description of the run."""
        return self.inner.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Passes on."""
        return self.inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Passes on."""
        return self.inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Passes on."""
        return self.inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Returns replies without the observer's records."""
        return self._watch(self.inner.pull_messages(message_ids))

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Returns replies without the observer's records."""
        return self._watch(self.inner.send_and_receive(messages, timeout=timeout))

    def _watch(self, replies: Iterable[Message]) -> Sequence[Message]:
        watched = list(replies)
        for reply in watched:
            arm = reply.metadata.group_id
            if reply.has_error():
                raise DeviceFailedError(f"a device failed in arm {arm}: {reply.error.reason}")
            self.observer(arm, reply.content, None)
        self.on_cohort(len({reply.metadata.src_node_id for reply in watched}))
        return watched


def run_on_flower(
    registry: Registry, plan_file: Path, observer: Observer, on_cohort: Callable[[int], None]
) -> None:
    """Runs a plan with stock Flower, in a Ray that lives as long as the run, and so do its files.

    Args:
        registry: The devices.
        plan_file: The server's plan.
        observer: Sees every reply.
        on_cohort: Called with the number of devices after each round.
    """
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        server_app(grid=ObservingGrid(grid, observer, on_cohort), context=context)

    ray.shutdown()  # pyright: ignore[reportUnknownMemberType] - Flower would take over a Ray of ours, and stop it at its end
    # the apps find their files by environment: stock simulation has no node configuration
    with (
        _environment({FLEET_VARIABLE: registry.fleet, PLAN_VARIABLE: str(plan_file)}),
        TemporaryDirectory(prefix="ray-", dir=_temporary(), ignore_cleanup_errors=True) as session,
    ):
        run_simulation(
            server_app=server,
            client_app=client_app,
            num_supernodes=registry.devices,
            backend_config={
                "init_args": {
                    "address": "local",
                    "num_cpus": 1,
                    "log_to_driver": False,
                    "_temp_dir": session,
                },
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            },
        )


def _temporary() -> str | None:
    """Returns where Ray keeps files; None for the system's own folder.

    Ray's sockets lie below it, and macOS's own folder is too long for the path of a socket.
    """
    return os.environ.get("RAY_TMPDIR") or ("/tmp" if sys.platform == "darwin" else None)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Generator[None]:
    """Sets variables for a while; also undoes Flower's changes to PYTHONPATH."""
    before = dict(os.environ)
    os.environ.update({"RAY_USAGE_STATS_ENABLED": "0", **variables})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

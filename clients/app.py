"""The ClientApp: one message is one night of one device.

An ordinary Flower app. Which device it is comes from the node's own configuration: ``partition-id``
and ``fleet`` (a local file; the environment variable FLEETTUNE_FLEET where an engine cannot set
node configuration).
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients.device import run_round
from clients.night.attendance import tonight_in
from clients.night.order import NightOrder
from clients.policy import read_policy
from clients.state.state import join_fleet, read_state, write_state
from clients.work.facts import Facts
from fleettune.cohort.suspension import current_compute
from fleettune.fleet.registry import OpenFleet, open_fleet
from fleettune.messages.flower_records import decode_request, encode_report
from fleettune.releases.manifest import Manifest
from fleettune.releases.model_files import folder_digest

FLEET_VARIABLE = "FLEETTUNE_FLEET"

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Lives one night and replies with a delta and statistics."""
    request = decode_request(message.content)
    known = _open_fleet(context)
    device = int(context.node_config["partition-id"])
    _verify(request.release)
    profile = known.fleet.profile(device)
    window = known.fleet.availability.window(known.fleet.seed, device, request.round)
    order = NightOrder(
        facts=Facts(
            device=device,
            user=device,
            seed=known.fleet.seed,
            profile=profile,
            priced=known.fleet.priced,
            radio=known.fleet.radio,
        ),
        round=request.round,
        release=request.release,
        policy=read_policy(request.policy, known.fleet.installed),
        population=known.population,
        compute=current_compute(),
        tonight=tonight_in(window, profile, known.fleet.floor, known.fleet.deadline_s),
        fleet=request.fleet,
        catalogue=request.catalogue,
        foresight_days=known.fleet.counterfactual.days_of(request.arm),
        writing=known.fleet.writing,
    )
    state = join_fleet(read_state(context.state, request.arm), known.fleet.joining.part_of(device))
    state, report = run_round(order, state, observed=request.observe)
    write_state(context.state, state, request.arm)
    return Message(encode_report(report), reply_to=message)


def _open_fleet(context: Context) -> OpenFleet:
    place = context.node_config.get("fleet") or os.environ.get(FLEET_VARIABLE)
    if not place:
        raise ValueError(
            "this device does not know its fleet: set node config 'fleet' or the environment "
            f"variable {FLEET_VARIABLE} to the fleet.json of a run"
        )
    return open_fleet(Path(str(place)))


def _verify(release: Manifest) -> None:
    found = _digest(release.path)
    if found != release.digest:
        raise ValueError(
            f"release {release.version} in {release.path} must have digest {release.digest}, "
            f"got {found}; the store was changed or the download is broken"
        )


@lru_cache(maxsize=64)
def _digest(folder: str) -> str:
    return folder_digest(Path(folder))

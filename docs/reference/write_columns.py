"""Writes docs/reference/columns.md: every column of every Parquet file of a run.

    python docs/reference/write_columns.py

What a device reports is told by the docstrings of `fleettune.messages.report`, the rest is here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from fleettune.cost.ledger import Cost
from fleettune.cost.workload import Phase
from fleettune.messages.report import ATTENDANCES, PAYLOADS, Observation, Outcome, Statistics
from fleettune.messages.report import DECISIONS as ACTIONS
from simulations.results.device_means import STAGES
from simulations.results.recorder import SCHEMA, START_SCHEMA, WORK_SCHEMA
from simulations.results.server_tables import DECISIONS, FORECAST, GUIDANCE
from strategies.rounds.sums import RoundSum

PAGE = Path(__file__).with_name("columns.md")
HEAD = """\
# Columns of the Parquet files

A run's folder holds these files. `_j` are simulated joules, `_s` simulated seconds, `_bytes` bytes,
`_flop` floating-point operations. An empty cell (null) means: not known, or not looked at. Bytes,
FLOP and joules are those of the model that is priced (`cost.model`). This page is written by
`docs/reference/write_columns.py`. [A notebook](../tutorials/rows.ipynb) reads the files.
"""
FILES = {
    "rows": "One row per arm, device and round. `start_*` and `finding_s` are there where a run "
    "offered a catalogue.",
    "work": "What each row's joules were priced from: one row per row, stage and phase.",
    "rounds": "One row per arm and round: what the server knows.",
    "clock": "One row per arm and round: when it began and closed, in virtual time.",
    "releases": "One row per release.",
    "decisions": "One row per arm, release and device class: what the server counted.",
    "guidance": "One row per arm and release, where releases came with guidance.",
    "forecast": "One row per arm, release and quantity, where releases went out in stages.",
}
_ARM, _ROUND, _RELEASE = "The arm.", "Number of the round, 0-based.", "Version of the release."
_QUANTILES = {"q05": "5 % quantile", "q50": "Median", "q95": "95 % quantile"}


def read_attributes(value: type) -> dict[str, str]:
    """Returns what the docstring of a dataclass says of each of its fields, on one line each."""
    text = inspect.getdoc(value) or ""
    found = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", text.partition("Attributes:")[2], re.M)
    return {name: _plain(said) for name, said in found}


def _plain(said: str) -> str:
    """Returns what a docstring says on one line, in words for who reads a table."""
    line = " ".join(said.split()).replace("None ", "null ")
    return re.sub(r" \(`[\w.]+`\)|, as the rule measures it and `[\w.]+` weighs it", "", line)


def describe_columns() -> dict[str, dict[str, str]]:
    """Returns the meaning of every column that a file may have, by file and column.

    ``*`` stands for any ending: a run has those columns ``decided_*`` that occurred.
    """
    night = {"arm": _ARM} | read_attributes(Outcome) | read_attributes(Statistics)
    night |= _WORDS
    seen = read_attributes(Observation)
    seen["eval_exchanges"] = "Exchanges of the next day on which the observer evaluated the patch."
    stages = {f"energy_j_{stage}": f"Joules of the stage {stage}." for stage in STAGES}
    known = night | seen | read_attributes(Cost) | stages
    known["energy_j"] = "Joules of the whole device, idle draw included: the sum of the stages."
    sums = read_attributes(RoundSum)
    rounds = {name: sums[name] for name in sums if name not in ("decisions", "rejected")}
    return {
        "rows": {name: known[name] for name in (*SCHEMA, *START_SCHEMA)},
        "work": {name: (night | _WORK)[name] for name in WORK_SCHEMA},
        "rounds": rounds | _COUNTED,
        "clock": _CLOCK,
        "releases": _RELEASES,
        "decisions": {name: _DECISIONS[name] for name in DECISIONS},
        "guidance": {name: _GUIDANCE[name] for name in GUIDANCE},
        "forecast": {name: _FORECAST[name] for name in FORECAST},
    }


def format_page() -> str:
    """Returns the page as Markdown."""
    parts = (
        f"\n## {name}.parquet\n\n{FILES[name]}\n\n{_tabulate(columns)}"
        for name, columns in describe_columns().items()
    )
    return HEAD + "".join(parts)


def list_unknown(name: str, columns: Iterable[str]) -> list[str]:
    """Returns those columns of a file of a run that the page does not tell of."""
    known = describe_columns()[name]
    beginnings = tuple(one[:-1] for one in known if one.endswith("*"))
    return [one for one in columns if one not in known and not one.startswith(beginnings or ("*",))]


def _tabulate(columns: Mapping[str, str]) -> str:
    lines = [f"| `{name}` | {text.replace('|', '/')} |\n" for name, text in columns.items()]
    return "| column | what it is |\n|---|---|\n" + "".join(lines)


def _quantiles(of: str, what: str) -> dict[str, str]:
    told = {f"{of}_{name}": f"{words} of {what}." for name, words in _QUANTILES.items()}
    return {f"{of}_count": f"Devices of which {what} is known."} | told


_WORDS = {
    "release": "Version that the device holds now; -1 before its first download.",
    "attendance": f"How it took part: {', '.join(ATTENDANCES)}.",
    "decision": f"What it did about its patch: {', '.join(ACTIONS)}.",
    "reason": "Why, as a short word.",
    "payload": f"What brought the release to it: {', '.join(PAYLOADS)}.",
    "profile": "Its hardware profile: `fleettune devices` lists them.",
}
_WORK = {
    "stage": "What the work was for: a column `energy_j_STAGE` of `rows` holds its joules.",
    "phase": f"Which coefficients price it: {', '.join(Phase)}.",
    "flop": "Floating-point operations.",
    "moved_bytes": "Bytes in memory, in storage or over the radio, by phase.",
    "bursts": "Transfers over the radio, each with its round trip and its tail.",
}
_COUNTED = {
    "decided_*": "Devices that decided so, as in `decided_reuse`; those that occurred.",
    "rejected_*": "Replies, deltas and decisions refused, by reason; those that occurred.",
}
_CLOCK = {
    "arm": _ARM,
    "round": _ROUND,
    "begins_s": "When the round began, since round 0 began.",
    "closes_s": "When it closed: with its last reply, or when a late device was given up.",
    "in_time": "Devices whose reply was in time.",
    "late": "Devices whose reply came after the server had stopped waiting.",
}
_RELEASES = {
    "version": "0 for the first release, then counting up.",
    "name": "What the vendor calls it.",
    "kind": "How it was made.",
    "round": "Round in which it was published.",
    "tokens": "Tokens that the vendor trained on.",
    "learning_rate": "The vendor's learning rate.",
    "steps": "The vendor's optimizer steps.",
    "drift_rms": "Root mean square of the change of all weights against the version before.",
    "loss_before": "Nats per token on the vendor's text, before training.",
    "loss_after": "The same, after training.",
    "parent": "Version that it was made from.",
    "size_bytes": "Bytes of a full download of the model itself, not of the one that is priced.",
    "delta": "Form of the delta from the version before; null without one.",
    "delta_bytes": "Bytes of that delta.",
    "digest": "SHA-256 of the files that decide what the release computes.",
}
_DECISIONS = {
    "arm": _ARM,
    "release": _RELEASE,
    "device_class": "Hardware profile, or `all`.",
    "devices": "Devices that reported a decision on the release.",
    "reused": "Devices that reused their patch.",
    "retuned": "Devices that retuned; a first tune counts as one.",
    "explored": "Devices that retuned at random, against their rule.",
    "down_bytes": "Bytes received for the release.",
    "reuse_rate": "Share of the devices that reused.",
    "retune_rate": "Share of the devices that retuned.",
    "retune_j": "Joules of retuning, above idle.",
    "joules_per_retune": "Joules of one retune: `retune_j` by `retuned`.",
    "energy_j": "Joules of taking over the release, all stages.",
    **_quantiles("drift", "the drift that devices looked at"),
    **_quantiles("gain", "the nats per token that a retune gained on canaries"),
}
_GUIDANCE = {
    "arm": _ARM,
    "release": _RELEASE,
    "fitted": "Whether the score was fitted; false: too few devices, so it is the prior.",
    "devices": "Devices that it was fitted to.",
    "explored": "Those of them that retuned at random.",
    "effective_devices": "Kish's effective number of devices after weighting.",
    "intercept": "Log odds of a retune that helps, with all features at 0.",
    "log_drift": "Weight of the logarithm of drift over strength; null where it was not shipped.",
    "canary": "Weight of what the release did to the device's canaries; null likewise.",
    "canary_level": "Weight of the canaries' loss under the new release; null likewise.",
    "canary_missing": "Weight of having no canary; null likewise.",
    "threshold": "Probability above which a device retunes.",
    "explore": "Share of devices that are to retune at random.",
    "decision": "What all devices are to do, where one decision is for all; null otherwise.",
    "decision_reason": "Why.",
    "decision_devices": "Devices of the first cohort that this rests on.",
    "mean_gain": "Their mean gain by retuning, nats per token.",
    "judged_devices": "Retunes of this release, with a known gain, by which the score is judged.",
    "judged_effective": "Kish's effective number of them.",
    "auc": "Area under the ROC curve of the probability against a gain above the margin.",
    "false_reuse": "Of devices that a retune would have helped: share whose score says reuse.",
    "false_retune": "Share of the others whose score asks for a retune.",
}
_FORECAST = {
    "arm": _ARM,
    "release": _RELEASE,
    "round": "Round in which the first cohort was judged.",
    "action": "What was done then: release (to all), hold or roll_back.",
    "reasons": "Why, as short words.",
    "quantity": "`retune_rate` (a share), `energy_j` or `down_bytes`, of all devices.",
    "devices": "Devices of the fleet.",
    "sampled": "Devices of the first cohort.",
    "value": "The forecast.",
    "low": "Lower end of its 95 % interval.",
    "high": "Upper end of its 95 % interval.",
    "outcome": "What it came to, where everybody got the release.",
    "covered": "Whether the interval holds the outcome.",
    "outcome_devices": "Devices that the outcome stands on.",
}

if __name__ == "__main__":
    PAGE.write_text(format_page(), encoding="utf-8")

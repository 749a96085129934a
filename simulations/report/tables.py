"""The tables of a run as text cells, and its verdict: the same in the terminal and on the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from simulations.results.device_means import DECISIONS, TIERS

UNKNOWN = "n/a"
PAGE_ONLY = ("saving [95 % coefficients]", "saving [95 % both]", "scale")
"""Columns of the headline for which a terminal has no room."""
OWN = "own"
MOSTLY = 0.5
"""Share of estimates (tier E) among what decides some joules, above which they are marked."""
METRICS: Mapping[str, str] = {
    "exact_match": "exact match",
    "neg_mae": "negative mean absolute error",
    "neg_nll": "negative log-likelihood loss, nats",
    "rouge1": "ROUGE-1 F1 of greedy answers",
}
"""Headline metric in words; all are higher is better."""

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def headline_table(summary: Mapping[str, Any]) -> Table:
    """The arms of a summary side by side: quality, decisions, simulated joules, savings, bytes."""
    columns, rows = headline_cells(summary)
    shown = [place for place, column in enumerate(columns) if column not in PAGE_ONLY]
    return as_table(
        [columns[place] for place in shown],
        [[row[place] for place in shown] for row in rows],
        caption=headline_caption(summary),
    )


def headline_cells(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column titles and one row of cells per arm, the reference arm first."""
    reference, metric = reference_arm(summary), quality_metric(summary)
    columns = [
        "arm",
        f"quality: {METRICS[metric]} [95 %]",
        *DECISIONS,
        "simulated energy (low to high)",
        f"saving vs {reference} [95 % devices]",
        *PAGE_ONLY,
        f"quality vs {reference} [95 %]",
        "MB down / up",
    ]
    return columns, [_headline_row(name, summary["arms"][name]) for name in arm_order(summary)]


def headline_caption(summary: Mapping[str, Any]) -> str:
    """What the headline numbers are, which coefficients they rest on, and the reference."""
    tiers = " ".join(f"{tier} {summary['coefficients'][tier]}" for tier in TIERS)
    return (
        f"{joules_caption(summary)} Coefficient tiers {tiers}. Savings and quality differences are "
        f"paired per device against {reference_arm(summary)}; intervals are bootstrapped over "
        "devices, those over coefficients hold 95 % of common draws. E: rests mostly on estimates."
    )


def joules_caption(summary: Mapping[str, Any], ledger: str = "device-total") -> str:
    """Ledger, pricing, range and tiers behind every number of joules, as sentences."""
    draws, shares = summary["monte_carlo"]["draws"], summary["coefficient_shares"]
    return (
        f"Simulated joules, {ledger} ledger, {priced_as(summary)}; low to high hold 95 % of "
        f"{draws:,} draws of the coefficients, which weigh {tier_mix(shares)}."
    )


def priced_as(summary: Mapping[str, Any]) -> str:
    """Whose shapes decided the costs."""
    model = summary["run"]["priced_as"]
    return "priced at the backbone's own shapes" if model == OWN else f"priced as {model}"


def tier_mix(shares: Mapping[str, float]) -> str:
    """Tiers by their share in what decides some joules, the largest first."""
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return (
        ", ".join(f"{tier} {100 * share:.0f} %" for tier, share in ordered if share >= 0.005)
        or UNKNOWN
    )


def marked(text: str, shares: Mapping[str, float]) -> str:
    """The text, its first number marked E where it rests mostly on estimates."""
    if text == UNKNOWN or not shares or shares["E"] <= MOSTLY:
        return text
    value, bracket, bounds = text.partition(" (")
    return f"{value} E{bracket}{bounds}"


def verdict(summary: Mapping[str, Any]) -> str:
    """One sentence: the arm that saves most at no significant loss of quality, and how sure."""
    reference = reference_arm(summary)
    versus = {name: arm["vs_reference"] for name, arm in summary["arms"].items()}
    measure = METRICS[quality_metric(summary)]
    savers = [name for name in arm_order(summary) if _saves(versus[name])]
    if not savers:
        return f"No arm is shown to use less simulated energy than {reference}."
    savers.sort(key=lambda name: -versus[name]["energy_saving"]["mean"])
    judged = [name for name in savers if versus[name]["quality_difference"]["ci95"][1] is not None]
    if not judged:
        saving = percent_with_interval(versus[savers[0]]["energy_saving"])
        return (
            f"Too few devices were evaluated to tell whether any arm keeps the quality of "
            f"{reference}; the largest saving of simulated energy is {saving}, by {savers[0]}."
        )
    for name in judged:
        if versus[name]["quality_difference"]["ci95"][1] >= 0:
            return _win(name, versus[name], measure)
    least = max(judged, key=lambda name: versus[name]["quality_difference"]["mean"])
    return (
        f"No arm saved simulated energy over {reference} without a significant loss of quality; "
        f"the one that lost least, {least}, saved "
        f"{percent_with_interval(versus[least]['energy_saving'])} and changed {measure} by "
        f"{with_interval(versus[least]['quality_difference'], '+.3f')}."
    )


def reference_arm(summary: Mapping[str, Any]) -> str:
    """Name of the arm that the others are compared with."""
    first = next(iter(summary["arms"].values()))
    return str(first["vs_reference"]["reference"])


def quality_metric(summary: Mapping[str, Any]) -> str:
    """Name of the headline metric."""
    first = next(iter(summary["arms"].values()))
    return str(first["quality"]["metric"])


def arm_order(summary: Mapping[str, Any]) -> list[str]:
    """Arms as they are shown: the reference first, then by name."""
    reference = reference_arm(summary)
    return sorted(summary["arms"], key=lambda name: (name != reference, name))


def as_table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> Table:
    """A terminal table of plain text cells; nothing in a cell is read as markup."""
    table = Table(caption=Text(caption), caption_justify="left")
    for index, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def number(value: float | None, spec: str = ".3f", unit: str = "") -> str:
    """A number in the given format, or a word where it is unknown."""
    return UNKNOWN if value is None else f"{value:{spec}}{unit}"


def energy(value_j: float | None) -> str:
    """Joules in three significant digits with an SI prefix."""
    if value_j is None:
        return UNKNOWN
    scale, prefix = _prefix(value_j)
    return f"{_digits(value_j / scale)} {prefix}J"


def energy_range(total_j: float | None, low_j: float | None, high_j: float | None) -> str:
    """Joules with the range that the coefficients allow, all in one unit."""
    if total_j is None or low_j is None or high_j is None:
        return energy(total_j)
    scale, _ = _prefix(total_j)
    return f"{energy(total_j)} ({_digits(low_j / scale)} to {_digits(high_j / scale)})"


def with_interval(estimate: Mapping[str, Any], spec: str = ".3f") -> str:
    """A mean with its 95 % interval, where it has one."""
    low, high = estimate["ci95"]
    bounds = "" if low is None or high is None else f" [{low:{spec}}, {high:{spec}}]"
    return number(estimate["mean"], spec) + bounds


def percent_with_interval(estimate: Mapping[str, Any], kind: str = "ci95") -> str:
    """A share with its 95 % interval of a kind, in percent."""
    if estimate["mean"] is None:
        return UNKNOWN
    low, high = estimate[kind]
    bounds = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * estimate['mean']:.1f} %{bounds}"


def _saves(versus: Mapping[str, Any]) -> bool:
    """Whether a saving is sure over devices and coefficients together."""
    low = versus["energy_saving"]["ci95_both"][0]
    return low is not None and low > 0


def _win(name: str, versus: Mapping[str, Any], measure: str) -> str:
    saving, change = versus["energy_saving"], versus["quality_difference"]
    low, high = saving["ci95"]
    worst = change["ci95"][0]
    kept = "no significant loss of quality" if worst <= 0 else "a significant gain in quality"
    doubt = f"; a loss of up to {-worst:.3f} is not ruled out" if worst < 0 else ""
    return (
        f"{name} used {100 * saving['mean']:.1f} % less simulated energy than "
        f"{versus['reference']} (95 % interval {100 * low:.1f} to {100 * high:.1f} % over devices"
        f"{_coefficient_bounds(saving)}) with {kept}: "
        f"{measure} changed by {with_interval(change, '+.3f')}{doubt}."
    )


def _coefficient_bounds(saving: Mapping[str, Any]) -> str:
    low, high = saving["ci95_coefficients"]
    if low is None or high is None:
        return ""
    return f", {100 * low:.1f} to {100 * high:.1f} % over coefficients; {_scale(saving)}"


def _scale(saving: Mapping[str, Any]) -> str:
    return "scale-free" if saving["scale_free"] else "scale-bound"


def _headline_row(name: str, arm: Mapping[str, Any]) -> list[str]:
    joules, versus, sent = arm["energy_j"], arm["vs_reference"], arm["bytes"]
    is_reference = name == versus["reference"]
    saving, total = versus["energy_saving"], joules["ledgers"]["device_total"]
    savings = [
        percent_with_interval(saving),
        percent_with_interval(saving, "ci95_coefficients"),
        percent_with_interval(saving, "ci95_both"),
        _scale(saving),
    ]
    return [
        name,
        with_interval(arm["quality"]),
        *(f"{arm['counts'][decision]:,}" for decision in DECISIONS),
        marked(energy_range(total["joules"], total["low"], total["high"]), total["tiers"]),
        *(["reference", *[""] * len(PAGE_ONLY)] if is_reference else savings),
        "reference" if is_reference else with_interval(versus["quality_difference"], "+.3f"),
        f"{_megabytes(sent['down'])} / {_megabytes(sent['up'])}",
    ]


def _prefix(value: float) -> tuple[float, str]:
    return next((pair for pair in _PREFIXES if abs(value) >= pair[0]), _PREFIXES[-1])


def _digits(value: float) -> str:
    magnitude = abs(value)
    return f"{value:.0f}" if magnitude >= 100 else f"{value:#.3g}".rstrip(".")


def _megabytes(size_bytes: float | None) -> str:
    return UNKNOWN if size_bytes is None else f"{size_bytes / 1e6:,.1f}"

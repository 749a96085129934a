"""The host's meter: counters add, begin again, and are not invented where there are none."""

from pathlib import Path

import pytest

from simulations.engines.host_energy import open_meter


def zone(folder: Path, directory: str, name: str, counter: int) -> None:
    """Writes a counter as the kernel shows it; it begins again after 1000 J."""
    (folder / directory).mkdir(exist_ok=True)
    (folder / directory / "name").write_text(f"{name}\n")
    (folder / directory / "energy_uj").write_text(f"{counter}\n")
    (folder / directory / "max_energy_range_uj").write_text("1000000000\n")


def test_packages_and_memory_add_and_parts_of_a_package_do_not(tmp_path: Path) -> None:
    for directory, name in (
        ("intel-rapl:0", "package-0"),
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:0:1", "dram"),
        ("intel-rapl:1", "psys"),
    ):
        zone(tmp_path, directory, name, 100_000_000)
    meter = open_meter(tmp_path)
    assert meter.energy_j == 0.0
    zone(tmp_path, "intel-rapl:0", "package-0", 130_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 120_000_000)
    zone(tmp_path, "intel-rapl:0:1", "dram", 105_000_000)
    meter.read()
    assert meter.energy_j == pytest.approx(30 + 5)


def test_a_counter_that_begins_again_loses_nothing(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 990_000_000)
    meter = open_meter(tmp_path)
    for counter, joules in ((20_000_000, 30), (25_000_000, 35)):
        zone(tmp_path, "intel-rapl:0", "package-0", counter)
        meter.read()
        assert meter.energy_j == pytest.approx(joules)
    assert meter.describe().startswith("35 J measured")


def test_without_a_meter_nothing_is_estimated(tmp_path: Path) -> None:
    meter = open_meter(tmp_path / "absent")
    meter.read()
    assert meter.energy_j is None
    assert meter.describe().startswith("not measured (no counter of a processor package")


def test_a_counter_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    meter = open_meter(tmp_path)
    assert not meter.zones
    assert "energy_uj: No such file" in meter.describe()

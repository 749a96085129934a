"""A log whose truth is known gives it back; errors are predicted, gaps named, nonsense refused."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, read_shapes
from fleettune.cost.hardware import COEFFICIENTS, load_hardware
from simulations.calibration.fit_profile import FittedProfile, calibrate, max_error
from simulations.calibration.power_log import COLUMNS, PowerLog, read_power_log
from simulations.calibration.profile_file import format_profile, save_profile
from simulations.cli import main

HARDWARE = Path(__file__).parents[3] / "conf" / "hardware"
KNOWN = load_hardware(HARDWARE)

Row = dict[str, object]


class Logger:
    """Writes a log run by run, two samples to a run."""

    def __init__(self) -> None:
        self.time_s = 100.0  # any origin
        self.rows: list[Row] = []

    def run(self, phase: str, time_s: float, power_w: float, **amounts: object) -> None:
        half = time_s / 2
        self.rows.append({"time_s": self.time_s, "power_w": power_w, "phase": phase} | amounts)
        model = {"model": amounts["model"]} if "model" in amounts else {}
        later: Row = {"time_s": self.time_s + half, "power_w": power_w, "phase": phase}
        self.rows.append(later | model)
        self.time_s += time_s
        self.idle(2.0)

    def idle(self, time_s: float, power_w: float = 0.5) -> None:
        self.rows.append({"time_s": self.time_s, "power_w": power_w, "phase": "idle"})
        self.time_s += time_s

    def write(self, path: Path, columns: Sequence[str] = COLUMNS) -> Path:
        end: Row = {"time_s": self.time_s, "power_w": 0, "phase": "idle"}
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows([*self.rows, end])
        return path


def every_phase(noise: float = 0.0) -> Logger:
    """A device of 40 GFLOP/s at 3 W, which reads text at 200 GFLOP/s and 5 W, and so on."""
    log, rng = Logger(), np.random.default_rng(0)
    for size in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0):

        def slower() -> float:
            return 1 + noise * rng.standard_normal()

        log.run("train", 10 * size * slower(), 3.0, flop=400e9 * size)
        log.run("prefill", size * slower(), 5.0, flop=200e9 * size)
        log.run("decode", size * slower(), 6.0, bytes=15e9 * size)
        log.run("read", size * slower(), 2.0, bytes=1.5e9 * size)
        log.run("receive", size * slower(), 1.1, bytes=5e6 * size)  # 0.6 W above idle
        log.run("send", size * slower(), 2.0, bytes=2.5e6 * size)  # 1.5 W above idle
    return log


TRUTH = {
    "eff_forward_gflops": 40.0,
    "backward_ratio": 1.0,  # by convention
    "eff_prefill_gops": 200.0,
    "bw_decode_gbs": 15.0,
    "flash_read_gbs": 1.5,
    "wifi_down_mbps": 40.0,
    "wifi_up_mbps": 20.0,
    "p_idle_w": 0.5,
    "p_train_w": 3.0,
    "p_prefill_w": 5.0,
    "p_decode_w": 6.0,
    "p_storage_w": 2.0,
    "wifi_rx_w": 0.6,
    "wifi_tx_w": 1.5,
}


def calibrated(log: Logger, folder: Path) -> FittedProfile:
    return calibrate(read_power_log(log.write(folder / "log.csv")))


def test_a_log_without_noise_gives_back_its_truth(tmp_path: Path) -> None:
    found = calibrated(every_phase(), tmp_path)
    assert {n: c.value for n, c in found.coefficients.items()} == pytest.approx(TRUTH)
    assert set(found.absent) == set(COEFFICIENTS) - set(TRUTH)
    # runs 3 and 6 of each phase, and every third idle stretch of 36, which has no rate
    counts = Counter(residual.what for residual in found.residuals)
    assert counts["train, s"] == counts["train, J"] == counts["send, J"] == 2
    assert (counts["idle, J"], counts["idle, s"]) == (12, 0)
    assert max_error(found.residuals) < 1e-3  # values are rounded to four digits
    for name, coefficient in found.coefficients.items():
        if name != "backward_ratio":
            assert (coefficient.tier, coefficient.source) == ("M", "log.csv, 109 rows")


def test_passes_that_are_logged_apart_have_rates_of_their_own(tmp_path: Path) -> None:
    log = Logger()
    for gflop in (100, 200, 300):
        log.run("forward", gflop / 50, 3.0, flop=gflop * 1e9)
        log.run("backward", gflop / 40, 4.0, flop=gflop * 1e9)
    found = calibrated(log, tmp_path)
    assert found.coefficients["eff_forward_gflops"].value == 50.0
    assert found.coefficients["backward_ratio"].value == 0.8
    assert found.coefficients["backward_ratio"].tier == "M"
    assert found.coefficients["p_train_w"].low == 3.0
    assert found.coefficients["p_train_w"].high == 4.0
    times = [residual for residual in found.residuals if residual.what.endswith("ward, s")]
    assert (len(times), max_error(times)) == (2, pytest.approx(0))


def test_whole_steps_do_not_tell_the_passes_apart(tmp_path: Path) -> None:
    ratio = calibrated(every_phase(), tmp_path).coefficients["backward_ratio"]
    assert (ratio.value, ratio.low, ratio.high, ratio.tier) == (1.0, 1.0, 1.0, "E")
    assert "whole steps were timed" in ratio.source


def test_a_forward_pass_alone_says_nothing_of_the_backward_pass(tmp_path: Path) -> None:
    log = Logger()
    log.run("forward", 2.0, 3.0, flop=100e9)
    assert "backward_ratio" in calibrated(log, tmp_path).absent


def test_noise_widens_the_range_and_shows_in_the_runs_held_out(tmp_path: Path) -> None:
    found = calibrated(every_phase(noise=0.05), tmp_path)
    rate = found.coefficients["eff_prefill_gops"]
    assert rate.low < 200 < rate.high
    # Three standard deviations of 5 %.
    assert rate.value == pytest.approx(200, rel=0.15)
    assert 0.005 < max_error(found.residuals) < 0.3
    assert found.coefficients["p_prefill_w"].value == pytest.approx(5.0)


def test_throughput_by_hand(tmp_path: Path) -> None:
    # Two runs kept: 100 GFLOP in 1 s, 200 GFLOP in 3 s; the third, 300 GFLOP in 5 s, held out.
    # Time on work: (100*1 + 200*3) / (100^2 + 200^2) = 0.014 s per GFLOP = 71.43 GFLOP/s.
    log = Logger()
    for time_s, gflop in ((1.0, 100), (3.0, 200), (5.0, 300)):
        log.run("prefill", time_s, 4.0, flop=gflop * 1e9)
    found = calibrated(log, tmp_path)
    rate = found.coefficients["eff_prefill_gops"]
    assert (rate.value, rate.low, rate.high) == (71.43, 60.0, 100.0)
    seconds, joules = (r for r in found.residuals if r.what.startswith("prefill"))
    assert (seconds.measured, seconds.predicted) == (5.0, pytest.approx(4.2, abs=1e-3))
    assert (joules.measured, joules.predicted) == (20.0, pytest.approx(16.8, abs=4e-3))


def test_a_model_turns_tokens_into_work(tmp_path: Path) -> None:
    shapes = read_shapes(POCKET_V1_FOLDER)
    log = Logger()
    log.run("prefill", 2.0, 4.0, tokens=1000, model="pocket_v1")
    log.run("decode", 2.0, 4.0, tokens=1000, model="pocket_v1")
    path = log.write(tmp_path / "log.csv")
    found = calibrate(read_power_log(path), bits_per_weight=4).coefficients
    gflop = 2 * 1000 * shapes.linear_parameters / 1e9
    assert found["eff_prefill_gops"].value == pytest.approx(gflop / 2, rel=1e-3)
    weights = shapes.linear_parameters + shapes.hidden * shapes.vocab
    assert found["bw_decode_gbs"].value == pytest.approx(1000 * weights / 2 / 1e9 / 2, rel=1e-3)
    with pytest.raises(ValueError, match="bits per weight must be finite and > 0, got 0"):
        calibrate(read_power_log(path), bits_per_weight=0)


def test_radio_power_needs_the_idle_draw(tmp_path: Path) -> None:
    text = "time_s,power_w,phase,bytes\n0,1.1,receive,5e6\n1,0,idle,\n"
    (tmp_path / "log.csv").write_text(text)
    found = calibrate(read_power_log(tmp_path / "log.csv"))
    assert found.coefficients.keys() == {"wifi_down_mbps"}
    assert "wifi_rx_w" in found.absent


def test_a_profile_like_another_is_complete_and_keeps_tiers(tmp_path: Path) -> None:
    found = calibrated(every_phase(), tmp_path)
    save_profile(tmp_path / "mine.yaml", format_profile(found, "mine", KNOWN["pixel_7"]))
    profile = load_hardware(tmp_path)["mine"]
    assert profile.p_train_w.value == 3.0
    assert profile.battery_wh == KNOWN["pixel_7"].battery_wh
    assert profile.power_scope == "total"
    assert "what ran in log.csv" in profile.runtime
    assert f"what it lacks, as pixel_7: {KNOWN['pixel_7'].runtime}" in profile.runtime
    assert profile.measured_together() == ("training", "prefill", "decode")
    mains = format_profile(found, "box", KNOWN["jetson_orin_nano_8gb"])
    assert yaml.safe_load(mains)["battery_wh"] is None


def test_without_another_the_gaps_are_comments(tmp_path: Path) -> None:
    text = format_profile(calibrated(every_phase(), tmp_path), "mine")
    assert "# ram_gb: not in the log, fill it in" in text
    assert "ram_gb" not in yaml.safe_load(text)
    save_profile(tmp_path / "mine.yaml", text)
    with pytest.raises(ValueError, match="exists; choose another name"):
        save_profile(tmp_path / "mine.yaml", text)


def test_the_command_writes_a_profile_and_says_what_it_took(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = every_phase(noise=0.02).write(tmp_path / "log.csv")
    arguments = ["calibrate", str(log), "--name", "mine", "--into", str(tmp_path)]
    assert main([*arguments, "--like", "pixel_7"]) == 0
    printed = capsys.readouterr().out
    assert "taken from pixel_7: flash_write_gbs, battery_wh" in " ".join(printed.split())
    assert "held out" in printed
    assert load_hardware(tmp_path).keys() == {"mine"}
    assert main([*arguments, "--like", "pixel_7"]) == 2
    assert main([*arguments, "--like", "toaster"]) == 2
    assert "--like must be one of" in " ".join(capsys.readouterr().err.split())


HEADER = "time_s,power_w,phase,flop,bytes\n"
END = "9,0,idle,,\n"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("time_s,phase\n0,idle\n", r"line 1: columns must be .* missing \['power_w'\]"),
        ("time_s,power_w,phase,joules\n", r"line 1: .* unknown \['joules'\]"),
        (HEADER + "0,1,idle,,\n", "must have at least 2 rows, got 1"),
        (HEADER + "0,much,idle,,\n" + END, "line 2: power_w must be a number >= 0 W, got 'much'"),
        (HEADER + "0,-1,idle,,\n" + END, "line 2: power_w must be a number >= 0 W, got '-1'"),
        (HEADER + "0,nan,idle,,\n" + END, "line 2: power_w must be a number >= 0 W, got 'nan'"),
        (HEADER + "0,1,sleep,,\n" + END, "line 2: phase must be one of idle, .* got 'sleep'"),
        (HEADER + "0,1,train,-5,\n" + END, "line 2: flop must be a number >= 0 FLOP, got '-5'"),
        (HEADER + "0,1,idle\n" + END, "line 2: a row must have as many fields as the header"),
        (HEADER + "0,1,idle,,,,\n" + END, "line 2: a row must have as many fields as the header"),
        (HEADER + "0,1,idle,,\n0,1,idle,,\n", r"line 3: time_s must be above the 0.0 s"),
        (HEADER + "0,1,train,,\n" + END, "line 2: the run of train .* flop, or tokens and model"),
        (HEADER + "0,1,decode,9,\n" + END, "line 2: the run of decode .* bytes, or tokens and"),
        (HEADER + "0,1,send,9,\n" + END, "line 2: the run of send .* must have bytes, got none"),
    ],
)
def test_errors_name_line_column_and_rule(tmp_path: Path, text: str, rule: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(ValueError, match=f"log[.]csv.*{rule}"):
        read_power_log(tmp_path / "log.csv")


def test_a_fit_that_breaks_a_rule_names_the_coefficient(tmp_path: Path) -> None:
    # The radio draws less than the idle device: nothing above idle is left.
    rows = "0,0.5,idle,,\n1,0.4,send,,5e6\n2,0,idle,,\n"
    (tmp_path / "log.csv").write_text(HEADER + rows)
    with pytest.raises(ValueError, match=r"log[.]csv: wifi_tx_w must be finite with 0 < low"):
        calibrate(read_power_log(tmp_path / "log.csv"))


def test_runs_are_stretches_of_a_phase_and_amounts_add(tmp_path: Path) -> None:
    rows = "0,2,train,5,\n1,4,train,7,\n4,1,idle,,\n6,0,idle,,\n"
    (tmp_path / "log.csv").write_text(HEADER + rows)
    log: PowerLog = read_power_log(tmp_path / "log.csv")
    assert [(run.phase, run.time_s, run.energy_j) for run in log.runs] == [
        ("train", 4.0, 2 + 3 * 4),
        ("idle", 2.0, 2.0),
    ]
    assert log.runs[0].flop == 12


def test_a_log_that_excel_saved_with_a_byte_order_mark_is_the_same_log(tmp_path: Path) -> None:
    plain, marked = tmp_path / "log.csv", tmp_path / "marked.csv"
    plain.write_text(HEADER + "0,2,train,5,\n1,4,train,7,\n4,1,idle,,\n6,0,idle,,\n")
    marked.write_bytes(b"\xef\xbb\xbf" + plain.read_bytes())
    assert read_power_log(marked).runs == read_power_log(plain).runs


def test_a_log_that_is_no_text_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_bytes(b"time_s,power_w,phase\n\xff,1,idle\n")
    with pytest.raises(ValueError, match=r"log\.csv must be CSV in UTF-8"):
        read_power_log(log)


def test_a_model_whose_name_no_file_system_takes_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    name = "m" * 3_000
    log.write_text(
        f"time_s,power_w,phase,tokens,model\n0,1,train,9,{name}\n1,1,idle,,\n2,1,idle,,\n"
    )
    with pytest.raises(ValueError, match=r"model\.path must be a folder or a hub id"):
        calibrate(read_power_log(log))


@pytest.mark.parametrize(("amount", "seconds"), [("1e-320", "1"), ("1e308", "1e-300")])
def test_amounts_that_no_line_fits_are_refused(tmp_path: Path, amount: str, seconds: str) -> None:
    log = tmp_path / "log.csv"
    log.write_text(f"time_s,power_w,phase,flop\n0,1,train,{amount}\n{seconds},1,idle,\n2,1,idle,\n")
    with pytest.raises(ValueError, match=r"log\.csv: eff_forward_gflops"):
        calibrate(read_power_log(log))

"""Codecs and frames: what is written reads back, and what is wrong is refused by its reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from fleettune.adapters.factors import Factors, Tie
from fleettune.adapters.patch import Patch, Placement, new_patch, to_arrays
from fleettune.adapters.updates import (
    add_updates,
    delta,
    patch_of,
    total_norm,
    updates_of,
)
from fleettune.deltas.codecs import FP32, Codec, Fp16, Int8, TopK, unpack
from fleettune.deltas.error_feedback import encode_delta
from fleettune.deltas.frames import ExpectedDelta, payload_bytes, read_frame, write_frame
from fleettune.deltas.rejections import RejectedError, Rejection
from fleettune.shapes import MODULES, Shapes, Site

SHAPES = Shapes(hidden=24, layers=3, heads=2, kv_heads=1, head_dim=12, ffn=40, vocab=16)
EXPECTED = ExpectedDelta(release=2, shapes=SHAPES, limit_bytes=100_000)
CODECS: tuple[Codec, ...] = (FP32, Fp16(), Int8(), TopK(fraction=0.2))


def trained(placement: Placement, seed: int = 0, release: int = 2) -> Patch:
    rng = np.random.default_rng(seed)
    fresh = new_patch(placement, SHAPES, release, rng)

    def drawn(array: np.ndarray) -> np.ndarray:
        return rng.normal(0, 0.1, array.shape).astype(np.float32)

    return replace(
        fresh,
        factors={s: Factors(a=f.a, b=drawn(f.b)) for s, f in fresh.factors.items()},
        ties=tuple(
            replace(
                tied,
                pair=Factors(a=tied.pair.a, b=drawn(tied.pair.b)),
                vectors={s: (u + drawn(u), v + drawn(v)) for s, (u, v) in tied.vectors.items()},
            )
            for tied in fresh.ties
        ),
    )


PLAIN = Placement(sites=(Site(0, "q"), Site(2, "down"), Site(2, "k")), rank=4, alpha=8.0)
TIED = Placement(
    sites=(Site(0, "v"),),
    rank=2,
    alpha=3.0,
    ties=(Tie(sites=(Site(0, "up"), Site(1, "up")), rank=3, alpha=6.5),),
)


def distance(one: Patch, other: Patch) -> float:
    """Frobenius norm of the difference of two patches' updates, over that of the first."""
    first, second = updates_of(one), updates_of(other)
    sites = first.keys() | second.keys()
    parts = [
        add_updates(
            [*([first[s]] if s in first else []), *([second[s].times(-1)] if s in second else [])]
        )
        for s in sites
    ]
    return total_norm(parts) / total_norm(first.values())


@pytest.mark.parametrize("placement", [PLAIN, TIED], ids=["plain", "tied"])
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_frame_reads_back_with_its_sites_ranks_alpha_and_release(
    codec: Codec, placement: Placement
) -> None:
    patch = trained(placement)
    back = read_frame(write_frame(patch, codec), EXPECTED)
    assert (back.release, back.alpha, back.ranks) == (patch.release, patch.alpha, patch.ranks)
    assert [tied.alpha for tied in back.ties] == [tied.alpha for tied in patch.ties]
    # half precision rounds to 2^-11, int8 to half of 1/127; both factors of a product are rounded
    allowed = {"fp32": 1e-12, "fp16": 2**-10, "int8": 1 / 127, "top_k": 1}
    assert distance(patch, back) <= allowed[codec.name]
    if codec is FP32:
        assert back.digest() == patch.digest()


def test_equal_patches_have_equal_frames() -> None:
    # safetensors draws an order of its header's keys for every file that it writes
    frames = {write_frame(trained(TIED), Int8()) for _ in range(20)}
    assert len(frames) == 1


def test_bytes_are_those_of_the_arrays_by_hand() -> None:
    patch = trained(PLAIN)
    entries = 4 * (24 + 24) + 4 * (40 + 24) + 4 * (24 + 12)
    assert payload_bytes(write_frame(patch)) == 4 * entries == patch.size_bytes
    assert payload_bytes(write_frame(patch, Fp16())) == 2 * entries
    # a byte per entry and a scale of 4 bytes per component of either factor
    assert payload_bytes(write_frame(patch, Int8())) == entries + 4 * 3 * 2 * 4
    kept = round(0.2 * entries)
    assert payload_bytes(write_frame(patch, TopK(fraction=0.2))) == 2 * kept + -(-entries // 8)
    few = round(0.01 * entries)
    assert payload_bytes(write_frame(patch, TopK(fraction=0.01))) == (2 + 4) * few


def test_int8_rounds_every_channel_by_its_own_scale_by_hand() -> None:
    # rows (1, -2) and (100, 50): scales 2/127 and 100/127, whatever the other row holds
    array = np.array([[1, -2], [100, 50]], dtype=np.float32)
    parts = Int8().pack([array])
    assert parts["values"].tolist() == [64, -127, 127, 64]
    assert parts["scales"] == pytest.approx([2 / 127, 100 / 127])
    (back,) = unpack("int8", parts, [(2, 2)])
    assert back[0] == pytest.approx([128 / 127, -2])


def test_an_array_of_zeros_survives_int8() -> None:
    (back,) = unpack("int8", Int8().pack([np.zeros((3, 5), np.float32)]), [(3, 5)])
    assert not back.any()


@settings(derandomize=True, deadline=None)
@given(seed=st.integers(0, 99), rank=st.integers(1, 6), tall=st.integers(1, 9))
def test_int8_is_within_half_a_step_of_every_channel(seed: int, rank: int, tall: int) -> None:
    array = np.random.default_rng(seed).normal(size=(tall + rank, rank)).astype(np.float32)
    (back,) = unpack("int8", Int8().pack([array]), [array.shape])
    step = np.abs(array).max(axis=0) / 127
    assert (np.abs(back - array) <= 0.5001 * step).all()


def test_top_k_keeps_the_largest_and_nothing_else() -> None:
    array = np.array([[1, -8, 0.5], [4, 2, -3]], dtype=np.float32)
    (back,) = unpack("top_k", TopK(fraction=0.5).pack([array]), [(2, 3)])
    assert back.tolist() == [[0, -8, 0], [4, 0, -3]]


def test_a_delta_that_cannot_be_written_is_said() -> None:
    broken = trained(PLAIN)
    broken.factors[Site(0, "q")].b[0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        write_frame(broken)
    broken.factors[Site(0, "q")].b[0, 0] = 1e6
    with pytest.raises(ValueError, match="65504"):
        write_frame(broken, Fp16())
    with pytest.raises(ValueError, match=r"codec.fraction must be > 0 and <= 1, got 0"):
        TopK(fraction=0)


def retold(frame: bytes, changes: Mapping[str, str], *, sign: bool = True) -> bytes:
    """The frame with another header, its digest made anew where it is to be signed."""
    from fleettune.deltas.frames import _digest  # noqa: PLC0415 # pyright: ignore[reportPrivateUsage] - a forger's means

    size = int.from_bytes(frame[:8], "little")
    header = json.loads(frame[8 : 8 + size])["__metadata__"] | dict(changes)
    header.pop("digest")
    parts = load(frame)
    header["digest"] = _digest(header, parts) if sign else "0" * 40
    return save(parts, metadata=header)


def poisoned() -> bytes:
    frame = write_frame(trained(PLAIN))
    parts = load(frame)
    parts["values"] = parts["values"].copy()
    parts["values"][3] = np.nan
    size = int.from_bytes(frame[:8], "little")
    header = json.loads(frame[8 : 8 + size])["__metadata__"]
    return retold(save(parts, metadata=header), {})


GOOD = write_frame(trained(PLAIN))
WRONG = {
    Rejection.OVERSIZED: GOOD + b"\0" * EXPECTED.limit_bytes,
    Rejection.UNREADABLE: GOOD[:-5],
    Rejection.SCHEMA: retold(GOOD, {"schema": "2"}),
    Rejection.DIGEST: retold(GOOD, {}, sign=False),
    Rejection.CODEC: retold(GOOD, {"codec": "zip"}),
    Rejection.RELEASE: write_frame(trained(PLAIN, release=1)),
    Rejection.SITE: retold(GOOD, {"sites": "0.q=4 3.k=4 2.down=4"}),
    Rejection.SHAPE: retold(GOOD, {"sites": "0.q=4 2.k=4 2.down=5"}),
    Rejection.NOT_FINITE: poisoned(),
}


@pytest.mark.parametrize("reason", WRONG)
def test_what_is_wrong_with_a_frame_is_its_reason(reason: Rejection) -> None:
    with pytest.raises(RejectedError) as caught:
        read_frame(WRONG[reason], EXPECTED)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sites": "0.q=4 2.k=4 2.head=4"}, Rejection.SITE),
        ({"sites": "0.q=4 0.q=4 2.down=4"}, Rejection.SITE),
        ({"sites": "0.q=4 2.k=4 2.down=0"}, Rejection.SHAPE),
        ({"sites": "0.q=4 2.k=4 2.down=99"}, Rejection.SHAPE),
        ({"sizes": "q24x24 k24x12 down24x40"}, Rejection.SHAPE),
        ({"sizes": "q24x24 k24x12"}, Rejection.SHAPE),
        ({"sites": ""}, Rejection.SITE),
        ({"alpha": "many"}, Rejection.UNREADABLE),
        ({"alpha": "inf"}, Rejection.NOT_FINITE),
        ({"alpha": "-1"}, Rejection.NOT_FINITE),
    ],
)
def test_a_header_that_does_not_fit_is_refused(changes: dict[str, str], reason: Rejection) -> None:
    with pytest.raises(RejectedError) as caught:
        read_frame(retold(GOOD, changes), EXPECTED)
    assert caught.value.reason is reason


@settings(derandomize=True, deadline=None, max_examples=60)
@given(place=st.integers(0, len(GOOD) - 1), flipped=st.integers(1, 255))
def test_no_flipped_byte_goes_unnoticed(place: int, flipped: int) -> None:
    broken = bytearray(GOOD)
    broken[place] ^= flipped
    try:
        back = read_frame(bytes(broken), EXPECTED)
    except RejectedError:
        return
    # blanks of the header's padding and the like: what was read is what was written
    assert back.digest() == trained(PLAIN).digest()


def restored(change: Patch, sent: Patch) -> Patch:
    """The patch whose delta against `sent` this is."""
    theirs = updates_of(sent)
    whole = {
        site: add_updates([update, theirs[site]]) if site in theirs else update
        for site, update in updates_of(change).items()
    }
    return patch_of(whole, change.release, change.alpha)


@settings(derandomize=True, deadline=None)
@given(junk=st.binary(max_size=200))
def test_junk_is_refused_and_nothing_else_happens(junk: bytes) -> None:
    with pytest.raises(RejectedError):
        read_frame(junk, EXPECTED)


def test_a_delta_against_what_was_sent_gives_the_patch_back() -> None:
    sent = trained(replace(PLAIN, rank=3, alpha=5.0), seed=1)
    patch = trained(PLAIN, seed=2)
    change = delta(patch, sent)
    # ranks add up where the server sent something
    assert set(change.ranks.values()) == {4 + 3}
    for site, update in updates_of(change).items():
        expected = patch.dense(site).astype(np.float64) - sent.dense(site)
        # sums of seven products of single precision, entries of about 0.1
        np.testing.assert_allclose(update.dense(), expected, atol=1e-6)
    assert distance(patch, restored(change, sent)) <= 1e-6
    assert delta(patch, None) is patch


def test_a_tied_patch_leaves_as_one_pair() -> None:
    patch = trained(TIED)
    assert delta(patch, None) is patch
    for codec in (FP32, Fp16(), Int8()):
        frame, untied = write_frame(patch, codec), write_frame(patch.untie(), codec)
        assert payload_bytes(frame) < payload_bytes(untied)
        assert read_frame(frame, EXPECTED).shared == patch.shared
    # two sites of 24 x 40 at rank 3, by hand: a pair and two vectors each, against two pairs
    saved = 2 * 3 * (24 + 40) - (3 * (24 + 40) + 2 * (3 + 40))
    both = payload_bytes(write_frame(patch.untie())) - payload_bytes(write_frame(patch))
    assert both == 4 * saved


def test_a_pair_stays_one_where_the_server_sent_nothing_about_its_sites() -> None:
    patch = trained(TIED)
    elsewhere = trained(replace(TIED, ties=(), rank=1), seed=5)
    change = delta(patch, elsewhere)
    assert change.shared == patch.shared
    assert change.ranks == {**patch.ranks, Site(0, "v"): 2 + 1}
    assert distance(patch, restored(change, elsewhere)) <= 1e-6
    # about one of its sites it did: the pair comes apart, and nothing is lost
    about = trained(Placement(sites=(Site(1, "up"),), rank=2, alpha=4.0), seed=6)
    apart = delta(patch, about)
    assert (apart.shared, apart.ranks[Site(0, "up")], apart.ranks[Site(1, "up")]) == ((), 3, 3 + 2)
    assert distance(patch, restored(apart, about)) <= 1e-6


def test_what_did_not_change_is_a_delta_of_nothing() -> None:
    patch = trained(PLAIN)
    norms = [update.norm() for update in updates_of(delta(patch, patch)).values()]
    assert norms == pytest.approx([0] * len(norms), abs=1e-6)


def rounds(codec: TopK, nights: int, room_bytes: int = 10**6) -> list[float]:
    """Relative error of everything the server summed, night by night, of equal deltas."""
    patch = trained(PLAIN)
    residual, summed, errors = None, None, []
    for night in range(1, nights + 1):
        made = encode_delta(patch, codec, residual, room_bytes)
        residual = made.residual
        got = updates_of(read_frame(made.frame))
        summed = got if summed is None else {s: add_updates([summed[s], got[s]]) for s in got}
        summed = {site: update.truncate() for site, update in summed.items()}
        meant = patch_of({s: u.times(night) for s, u in updates_of(patch).items()}, 2, 1.0)
        errors.append(distance(meant, patch_of(summed, 2, 1.0)))
    return errors


def test_error_feedback_sends_over_rounds_what_top_k_left_out() -> None:
    without = rounds(TopK(fraction=0.3, feedback=False), 12)
    fed_back = rounds(TopK(fraction=0.3), 12)
    assert fed_back[0] == pytest.approx(without[0])
    # the same entries are left out every night, so the error of the sum stays what it was
    assert without[-1] == pytest.approx(without[0])
    assert fed_back[-1] < 0.5 * without[-1]


def test_a_residual_stays_within_its_room() -> None:
    patch = trained(PLAIN)
    full = encode_delta(patch, TopK(fraction=0.1), None, 10**6).residual
    assert full is not None
    assert full.size_bytes <= 2 * patch.size_bytes
    less = encode_delta(patch, TopK(fraction=0.1), None, full.size_bytes - 1).residual
    assert less is not None
    assert less.size_bytes < full.size_bytes
    assert encode_delta(patch, TopK(fraction=0.1), None, 10).residual is None
    assert encode_delta(patch, Int8(), None, 10**6).residual is None


def test_a_site_that_tonight_does_not_adapt_keeps_what_it_left_out() -> None:
    first = encode_delta(trained(PLAIN), TopK(fraction=0.1), None, 10**6).residual
    assert first is not None
    fewer = Placement(sites=(Site(0, "q"),), rank=4, alpha=8.0)
    second = encode_delta(trained(fewer, seed=3), TopK(fraction=0.1), first, 10**6)
    assert second.residual is not None
    assert read_frame(second.frame).ranks.keys() == {Site(0, "q")}
    assert np.allclose(
        updates_of(second.residual)[Site(2, "down")].dense(),
        updates_of(first)[Site(2, "down")].dense(),
        atol=1e-6,
    )


def test_every_module_may_be_adapted_in_one_frame() -> None:
    sites = tuple(Site(layer, module) for layer in range(3) for module in MODULES)
    patch = trained(Placement(sites=sites, rank=2, alpha=4.0))
    back = read_frame(write_frame(patch), EXPECTED)
    assert to_arrays(back).keys() == to_arrays(patch).keys()


def test_a_small_frame_that_claims_much_is_refused_where_no_release_bounds_it() -> None:
    site = Site(0, "q")
    factors = Factors(a=np.ones((1, 9_000_000), np.float32), b=np.ones((9_000_000, 1), np.float32))
    frame = write_frame(Patch(release=0, alpha=1.0, factors={site: factors}), TopK(fraction=1e-3))
    assert len(frame) < 200_000
    with pytest.raises(RejectedError, match="cannot stand for 18000000 entries"):
        read_frame(frame)
    assert read_frame(frame, most_entries=18_000_000).ranks == {site: 1}

"""Adapters: factors by hand, round trips, and PEFT computes the same from what we export."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from safetensors.numpy import save
from transformers import LlamaForCausalLM

from fleettune.adapters.factors import Factors, Tie, TiedPair
from fleettune.adapters.patch import (
    Patch,
    Placement,
    check_rank,
    from_arrays,
    new_patch,
    peft_key,
    placement_of,
    to_arrays,
    to_peft,
)
from fleettune.adapters.patch_files import patch_from_bytes, patch_to_bytes
from fleettune.backbone.causal_lm import POCKET_V1_FOLDER, load_backbone, read_shapes
from fleettune.kernels.adapter_stack import apply_adapters, stack_patches
from fleettune.messages.flower_records import decode_patch, encode_patch
from fleettune.seeds import Purpose, stream
from fleettune.shapes import MODULES, Shapes, Site, order, parse_site

# peft 0.21 asks transformers 5 for a name that it renames; nothing of ours depends on it.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is dep:FutureWarning")

SHAPES = Shapes(hidden=8, layers=3, heads=2, kv_heads=1, head_dim=4, ffn=12, vocab=16)
SITE = Site(1, "v")


def by_hand() -> Patch:
    a = np.array([[1, 2, 3], [0, -1, 1]], dtype=np.float32)
    b = np.array([[1, 0], [2, 1]], dtype=np.float32)
    return Patch(release=4, alpha=6.0, factors={SITE: Factors(a=a, b=b)})


def drawn(shapes: Shapes, sites: tuple[Site, ...], rank: int, alpha: float) -> Patch:
    """A patch with both factors drawn, as after training."""
    rng = stream(3, Purpose.ADAPTER)
    fresh = new_patch(Placement(sites=sites, rank=rank, alpha=alpha), shapes, 2, rng)
    return replace(
        fresh,
        factors={
            site: Factors(a=item.a, b=rng.normal(0, 0.3, item.b.shape).astype(np.float32))
            for site, item in fresh.factors.items()
        },
    )


sites = st.builds(Site, st.integers(0, SHAPES.layers - 1), st.sampled_from(MODULES))
site_sets = st.lists(sites, min_size=1, max_size=8, unique=True).map(tuple)


def test_the_dense_update_by_hand() -> None:
    # alpha / rank = 6 / 2 = 3; B A = [[1, 2, 3], [2 + 0, 4 - 1, 6 + 1]].
    expected = 3 * np.array([[1, 2, 3], [2, 3, 7]], dtype=np.float32)
    np.testing.assert_array_equal(by_hand().dense(SITE), expected)
    assert by_hand().scale(SITE) == 3.0


def test_bytes_of_a_patch_by_hand() -> None:
    # v takes 8 numbers and gives 1 * 4; down takes 12 and gives 8; rank 2, 4 bytes each.
    placement = Placement(sites=(Site(0, "v"), Site(2, "down")), rank=2, alpha=4.0)
    assert placement.size_bytes(SHAPES) == 4 * 2 * ((8 + 4) + (12 + 8))
    patch = new_patch(placement, SHAPES, 0, stream(0, Purpose.ADAPTER))
    assert patch.size_bytes == placement.size_bytes(SHAPES)


@settings(derandomize=True, deadline=None)
@given(site_sets, st.integers(1, 4))
def test_a_new_patch_has_exactly_its_placements_sites_and_bytes(
    chosen: tuple[Site, ...], rank: int
) -> None:
    placement = Placement(sites=chosen, rank=rank, alpha=8.0)
    patch = new_patch(placement, SHAPES, 1, stream(0, Purpose.ADAPTER))
    assert list(patch.factors) == sorted(chosen, key=order)
    assert patch.size_bytes == placement.size_bytes(SHAPES)
    for site, item in patch.factors.items():
        n_in, n_out = SHAPES.matrices()[site.module]
        assert item.a.shape == (rank, n_in)
        assert item.b.shape == (n_out, rank)
        assert item.a.dtype == item.b.dtype == np.float32
        assert np.abs(item.a).max() <= 1 / np.sqrt(n_in)
        assert not item.b.any()
        assert not patch.dense(site).any()


@settings(derandomize=True, deadline=None)
@given(site_sets, st.integers(1, 4), st.permutations(range(16)))
def test_arrays_read_back_as_the_same_patch_in_any_order(
    chosen: tuple[Site, ...], rank: int, turn: list[int]
) -> None:
    patch = drawn(SHAPES, chosen, rank, alpha=8.0)
    named = list(to_arrays(patch).items())
    mixed = dict(sorted(named, key=lambda item: turn[named.index(item) % 16]))
    back = from_arrays(mixed, release=2, alpha=8.0)
    assert back.digest() == patch.digest()
    assert back.release == patch.release
    assert list(back.factors) == list(patch.factors)


def test_arrays_stand_under_stable_names() -> None:
    assert list(to_arrays(by_hand())) == ["1.v.a", "1.v.b"]


def test_arrays_that_are_no_patch_are_refused() -> None:
    arrays = to_arrays(by_hand())
    with pytest.raises(ValueError, match=r"both factors of every site, missing \['1.v.b'\]"):
        from_arrays({"1.v.a": arrays["1.v.a"]}, 0, 1.0)
    with pytest.raises(ValueError, match=r"a site must read layer\.module"):
        from_arrays({"model.embed_tokens.weight": arrays["1.v.a"]}, 0, 1.0)
    with pytest.raises(ValueError, match=r"1\.v\.weight"):
        from_arrays({**arrays, "1.v.weight": np.zeros((2, 3), dtype=np.float32)}, 0, 1.0)
    with pytest.raises(ValueError, match=r"\(rank, n_in\) and \(n_out, rank\), got \(2, 3\)"):
        from_arrays({**arrays, "1.v.b": np.zeros((2, 3), dtype=np.float32)}, 0, 1.0)


def test_the_digest_changes_with_every_number_site_shape_and_alpha() -> None:
    patch = drawn(SHAPES, (Site(0, "q"), Site(2, "up")), 2, alpha=8.0)
    seen = {patch.digest(), replace(patch, alpha=9.0).digest()}
    count = 2
    for site, item in patch.factors.items():
        for side in ("a", "b"):
            for place in np.ndindex(getattr(item, side).shape):
                changed = getattr(item, side).copy()
                changed[place] = np.nextafter(changed[place], np.float32(np.inf))
                factors = {**patch.factors, site: replace(item, **{side: changed})}
                seen.add(replace(patch, factors=factors).digest())
                count += 1
    moved = {Site(1, site.module): item for site, item in patch.factors.items()}
    seen.add(replace(patch, factors=moved).digest())
    fewer = {Site(0, "q"): patch.factors[Site(0, "q")]}
    seen.add(replace(patch, factors=fewer).digest())
    assert len(seen) == count + 2


def test_the_digest_ignores_the_order_in_which_sites_were_given() -> None:
    patch = drawn(SHAPES, (Site(0, "q"), Site(2, "up")), 2, alpha=8.0)
    turned = replace(patch, factors=dict(reversed(list(patch.factors.items()))))
    assert turned.digest() == patch.digest()


def test_the_same_stream_gives_the_same_patch_and_another_key_another() -> None:
    placement = Placement(sites=(SITE,), rank=2, alpha=4.0)
    one, same, other = (
        new_patch(placement, SHAPES, 0, stream(0, Purpose.ADAPTER, device)).digest()
        for device in (1, 1, 2)
    )
    assert one == same != other


# q is 8 x 8 and k is 4 x 8; sites are checked in forward order.
@pytest.mark.parametrize(("rank", "limit"), [(0, 8), (-1, 8), (5, 4), (96, 8)])
def test_a_rank_that_does_not_fit_names_the_limit(rank: int, limit: int) -> None:
    placement = Placement(sites=(Site(0, "q"), Site(0, "k")), rank=rank, alpha=4.0)
    with pytest.raises(ValueError, match=rf"placement.rank .* 1 and {limit}, .* got {rank}"):
        new_patch(placement, SHAPES, 0, stream(0, Purpose.ADAPTER))


def test_the_largest_rank_that_fits_is_the_smaller_side() -> None:
    check_rank(4, n_in=8, n_out=4)
    with pytest.raises(ValueError, match="between 1 and 4, the smaller side of a 4 x 8 matrix"):
        check_rank(5, n_in=8, n_out=4)


@settings(derandomize=True)
@given(st.builds(Site, st.integers(0, 10_000), st.sampled_from(MODULES)))
def test_a_site_reads_back_what_it_wrote(site: Site) -> None:
    assert parse_site(str(site)) == site


@pytest.mark.parametrize(
    "text", ["", "q", "3", "3.", ".q", "3.Q", "-1.q", "1.5.q", "x.q", "3.q.a", "3.lm_head", " 3.q"]
)
def test_a_text_that_is_no_site_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"layer\.module .* got ") as caught:
        parse_site(text)
    assert repr(text) in str(caught.value)


def test_peft_keys_name_the_block_that_holds_the_module() -> None:
    assert (
        peft_key(Site(3, "o"), "A")
        == "base_model.model.model.layers.3.self_attn.o_proj.lora_A.weight"
    )
    assert (
        peft_key(Site(0, "gate"), "B")
        == "base_model.model.model.layers.0.mlp.gate_proj.lora_B.weight"
    )


@torch.no_grad()
def test_an_exported_patch_loads_into_peft_and_gives_the_same_logits() -> None:
    shapes = read_shapes(POCKET_V1_FOLDER)
    patch = drawn(shapes, tuple(Site(layer, m) for layer in (2, 7) for m in MODULES), 4, 16.0)
    tokens = torch.as_tensor(stream(0, Purpose.TUNING).integers(4, 1024, size=(2, 20)))

    backbone = load_backbone(POCKET_V1_FOLDER)
    plain = backbone.model(input_ids=tokens).logits
    # both rows belong to the one device of the stack
    with apply_adapters(backbone, stack_patches([patch], backbone)):
        ours = backbone.model(input_ids=tokens).logits

    model = LlamaForCausalLM.from_pretrained(POCKET_V1_FOLDER, dtype=torch.float32)
    config = LoraConfig(
        r=4,
        lora_alpha=16,
        lora_dropout=0.0,
        target_modules=[f"{module}_proj" for module in MODULES],
        layers_to_transform=[2, 7],
        task_type="CAUSAL_LM",
    )
    peer = get_peft_model(model, config)
    exported = {key: torch.as_tensor(array) for key, array in to_peft(patch).items()}
    loaded = set_peft_model_state_dict(peer, exported)
    assert not loaded.unexpected_keys
    assert not [key for key in loaded.missing_keys if "lora" in key]
    theirs = peer.eval()(input_ids=tokens).logits

    merged = load_backbone(POCKET_V1_FOLDER)
    for site in patch.factors:
        merged.linear(site).weight += torch.as_tensor(patch.dense(site))
    dense = merged.model(input_ids=tokens).logits

    assert float((ours - plain).abs().max()) > 0.1
    # Logits of about 10 in fp32 through eight layers.
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dense, theirs, rtol=1e-4, atol=1e-4)


TIE = Tie(sites=(Site(0, "gate"), Site(1, "gate"), Site(2, "gate")), rank=2, alpha=12.0)
MIXED = Placement(sites=(Site(1, "q"), Site(2, "v")), rank=3, alpha=6.0, ties=(TIE,))


def tied_patch(shapes: Shapes = SHAPES, placement: Placement = MIXED) -> Patch:
    """A patch with a tie and everything drawn, as after training."""
    rng = stream(4, Purpose.ADAPTER)
    fresh = new_patch(placement, shapes, 2, rng)

    def normal(array: np.ndarray) -> np.ndarray:
        return rng.normal(0, 0.3, array.shape).astype(np.float32)

    factors = {s: Factors(a=item.a, b=normal(item.b)) for s, item in fresh.factors.items()}
    ties = tuple(
        replace(
            tied,
            pair=Factors(a=tied.pair.a, b=normal(tied.pair.b)),
            vectors={s: (normal(u), normal(v)) for s, (u, v) in tied.vectors.items()},
        )
        for tied in fresh.ties
    )
    return replace(fresh, factors=factors, ties=ties)


def test_a_tied_site_by_hand() -> None:
    # alpha / rank = 6 / 2 = 3; diag(v) B diag(u) A with u = (2, 1) and v = (1, -1).
    a = np.array([[1, 2, 3], [0, -1, 1]], dtype=np.float32)
    b = np.array([[1, 0], [2, 1]], dtype=np.float32)
    u, v = np.array([2, 1], dtype=np.float32), np.array([1, -1], dtype=np.float32)
    tied = TiedPair(pair=Factors(a=a, b=b), alpha=6.0, vectors={SITE: (u, v)})
    patch = Patch(release=0, alpha=4.0, factors={}, ties=(tied,)).untie()
    expected = 3 * np.diag(v) @ b @ np.diag(u) @ a
    np.testing.assert_allclose(patch.dense(SITE), expected, rtol=1e-6)
    assert patch.alpha == 4.0


def test_a_tied_pair_counts_once_in_memory_and_in_bytes() -> None:
    # q 3 * (8 + 8), v 3 * (8 + 4), the gates' pair 2 * (8 + 12), then 3 times u of 2 and v of 12,
    # and the tie's alpha.
    numbers = 3 * 16 + 3 * 12 + 2 * 20 + 3 * (2 + 12) + 1
    patch = new_patch(MIXED, SHAPES, 0, stream(0, Purpose.ADAPTER))
    assert patch.size_bytes == MIXED.size_bytes(SHAPES) == 4 * numbers
    assert len(to_arrays(patch)) == 2 * 2 + 3 + 2 * 3
    untied = new_patch(
        Placement(sites=TIE.sites, rank=2, alpha=1.0), SHAPES, 0, stream(0, Purpose.ADAPTER)
    )
    assert untied.size_bytes == 4 * 3 * 2 * 20
    assert (
        MIXED.ranks
        == patch.ranks
        == {Site(1, "q"): 3, Site(2, "v"): 3} | dict.fromkeys(TIE.sites, 2)
    )
    assert not any(patch.untie().dense(site).any() for site in patch.ranks)


def test_a_patch_with_ties_reads_back_from_its_arrays_and_from_the_wire() -> None:
    patch = tied_patch()
    back = from_arrays(dict(reversed(list(to_arrays(patch).items()))), 2, 6.0)
    assert back.digest() == patch.digest()
    assert decode_patch(encode_patch(patch)).digest() == patch.digest()
    assert back.ties[0].alpha == 12.0
    assert patch.digest() != replace(patch, ties=()).digest()
    other = replace(MIXED, ties=(replace(TIE, alpha=8.0),))
    assert patch.digest() != tied_patch(placement=other).digest()


def test_arrays_of_a_broken_tie_are_refused() -> None:
    arrays = to_arrays(tied_patch())
    with pytest.raises(ValueError, match=r"missing \['0.gate.u'\]"):
        from_arrays({k: v for k, v in arrays.items() if k != "tie0/0.gate.u"}, 0, 1.0)
    with pytest.raises(ValueError, match=r"numbered from 0, got .*tie2"):
        from_arrays({**arrays, "tie2/a": arrays["tie0/a"]}, 0, 1.0)
    with pytest.raises(ValueError, match=r"got \['c'\]|layer.module"):
        from_arrays({**arrays, "tie0/c": arrays["tie0/a"]}, 0, 1.0)


@settings(derandomize=True, deadline=None)
@given(site_sets, st.integers(1, 4), st.sampled_from([None, *"qkvo", "gate", "up", "down"]))
def test_a_patch_tells_the_placement_that_it_was_made_for(
    chosen: tuple[Site, ...], rank: int, tied: str | None
) -> None:
    ties: tuple[Tie, ...] = ()
    if tied is not None:
        group = tuple(Site(layer, tied) for layer in range(SHAPES.layers))
        ties = (Tie(sites=group, rank=rank, alpha=12.0),)
        chosen = tuple(site for site in chosen if site.module != tied)
    sites = tuple(sorted(chosen, key=order))
    placement = Placement(sites=sites, rank=rank, alpha=6.0, ties=ties)
    patch = new_patch(placement, SHAPES, 2, stream(0, Purpose.ADAPTER))
    assert placement_of(patch) == placement
    assert placement_of(from_arrays(to_arrays(patch), 2, patch.alpha)) == placement


def test_a_patch_of_mixed_ranks_has_no_placement() -> None:
    first, second = drawn(SHAPES, (SITE,), 1, 6.0), drawn(SHAPES, (Site(2, "v"),), 2, 6.0)
    assert placement_of(replace(first, factors={**first.factors, **second.factors})) is None
    # a tie has a rank of its own
    assert placement_of(tied_patch()) == MIXED
    other = Tie(sites=(Site(0, "up"), Site(1, "up")), rank=1, alpha=12.0)
    both = Placement(sites=(), rank=2, alpha=6.0, ties=(TIE, other))
    assert placement_of(new_patch(both, SHAPES, 0, stream(0, Purpose.ADAPTER))) is None


def test_impossible_ties_are_refused() -> None:
    with pytest.raises(ValueError, match="two or more sites"):
        Tie(sites=(SITE,), rank=2, alpha=1.0)
    with pytest.raises(ValueError, match=r"exact in single precision, got 0\.1"):
        Tie(sites=TIE.sites, rank=2, alpha=0.1)
    mixed = Tie(sites=(Site(0, "q"), Site(0, "up")), rank=2, alpha=1.0)
    with pytest.raises(ValueError, match="tied sites must have one shape"):
        new_patch(replace(MIXED, ties=(mixed,)), SHAPES, 0, stream(0, Purpose.ADAPTER))
    twice = replace(MIXED, sites=(Site(0, "gate"),))
    with pytest.raises(ValueError, match="adapt each site once"):
        new_patch(twice, SHAPES, 0, stream(0, Purpose.ADAPTER))
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(12,\)"):
        replace(tied_patch().ties[0], vectors={SITE: (np.ones(3), np.ones(12))})


def test_ties_are_exported_to_peft_as_ordinary_adapters_of_every_site() -> None:
    patch = tied_patch()
    exported = to_peft(patch)
    assert len(exported) == 2 * len(patch.ranks)
    for site in patch.ranks:
        a, b = exported[peft_key(site, "A")], exported[peft_key(site, "B")]
        # PEFT's scale is one alpha over the site's own rank
        dense = patch.alpha / patch.ranks[site] * b @ a
        np.testing.assert_allclose(dense, patch.untie().dense(site), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("told", "spoil", "message"),
    [
        ({"alpha": 4.0, "release": 1}, {"2.q.a": np.zeros((2, 8))}, "must be float32"),
        ({"alpha": 4.0, "release": 1}, {"2.q.a": np.zeros((0, 8), np.float32)}, "not empty"),
        ({"alpha": 4.0, "release": 1}, {"tie0/alpha": np.ones((2, 1), np.float32)}, "one alpha"),
        ({"alpha": float("inf"), "release": 1}, {}, "alpha must be finite and > 0, got inf"),
        ({"alpha": 4.0, "release": "1"}, {}, r"patch\.release must be a whole number"),
        ({"alpha": 4.0}, {}, r"patch\.release must be given"),
        ([4.0, 1], {}, "header of a patch must hold an object, got list"),
    ],
)
def test_bytes_that_are_no_patch_are_refused(
    told: object, spoil: dict[str, np.ndarray], message: str
) -> None:
    arrays = to_arrays(tied_patch()) | spoil
    with pytest.raises(ValueError, match=message):
        patch_from_bytes(save(arrays, metadata={"fleettune": json.dumps(told)}))


@pytest.mark.parametrize("size", [0, 7, 8, 2**40, 2**64 - 1])
def test_a_patch_whose_header_is_said_to_be_of_another_size_is_refused(size: int) -> None:
    data = size.to_bytes(8, "little") + patch_to_bytes(by_hand())[8:]
    with pytest.raises(ValueError, match="a patch must be safetensors, is not"):
        patch_from_bytes(data)

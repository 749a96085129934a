"""Imported catalogues: PEFT adapters, judged by their own answers, dropped if they fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fleettune.adapters.patch import Factors, Patch
from fleettune.releases.manifest import Manifest
from simulations.adapter_formats.peft import KeptPatch, export_peft
from strategies.catalogue.cataloguer import Cataloguer
from strategies.catalogue.entry_questions import pick_questions
from strategies.catalogue.explain import Explain
from strategies.catalogue.peft_source import Adapter, ImportedCatalogue
from tests.strategies.catalogue.test_cataloguer import RELEASE, shaken
from tests.strategies.catalogue.test_cluster_source import QUESTIONS, drawn

EXPLAIN = Explain(questions=12, new_tokens=8)


@pytest.fixture
def how(tmp_path: Path) -> ImportedCatalogue:
    """A catalogue of two adapters as `fleettune export` writes them."""
    adapters: list[Adapter] = []
    for group in range(2):
        folder = tmp_path / f"adapter{group}"
        export_peft(KeptPatch(patch=drawn(group), base="elsewhere"), folder)
        adapters.append(Adapter(name=f"own{group}", path=str(folder)))
    return ImportedCatalogue(
        adapters=tuple(adapters), questions=QUESTIONS, explain=EXPLAIN, worse=0.02
    )


def cataloguer(how: ImportedCatalogue, store: Path) -> Cataloguer:
    return Cataloguer(how=how, store=store, seed=3)


def test_what_was_exported_is_offered_to_the_last_bit(
    how: ImportedCatalogue, tmp_path: Path
) -> None:
    made = cataloguer(how, tmp_path)
    offer = made.offer([RELEASE])
    assert offer is not None
    listed = offer.manifest.entries
    assert [(entry.name, entry.origin) for entry in listed] == [
        ("own0", "imported"),
        ("own1", "imported"),
    ]
    assert [entry.digest for entry in listed] == [drawn(group).digest() for group in range(2)]
    assert {row["origin"] for row in made.rows()} == {"imported"}
    assert len(offer.data) < 40_000
    assert cataloguer(how, tmp_path).offer([RELEASE]) == offer


def later(offered: Cataloguer, releases: list[Manifest]) -> list[tuple[str, bool]]:
    offered.offer(releases)
    version = releases[-1].version
    return [(row["entry"], row["reused"]) for row in offered.rows() if row["release"] == version]


def test_an_entry_that_a_release_leaves_as_it_is_stays_and_one_that_it_breaks_is_dropped(
    how: ImportedCatalogue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    same, other = replace(RELEASE, version=1, digest="same"), shaken(tmp_path / "other")
    offered = cataloguer(how, tmp_path)
    assert later(offered, [RELEASE, same]) == [("own0", True), ("own1", True)]
    with caplog.at_level("INFO"):
        assert later(offered, [RELEASE, same, other]) == []
    assert offered.offer([RELEASE, same, other]) is None
    assert "these entries do not hold: own0, own1" in caplog.text
    assert "release 2 has no catalogue" in caplog.text
    # what is gone does not come back
    again = replace(RELEASE, version=3, digest="again")
    assert later(offered, [RELEASE, same, other, again]) == []
    # an entry may be allowed to get worse
    patient = cataloguer(replace(how, worse=99.0), tmp_path)
    assert later(patient, [RELEASE, same, other]) == [("own0", True), ("own1", True)]


def test_entries_that_change_no_answer_are_no_catalogue(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adapters: list[Adapter] = []
    for group in range(2):
        own = drawn(group)
        faint = {
            site: Factors(a=item.a, b=item.b * np.float32(1e-6))
            for site, item in own.factors.items()
        }
        export_peft(
            KeptPatch(patch=replace(own, factors=faint), base="elsewhere"), tmp_path / str(group)
        )
        adapters.append(Adapter(name=str(group), path=str(tmp_path / str(group))))
    how = ImportedCatalogue(
        adapters=tuple(adapters), questions=QUESTIONS, explain=EXPLAIN, worse=0.02
    )
    assert cataloguer(how, tmp_path).offer([RELEASE]) is None
    assert "release 0 has no catalogue: no word explains it" in caplog.text


def test_a_resumed_run_offers_the_same_catalogue_or_says_that_its_files_changed(
    how: ImportedCatalogue, tmp_path: Path
) -> None:
    before = cataloguer(how, tmp_path)
    offer = before.offer([RELEASE])
    after = cataloguer(how, tmp_path)
    after.restore(before.plain())
    assert after.offer([RELEASE]) == offer
    exchanged = replace(how, adapters=how.adapters[::-1])
    other = cataloguer(exchanged, tmp_path)
    other.restore(before.plain())
    with pytest.raises(ValueError, match=r"catalogue of release 0 must have digest .* got"):
        other.offer([RELEASE])


def test_what_is_no_adapter_of_the_model_is_said_before_anything_starts(
    how: ImportedCatalogue, tmp_path: Path
) -> None:
    def said(adapter: Path) -> str:
        wrong = replace(how.adapters[0], path=str(adapter))
        with pytest.raises(ValueError, match=r"^catalogue\.adapters, own0: ") as caught:
            replace(how, adapters=(wrong, how.adapters[1])).check(RELEASE.shapes)
        return str(caught.value)

    how.check(RELEASE.shapes)
    assert "lacks adapter_config.json: write it with" in said(tmp_path / "nowhere")
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "adapter_config.json").write_text("{}")
    (pickled / "adapter_model.bin").write_bytes(b"")
    assert "lacks adapter_model.safetensors" in said(pickled)
    (pickled / "adapter_model.safetensors").write_bytes(b"no")
    (pickled / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 4}')
    assert "must be safetensors, is not" in said(pickled)
    (pickled / "adapter_config.json").write_text("{")
    assert "must be JSON in UTF-8, is not" in said(pickled)
    foreign = tmp_path / "foreign"
    export_peft(KeptPatch(patch=narrow(drawn(0)), base="elsewhere"), foreign)
    assert "must fit a" in said(foreign)


def narrow(patch: Patch) -> Patch:
    """The patch of a model of half the width."""
    factors = {
        site: Factors(a=np.ascontiguousarray(item.a[:, ::2]), b=item.b)
        for site, item in patch.factors.items()
    }
    return replace(patch, factors=factors)


@pytest.mark.parametrize("names", [(), ("own",), ("own", "own"), ("own", "")])
def test_adapters_are_two_or_more_of_different_names(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"catalogue\.adapters must be two or more of different"):
        ImportedCatalogue(
            adapters=tuple(Adapter(name=name, path="x") for name in names),
            questions=QUESTIONS,
            explain=EXPLAIN,
            worse=0.0,
        )


def test_questions_are_drawn_from_the_list_by_key_and_there_must_be_enough(
    how: ImportedCatalogue, tmp_path: Path
) -> None:
    offer = cataloguer(how, tmp_path).offer([RELEASE])
    assert offer is not None
    asked = offer.manifest.questions
    assert len(set(asked)) == EXPLAIN.questions
    assert set(asked) < set(QUESTIONS)
    other = Cataloguer(how=how, store=tmp_path, seed=4).offer([RELEASE])
    assert other is not None
    assert set(other.manifest.questions) != set(asked)
    few = replace(EXPLAIN, questions=4)
    assert set(pick_questions(few, ("a", "b", "c", "d", "d"), 0)) == {"a", "b", "c", "d"}
    with pytest.raises(ValueError, match=r"explain\.questions must be at most .* 3, got 4: lower"):
        replace(how, explain=few, questions=("a", "b", "c", "c"))

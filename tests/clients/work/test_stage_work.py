"""What a stage asks of the device, at the shapes and at the weight size that are priced."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clients.work.stage_work import serve_work, synthesise_work
from fleettune.cost.pricing import PricedModel
from fleettune.cost.workload import Amount, Entry
from fleettune.data.tokens import Example
from tests.clients.phone import FACTS, RELEASE

REQUEST, WRITTEN = 30, 12


def amounts_of(entries: list[Entry]) -> list[Amount]:
    return [amount for _, _, amount in entries]


@pytest.mark.parametrize("bits", [4.0, 8.0, 16.0])
def test_writing_a_text_moves_the_bytes_of_answering_with_it(bits: float) -> None:
    priced = PricedModel(model="llama-3.2-1b", bits_per_weight=bits)
    facts = replace(FACTS, priced=priced)
    answered = Example(tokens=(1,) * (REQUEST + WRITTEN), prompt=REQUEST)
    served = serve_work(facts, RELEASE, None, [answered], 0.0)
    written = synthesise_work(facts, RELEASE, None, [(REQUEST, answered.supervised)])
    assert amounts_of(written) == amounts_of(served)
    # 1,235,746,816 weights are read for every token; keys and values of 16 layers of 8 heads of 64
    # lie in 16 bits: 30 + 1, ..., 30 + n positions.
    tokens = answered.supervised
    contexts = sum(range(REQUEST + 1, REQUEST + tokens + 1))
    moved = tokens * 1_235_746_816 * bits / 8 + 2 * 2 * 16 * 8 * 64 * contexts
    assert amounts_of(written)[1].moved_bytes == moved

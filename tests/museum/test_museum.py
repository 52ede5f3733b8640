"""Every mismatch that shipped is flagged with the right pair, and no clean port is."""

import pytest
from confusion import Outcome, exhibited, ported, table, walk
from exhibits import EXHIBITS, Exhibit
from ports import NETWORKS, PORTS
from rooms import live

import softknee
from softknee.errors import InputError


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_mismatch(exhibit):
    outcome = exhibited(exhibit)
    assert outcome.right, outcome.said or "nothing said"


# every network in one format or two, and every format of one; all of them are in the benchmark
SOME = ("attention, swiglu",)
PLAIN = [p for i, p in enumerate(PORTS) if not p.slow and (i % 7 == i // 9 % 7 or p.name.partition(" →")[0] in SOME)]


@pytest.mark.parametrize("port", PLAIN, ids=lambda port: port.name)
def test_clean_port(port):
    outcome = ported(port)
    assert not outcome.flagged, outcome.said


def test_the_museum_is_large_enough():
    assert len(EXHIBITS) >= 40 and len(PORTS) >= 100
    assert len({e.name for e in EXHIBITS}) == len(EXHIBITS) and len({p.name for p in PORTS}) == len(PORTS)


def test_a_wrong_answer_is_seen(tmp_path):
    def same(folder):
        return live(NETWORKS["gelu"](), folder)

    silent = Exhibit("nothing differs", same, same, ("gelu", "gelu_tanh"))
    other = Exhibit("another pair", same, lambda folder: live(NETWORKS["silu"](), folder), ("gelu", "gelu_tanh"))

    def refused(folder):
        raise InputError("cannot be read")

    broken = Exhibit("a refusal", same, refused, ("gelu", "gelu_tanh"))
    outcomes = list(walk([silent, other, broken]))
    assert [o.right for o in outcomes] == [False] * 3 and [o.flagged for o in outcomes] == [False, True, False]
    shown = table(outcomes, [Outcome("port", True, False, "1 site: gelu → silu")])
    assert "wrong: nothing differs: nothing said" in shown and "0/3" in shown
    assert isinstance(softknee.identify(*same(tmp_path)).sites, tuple)

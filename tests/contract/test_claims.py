"""Every claim is whole, is on record with its ablation, and the record is what the code says today."""

import datetime
import json
from pathlib import Path

import pytest

from headwater.api import catalogue
from headwater.api.reproduce import Claim, Pair, of, recorded, reproduce
from headwater.cli.show import CLAIM_KEYS

CLAIMS = [catalogue.short(n) for n in catalogue.claims()]
RECORDS = Path(__file__).parents[2] / "benchmarks" / "claims"
QUICK = 60.0  # seconds for three seeds: such claims are measured again in the suite, two a day in turn


@pytest.mark.parametrize("name", CLAIMS)
def test_it_is_on_record_as_the_code_states_it(name: str) -> None:
    slug, claim = of(name)
    found = recorded(slug)
    assert found is not None, f"make claims writes benchmarks/claims/{slug}.json"
    assert {*CLAIM_KEYS} <= {*found} and found["slug"] == slug and len(found["seeds"]) >= 3
    assert (found["claim"], found["metric"], found["data"]) == (claim.claim, claim.metric, claim.data)
    assert found["least"] == claim.least
    pairs = [Pair(*run) for run in found["runs"]]
    assert found["holds"] == claim.holds(pairs)
    assert found["margin"] == pytest.approx(sum(map(claim.margin, pairs)) / len(pairs))


@pytest.mark.parametrize("name", CLAIMS)
def test_it_fails_without_its_mechanism(name: str) -> None:
    slug, claim = of(name)
    found = recorded(slug)
    assert found is not None and len(found["ablation"]["runs"]) == len(found["seeds"])
    assert not claim.holds([Pair(*run) for run in found["ablation"]["runs"]])


def test_no_record_without_a_claim() -> None:
    assert {p.stem for p in RECORDS.glob("*.json")} == {name.replace("_", "-") for name in CLAIMS}


def todays() -> list[str]:
    quick = [n for n in CLAIMS if (found := recorded(of(n)[0])) is not None and found["seconds"] <= QUICK]
    first = 2 * datetime.date.today().toordinal()
    return [quick[(first + k) % len(quick)] for k in range(min(2, len(quick)))]


@pytest.mark.parametrize("name", todays())
def test_measured_again_it_comes_out_as_on_record(name: str) -> None:
    slug, _ = of(name)
    record = recorded(slug)
    assert record is not None
    found = reproduce(name, record["seeds"][:1])
    assert found["holds"] == record["holds"], json.dumps(found)


def test_a_claim_holds_only_if_every_seed_reaches_the_margin() -> None:
    claim = Claim(
        paper="", claim="", data="", metric="", direction="lower", baseline="", without="", least=1.0,
        measure=lambda seed: Pair(seed, 5.0), ablated=lambda seed: Pair(5.0, 5.0),
    )  # fmt: skip
    assert claim.holds([Pair(1.0, 5.0), Pair(4.0, 5.0)])
    assert not claim.holds([Pair(1.0, 5.0), Pair(4.5, 5.0)])
    assert not claim.holds([Pair(float("nan"), 5.0)])
    assert claim.margin(Pair(2.0, 5.0)) == 3.0


def test_planned_systems_are_known_and_do_not_run() -> None:
    from headwater.core.errors import RequestError

    systems = catalogue.systems()
    assert len(systems) == 138 and len({s.slug for s in systems}) == 138
    runs = {s.slug for s in systems if s.runs}
    assert {"rotnet", "clip", "teen", "nmc"} <= runs
    waiting = next(s for s in systems if not s.runs)
    with pytest.raises(RequestError, match=f"{waiting.slug} .* is planned and does not run yet"):
        catalogue.load(waiting.slug)

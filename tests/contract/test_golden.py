"""Every method's full configuration as text, so that a changed default shows as a diff in all it touches.

After a change that is meant: `python -m tests.contract.test_golden` writes the files anew.
"""

from pathlib import Path

import pytest

from headwater.api import catalogue
from headwater.api.override import flat

GOLDEN = Path(__file__).parents[1] / "golden"
CONFIGURED = [n for n in catalogue.names() if hasattr(catalogue.load(n), "Config")]


def lines(name: str) -> str:
    module = catalogue.load(name)
    return "\n".join(flat({"published": module.Config(), "small": module.SMALL})) + "\n"


@pytest.mark.parametrize("name", CONFIGURED)
def test_the_configuration_is_the_one_on_record(name: str) -> None:
    assert (GOLDEN / f"{catalogue.short(name)}.txt").read_text() == lines(name)


def test_no_record_without_a_method() -> None:
    assert {p.stem for p in GOLDEN.glob("*.txt")} == {catalogue.short(n) for n in CONFIGURED}


if __name__ == "__main__":
    for each in CONFIGURED:
        (GOLDEN / f"{catalogue.short(each)}.txt").write_text(lines(each))

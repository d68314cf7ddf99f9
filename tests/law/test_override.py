"""`--set path=value` reaches every leaf, and says what is wrong with what it cannot set."""

import pytest

from headwater.api import catalogue
from headwater.api.override import flat, override
from headwater.core.errors import RequestError
from headwater.engine.fit import FitConfig
from headwater.parts.views import Chain, Crop, Grey

TREE = {"method": catalogue.load("mae").Config(), "fit": FitConfig()}


def test_a_leaf_is_set_and_nothing_else_changes() -> None:
    new = override(TREE, ["method.mask.ratio=0.6", "fit.optimiser.rate=3"])
    assert new["method"].mask.ratio == 0.6 and new["fit"].optimiser.rate == 3.0
    changed = set(flat(TREE)) ^ set(flat(new))
    assert {line.split("=")[0] for line in changed} == {"method.mask.ratio", "fit.optimiser.rate"}


def test_hyphens_tuples_and_numbered_parts() -> None:
    tree = {"view": Chain(Crop(8), Grey(0.1)), "fit": FitConfig()}
    new = override(tree, ["view.views.1.p=0.5", "fit.optimiser.weight-decay=0.1", "fit.optimiser.betas=(0.8, 0.9)"])
    assert new["view"].views[1].p == 0.5
    assert new["fit"].optimiser.weight_decay == 0.1 and new["fit"].optimiser.betas == (0.8, 0.9)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ("method.mask.ration=0.6", r"no field of RandomMask.*'ration'.*Did you mean ratio\?"),
        ("metod.mask.ratio=0.6", r"Did you mean method\?"),
        ("method.mask.ratio=1.5", r"strictly between 0 and 1; got 1\.5"),
        ("method.mask.ratio=high", r"expected a float such as 0\.75; got 'high'"),
        ("fit.steps=2.5", r"expected an int such as 2000; got '2\.5'"),
        ("fit.steps", r"expected path\.to\.field=value"),
        ("fit.steps.more=1", r"2000 is a value and has no field 'more'"),
        ("method.mask=0.5", r"this is a RandomMask with fields ratio, unit; set one of those"),
    ],
)
def test_what_cannot_be_set_is_explained(edit: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        override(TREE, [edit])

"""A comparison is fair: units and signs do not matter, what is missing is marked, what is the same stands the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score
from torch import nn

import headwater as hw
from headwater.api.bench import Bench
from headwater.api.encoders import Pretrained
from headwater.api.gauntlet import KINDS, Gauntlet
from headwater.claims.bob import tasks
from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Features, Ragged
from headwater.core.verbs import Encoder
from headwater.data.array import Memory
from headwater.data.generated import TWINS
from headwater.data.labels import Labels
from headwater.data.loader import Loader
from headwater.data.source import split
from headwater.engine.artefact import Card
from headwater.methods.study.bob import BoB, Task, standing
from headwater.parts.calibration import calibration_error
from headwater.parts.convnet import ResNetConfig
from headwater.parts.corruptions import CORRUPTIONS
from headwater.parts.modalities import MODALITIES
from headwater.parts.ranking import agreement, z_scores
from headwater.parts.retrieval import precision_at_ranks

SCORES = np.array([[0.9, 10.0, 3.0], [0.7, 30.0, 3.0], [0.8, 20.0, 3.0], [0.5, 25.0, 3.0]])


def task(name: str, family: str = "f", error: bool = False, ask: Any = None) -> Task:
    return Task(name, "d", family, ask or (lambda lab, e: e[name]), error)


def test_z_scores_have_mean_0_and_deviation_1_of_the_population() -> None:
    z = z_scores(SCORES, [False, True, False])
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(z[:, :2].std(0), 1)
    assert (z[:, 2] == 0).all()  # all equal: nobody is ahead, and nothing is divided by zero
    np.testing.assert_allclose(z[:, 1], -(SCORES[:, 1] - 21.25) / SCORES[:, 1].std())


def test_units_do_not_matter_and_errors_count_the_other_way() -> None:
    tasks = [task("a"), task("b", error=True), task("c")]
    plain = standing(SCORES, tasks)
    scaled = standing(SCORES * [100, 0.01, 7] + [5, -3, 1], tasks)
    np.testing.assert_allclose(plain.z, scaled.z, atol=1e-9)
    assert plain.rank.tolist() == scaled.rank.tolist() == [1, 3, 2, 4]
    turned = standing(SCORES * [1, -1, 1], [task("a"), task("b"), task("c")])
    np.testing.assert_allclose(plain.overall, turned.overall)


def test_families_weigh_alike() -> None:
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    made = standing(scores, [task("a", "many"), task("b", "many"), task("c", "one")])
    np.testing.assert_allclose(made.overall, 0)
    assert made.rank.tolist() == [1, 1]


def test_one_encoder_alone_stands_at_0() -> None:
    made = standing(SCORES[:1], [task("a"), task("b"), task("c")])
    assert made.overall.tolist() == [0.0] and made.rank.tolist() == [1]


def test_what_is_missing_is_marked_and_biases_nobody() -> None:
    scores = np.array([[0.9, 0.2], [0.5, np.nan], [0.1, 0.8], [np.nan, np.nan]])
    made = standing(scores, [task("a"), task("b")])
    assert made.counted.tolist() == [True, False]
    np.testing.assert_allclose(made.overall[:3], z_scores(scores[:3, :1], [False])[:, 0])
    assert made.rank.tolist() == [1, 2, 3, 0] and np.isnan(made.overall[3]) and np.isnan(made.z[1, 1])
    assert standing(np.full((2, 1), np.nan), [task("a")]).rank.tolist() == [0, 0]


def test_agreement_is_spearmans() -> None:
    scores = np.random.default_rng(0).normal(size=(9, 3))
    made = agreement(scores, [False, True, False])
    assert made[0, 2] == pytest.approx(spearmanr(scores[:, 0], scores[:, 2]).statistic)
    assert made[0, 1] == pytest.approx(-spearmanr(scores[:, 0], scores[:, 1]).statistic)
    assert np.isnan(agreement(np.ones((3, 2)), [False, False])).all()


def test_a_failure_is_told_and_stops_nobody() -> None:
    def breaks(lab: Any, encoder: Any) -> float:
        if encoder["a"] == 2.0:
            raise RuntimeError("too wide\nfor this")
        return float(encoder["a"])

    heard: list[tuple[str, str, int]] = []
    asked = [task("a"), task("b", ask=breaks)]
    encoders = {name: {"a": v} for name, v in (("x", 1.0), ("y", 2.0), ("z", 3.0))}
    report = BoB(lambda e, t, done: heard.append((e, t.name, done))).run(Bench(), encoders, asked)
    told = {(r["encoder"], r["task"]): r for r in report.rows}
    assert told["y", "b"]["why"] == "too wide" and told["y", "b"]["score"] is None
    assert told["z", "b"]["score"] == 3.0 and told["z", "b"]["why"] is None
    assert report.verdict.startswith("z leads the field") and "1 of 1 tasks" in report.verdict
    assert heard[-1] == ("z", "b", 5)


def test_retrieval_is_scikit_learns_average_precision_and_never_finds_the_query() -> None:
    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.normal(size=(60, 5))), torch.from_numpy(rng.integers(0, 4, 60))
    unit = nn.functional.normalize(x, dim=1).numpy()
    told, first = [], []
    for i in range(60):
        others = np.delete(np.arange(60), i)
        similar, same = unit[others] @ unit[i], y.numpy()[others] == int(y[i])
        told.append(average_precision_score(same, similar))
        first.append(same[similar.argmax()])
    precision, recall = precision_at_ranks(x, y)
    assert precision == pytest.approx(np.mean(told)) and recall == pytest.approx(np.mean(first))
    apart = torch.arange(4)
    assert np.isnan(precision_at_ranks(torch.eye(4), apart)[0])  # nobody has another of its class, and itself is none


def test_calibration_by_hand() -> None:
    sure, right = np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True])
    assert calibration_error(sure, right, bins=10) == pytest.approx((2 * 0.45 + 2 * 0.45) / 4)
    low, hit = np.array([0.05, 0.15]), np.array([True, False])  # in bins of their own
    assert calibration_error(low, hit, bins=10) == pytest.approx((0.95 + 0.15) / 2)
    honest = np.random.default_rng(0).random(100_000)
    assert calibration_error(honest, np.random.default_rng(1).random(100_000) < honest) < 0.01
    assert calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0


class Flat(Encoder):
    """Pixels through a fixed map with batch norm, or noise."""

    def __init__(self, width: int = 12, of: str = "noise") -> None:
        super().__init__()
        self.modality, self.dim, self.of = "image", width, of
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.BatchNorm1d(width))

    def forward(self, x: Any, keep: Any = None) -> Features:
        if self.of == "noise":
            pooled = torch.rand(len(x), self.dim, generator=torch.Generator().manual_seed(int(x.sum() * 1e3)))
        else:
            pooled = self.body(x)
        return Features(pooled[:, None], pooled)


def pretrained(encoder: Encoder) -> Pretrained:
    return Pretrained(encoder.eval(), Card(ResNetConfig(), {}, {}), Path("here"))


@pytest.fixture(scope="module")
def latents() -> Memory:
    """Three classes, of which the first row of pixels says all: a place on the line of class k, and nothing else does."""
    rng = np.random.default_rng(0)
    y = np.arange(240) % 3
    x = rng.random((240, 1, 8, 8)).astype(np.float32) * 0.05
    for k in range(3):
        x[y == k, 0, 0, k] += 1
    return Memory("latents", {"image": torch.from_numpy(x)}, Labels(y.astype(np.int64), ("a", "b", "c")))


def gauntlet(source: Memory) -> Gauntlet:
    return Gauntlet("latents", source, *split(source, 0.4, 0), draws=2, steps=5, seed=0)


class Row(Flat):
    """The row that says all."""

    def forward(self, x: Any, keep: Any = None) -> Features:
        pooled = x[:, 0, 0, :3] + 0 * self.body[1].weight.sum()
        return Features(pooled[:, None], pooled)


def test_who_knows_the_answer_leads_noise_trails_and_twins_are_equal(latents: Memory) -> None:
    field = {"oracle": Row(3), "noise": Flat(), "pixels": Flat(of="pixels"), "again": Flat(of="pixels")}
    wanted = [k for k in KINDS if k not in ("fine-tune", "calibration")]  # who says little may be well calibrated
    bench = Bench()
    tell = lambda e, t, done: bench.forget() if done % len(wanted) == 0 else None  # noqa: E731
    report = BoB(tell).run(bench, {k: pretrained(e) for k, e in field.items()}, gauntlet(latents).tasks(wanted))
    z = report.extra["standing"].z
    assert not [r["why"] for r in report.rows if r["why"]]
    for j, name in enumerate(wanted):
        assert z[0, j] == z[:, j].max() and z[1, j] == z[:, j].min(), name
    np.testing.assert_array_equal(z[2], z[3])
    rank = report.extra["standing"].rank
    assert rank[0] == 1 and rank[2] == rank[3] == 2 and rank[1] == 4


def test_frozen_means_frozen_and_fine_tuning_works_on_a_copy(latents: Memory) -> None:
    encoder = pretrained(Flat(of="pixels"))
    before = {k: v.clone() for k, v in encoder.encoder.state_dict().items()}
    made = gauntlet(latents)
    scores = [t.ask(Bench(), encoder) for t in made.tasks([*KINDS])]
    assert np.isfinite(scores).all()
    assert all(torch.equal(v, before[k]) for k, v in encoder.encoder.state_dict().items())
    assert not encoder.encoder.training


def test_all_encoders_meet_the_same_corrupted_samples(latents: Memory) -> None:
    seen: list[torch.Tensor] = []

    class Looks(Flat):
        def forward(self, x: Any, keep: Any = None) -> Features:
            seen.append(x)
            return super().forward(x)

    for _ in range(2):
        Bench().features(pretrained(Looks(of="pixels")), latents, ("noise", CORRUPTIONS["image"]["noise"]))
    assert torch.equal(seen[0], seen[1]) and latents.tensors is not None
    assert (seen[0] - latents.tensors["image"]).std() > 0.05


@pytest.mark.parametrize("modality", list(MODALITIES))
def test_every_modality_has_corruptions_that_change_it_and_keep_its_form(modality: str) -> None:
    source = hw.open(TWINS[modality])
    _, batch = next(iter(Loader(source, 8).ordered(range(8))))
    x = batch.x[modality]
    for name, change in CORRUPTIONS[modality].items():
        made = change(x, Rng(0))
        assert type(made) is type(x) or isinstance(made, Ragged), name
        a, b = (v if isinstance(v, torch.Tensor) else v.values for v in (x, made))
        a = a / 255 if a.dtype == torch.uint8 else a
        assert a.shape != b.shape or not torch.equal(a.nan_to_num().float(), b.nan_to_num().float()), name
        assert len(made) == len(x)


def test_more_noise_is_worse_for_probe_and_neighbours_alike() -> None:
    """The rankings by linear probe and by neighbours agree (card: above 0.5)."""
    x, y = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    field = {str(s): x + rng.normal(0, s, x.shape) for s in (2.0, 6.0, 10.0, 14.0, 18.0)}
    both = [t for t in tasks(y[:900], y[900:]) if t.name in ("linear", "knn")]
    report = BoB().run(Bench(), {k: (v[:900], v[900:]) for k, v in field.items()}, both)
    assert agreement(report.extra["scores"], [False, False])[0, 1] > 0.5


def test_bad_requests_are_refused(latents: Memory) -> None:
    encoder = pretrained(Flat(of="pixels"))
    with pytest.raises(RequestError, match=r"no task named 'linaer'.*Did you mean linear"):
        hw.compare([encoder], [latents], tasks=["linaer"])
    with pytest.raises(RequestError, match="has numbers for labels"):
        hw.compare([encoder], ["diabetes"])
    lone = Memory("lone", latents.tensors or {}, Labels(np.zeros(240, np.int64), ("a",)))
    with pytest.raises(RequestError, match=r"lone holds 1 class with samples .* needs two"):
        hw.compare([encoder], [lone])
    few = Memory("few", latents.tensors or {}, Labels(np.array([0] * 238 + [1, 1]), ("a", "b")))
    with pytest.raises(RequestError, match=r"b has 2.*four samples of each"):
        hw.compare([encoder], [few])
    with pytest.raises(RequestError, match="no encoder at nowhere"):
        hw.compare(["nowhere"], [latents])
    with pytest.raises(RequestError, match="2 labels were given for 1 data sets"):
        hw.compare([encoder], [latents], labels=["a", "b"])

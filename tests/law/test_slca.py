"""SLCA: heads that learn apart, samples that stand for what is gone, and an alignment that is done anew every time."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import headwater as hw
from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.types import Batch, Step
from headwater.data.source import Subset, split
from headwater.engine.optimise import SGD
from headwater.methods.continual.slca import SLCA
from headwater.methods.supervise import classify
from headwater.parts.aligning import block_normalised, drawn, gaussians, shrunk
from headwater.parts.sessions import SessionHead, unit
from tests.small import vit


@pytest.fixture(scope="module")
def digits() -> list[np.ndarray]:
    return train_test_split(*load_digits(return_X_y=True), test_size=0.3, random_state=0)


def those(x: np.ndarray, y: np.ndarray, classes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.isin(y, classes)
    return x[rows], y[rows]


def taught(digits: list[np.ndarray], groups: list[list[int]], **named: float) -> SLCA:
    model = SLCA(**{"steps": 60, **named})  # type: ignore[arg-type]
    for group in groups:
        model.partial_fit(*those(digits[0], digits[2], group))
    return model


def test_older_means_are_shrunk_a_little() -> None:
    means, sessions = torch.ones(4, 2, dtype=torch.float64), torch.tensor([0, 1, 2, 2])
    factors = shrunk(means, sessions, 2)[:, 0]
    torch.testing.assert_close(factors, torch.tensor([0.9 + 0.1 / 3, 0.9 + 0.2 / 3, 1.0, 1.0], dtype=torch.float64))
    assert torch.equal(shrunk(means, torch.zeros(4, dtype=torch.long), 0), means)


def test_samples_have_the_means_and_covariances_that_were_kept() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(300, 5, generator=g, dtype=torch.float64) @ torch.randn(5, 5, generator=g, dtype=torch.float64)
    y = torch.arange(300) % 3
    means, spread = gaussians(x, y, 3)
    np.testing.assert_allclose(spread[1].numpy(), np.cov(x[y == 1].numpy().T) + 1e-4 * np.eye(5), atol=1e-12)
    drawn_x, of = drawn(means, spread, 40_000, g)
    for k in range(3):
        torch.testing.assert_close(drawn_x[of == k].mean(0), means[k], atol=0.05, rtol=0.02)
        np.testing.assert_allclose(np.cov(drawn_x[of == k].numpy().T), spread[k].numpy(), atol=0.25, rtol=0.05)


def test_few_samples_still_have_a_covariance_with_a_root() -> None:
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, spread = gaussians(x, torch.tensor([0, 0, 1]), 2)
    assert (torch.linalg.eigvalsh(spread) > 5e-5).all()
    torch.testing.assert_close(spread[1], 1e-4 * torch.eye(8, dtype=torch.float64))


def test_normalised_logits_have_no_scale_and_blocks_of_sessions() -> None:
    g = torch.Generator().manual_seed(0)
    logits, sessions = torch.randn(6, 5, generator=g), torch.tensor([1, 0, 0, 1, 2])
    told = block_normalised(logits, sessions)
    torch.testing.assert_close(block_normalised(7.5 * logits, sessions), told)
    n = (logits[:, [1, 2]].norm(dim=1) + logits[:, [0, 3]].norm(dim=1) + logits[:, [4]].norm(dim=1)) / 3
    torch.testing.assert_close(told, logits / n[:, None])
    free = logits.double().requires_grad_(True)
    torch.autograd.gradcheck(lambda v: block_normalised(v, sessions), free)  # the lengths are part of the gradient


def test_a_session_neither_reads_nor_changes_earlier_heads(digits: list[np.ndarray]) -> None:
    first = taught(digits, [[3, 7, 1]])
    before = {c: first.heads_[i].copy() for i, c in enumerate(first.classes_)}
    other = copy.deepcopy(first)
    other.heads_ = other.heads_ + 5.0
    for model in (first, other):
        model.partial_fit(*those(digits[0], digits[2], [0, 9]))
    for i, c in enumerate(first.classes_):
        if c in before:
            assert np.array_equal(first.heads_[i], before[c])
        else:
            assert np.array_equal(first.heads_[i], other.heads_[i])  # its loss knows its own classes alone
    assert list(first.session_of_) == [1, 0, 0, 0, 1]


def test_alignment_starts_from_the_heads_as_trained_every_time(digits: list[np.ndarray]) -> None:
    model = taught(digits, [[0, 1], [2, 3], [4, 5]])
    assert not np.allclose(model.coef_, model.heads_[:, :-1])
    plain = taught(digits, [[0, 1], [2, 3], [4, 5]], rounds=0)
    assert np.array_equal(model.heads_, plain.heads_) and np.array_equal(plain.coef_, plain.heads_[:, :-1])
    alone = taught(digits, [[0, 1]])
    assert np.array_equal(alone.coef_, alone.heads_[:, :-1])  # the first session has nothing to be aligned with


def test_statistics_of_a_class_are_final(digits: list[np.ndarray]) -> None:
    first = taught(digits, [[2, 8]])
    kept = first.means_.copy(), first.covariances_.copy()
    first.partial_fit(*those(digits[0], digits[2], [5]))
    assert list(first.classes_) == [2, 5, 8]
    assert np.array_equal(first.means_[[0, 2]], kept[0]) and np.array_equal(first.covariances_[[0, 2]], kept[1])
    x = digits[0][digits[2] == 5] * first.scale_
    np.testing.assert_allclose(first.means_[1], x.mean(0))


def test_alignment_helps_and_repeats_to_the_bit(digits: list[np.ndarray]) -> None:
    groups = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    model, again, plain = (taught(digits, groups, rounds=r) for r in (5, 5, 0))
    assert np.array_equal(model.coef_, again.coef_)
    assert model.score(digits[1], digits[3]) > plain.score(digits[1], digits[3]) + 0.05


def test_a_head_trained_elsewhere_is_taken_as_it_is(digits: list[np.ndarray]) -> None:
    x, y = those(digits[0], digits[2], [0, 1, 2])
    head = np.random.default_rng(0).normal(size=(3, x.shape[1] + 1))
    model = SLCA().partial_fit(x, y, head=head)
    np.testing.assert_allclose(model.decision_function(x), x @ head[:, :-1].T + head[:, -1])
    torch.manual_seed(0)
    trained = SessionHead(x.shape[1], 3, unit(x))
    said = trained(torch.tensor(x, dtype=torch.float32)).detach()
    model = SLCA().partial_fit(x, y, head=trained.array())
    np.testing.assert_allclose(model.decision_function(x), said, atol=1e-4)
    assert 0.01 < trained.weight.std() < 0.03 and not trained.bias.any()


def test_the_encoder_is_slower_than_the_head() -> None:
    method = classify.TINY.build({"image": vit()})
    moved = SGD(rate=0.1, slow=0.01, weight_decay=0.0).build(method)
    before = {n: p.detach().clone() for n, p in method.named_parameters()}
    method.loss(Batch({"image": torch.rand(4, 3, 16, 16)}, torch.arange(4)), Step(Rng(0))).value.backward()
    for group in moved.param_groups:
        group["lr"] *= group["scale"]
    moved.step()
    for name, p in method.named_parameters():
        if p.grad is not None:
            rate = 0.1 if name.startswith("head.") else 0.001
            torch.testing.assert_close(p.detach(), before[name] - rate * p.grad)
    assert {n.partition(".")[0] for n in before} == {"head", "encoder"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "simclr"
    hw.pretrain("simclr", "digits", out=out, steps=20, batch_size=64, device="cpu")
    return out


def test_what_old_classes_look_like_drifts_less_with_a_slow_encoder(run: Path, tmp_path: Path) -> None:
    source = hw.open("digits")
    pool, _ = split(source, 0.28, 0)
    assert pool.labels is not None
    before, drift, last = hw.load(run), dict[float, float](), dict[float, float]()
    for slow in (0.01, 1.0):
        at = tmp_path / f"{slow}"
        more = {"groups": 3, "set": ["steps=30", f"slow={slow}"], "device": "cpu"}
        made = hw.continual.sessions("slca", run, "digits", out=at, **more)  # type: ignore[arg-type]
        old = np.flatnonzero(np.isin(np.array(source.classes)[pool.labels], made["groups"][0]))
        x, z = (hw.embed(encoder, Subset(pool, old)) for encoder in (before, hw.load(at)))
        drift[slow] = float(np.linalg.norm(z - x, axis=1).mean() / np.linalg.norm(x, axis=1).mean())
        last[slow] = made["last"]
    assert 0 < drift[0.01] < 0.2 * drift[1.0]
    assert last[0.01] > last[1.0] + 0.2


def test_batch_norm_keeps_the_statistics_of_pre_training(run: Path, tmp_path: Path) -> None:
    hw.continual.sessions("slca", run, "digits", out=tmp_path / "c", groups=2, set=["steps=3"], device="cpu")
    before, after = (hw.load(at).encoder.state_dict() for at in (run, tmp_path / "c"))
    moments = [name for name in before if "running" in name]
    assert moments and all(torch.equal(before[name], after[name]) for name in moments)
    assert not torch.equal(*(state["body.0.weight"] for state in (before, after)))


def test_the_command_and_its_state(run: Path, tmp_path: Path) -> None:
    def made(slow: float, at: str, **more: object) -> dict[str, Any]:
        settings = {"groups": 3, "set": ["steps=5", f"slow={slow}"], "device": "cpu", **more}
        return hw.continual.sessions("slca", run, "digits", out=tmp_path / at, **settings)  # type: ignore[arg-type]

    learned = made(0.5, "c")
    assert len(learned["seen"]) == 3 and made(0.5, "c", resume=True) == learned
    assert hw.load(tmp_path / "c").card.provenance["taught_in_sessions"] == learned["groups"]
    assert hw.evaluate(tmp_path / "c", "digits", labels_per_class=[5], baselines=[], draws=2)["rows"]
    assert "pre-trained encoder" in (tmp_path / "c" / "report.html").read_text()
    still = made(0, "still")
    assert not (tmp_path / "still/encoder").exists() and not (tmp_path / "still/state/encoder.safetensors").exists()
    pool, _ = split(hw.open("digits"), 0.28, 0)
    x, y, model = hw.embed(run, pool), np.array(pool.classes)[pool.labels], SLCA(steps=5)
    for group in still["groups"]:
        model.partial_fit(*those(x, y, group))
    kept = load_file(tmp_path / "still/state/learned.safetensors")
    np.testing.assert_allclose(kept["heads_"].numpy(), model.heads_, atol=1e-12)


def test_bad_requests_are_refused(digits: list[np.ndarray]) -> None:
    model = taught(digits, [[0, 1]])
    with pytest.raises(RequestError, match=r"only new classes in a later session; known: \[1\]"):
        model.partial_fit(*those(digits[0], digits[2], [1, 2]))
    with pytest.raises(RequestError, match="hold one class, 4"):
        SLCA().fit(*those(digits[0], digits[2], [4]))
    with pytest.raises(RequestError, match=r"finite slow of at least 0; got -1\.0"):
        SLCA(slow=-1.0).fit(digits[0], digits[2])
    with pytest.raises(RequestError, match="finite steps of at least 1; got 0"):
        SLCA(steps=0).fit(digits[0], digits[2])
    with pytest.raises(ValueError, match="features"):
        model.predict(digits[1][:, :5])
    with pytest.raises(RequestError, match="not among classes"):
        SLCA().partial_fit(*those(digits[0], digits[2], [1, 2]), classes=[1])

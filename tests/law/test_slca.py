"""SLCA: heads that learn apart, samples that stand for what is gone, and an alignment that is done anew every time."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import headwater as hw
from headwater.core.errors import RequestError
from headwater.methods.continual.slca import SLCA
from headwater.parts.aligning import block_normalised, drawn, gaussians, shrunk


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


def test_the_command_and_its_state(tmp_path: Path) -> None:
    hw.pretrain("mae", "digits", out=tmp_path / "run", steps=2, batch_size=16, device="cpu")
    more = {"groups": 3, "set": ["steps=20"], "device": "cpu"}
    whole = hw.continual.sessions("slca", tmp_path / "run", "digits", out=tmp_path / "c", **more)  # type: ignore[arg-type]
    assert len(whole["seen"]) == 3
    assert hw.continual.sessions("slca", tmp_path / "run", "digits", out=tmp_path / "c", resume=True, **more) == whole  # type: ignore[arg-type]


def test_bad_requests_are_refused(digits: list[np.ndarray]) -> None:
    model = taught(digits, [[0, 1]])
    with pytest.raises(RequestError, match=r"only new classes in a later session; known: \[1\]"):
        model.partial_fit(*those(digits[0], digits[2], [1, 2]))
    with pytest.raises(RequestError, match="hold one class, 4"):
        SLCA().fit(*those(digits[0], digits[2], [4]))
    with pytest.raises(RequestError, match="finite steps of at least 1; got 0"):
        SLCA(steps=0).fit(digits[0], digits[2])
    with pytest.raises(ValueError, match="features"):
        model.predict(digits[1][:, :5])
    with pytest.raises(RequestError, match="not among classes"):
        SLCA().partial_fit(*those(digits[0], digits[2], [1, 2]), classes=[1])

"""Noise: what a schedule adds can be taken away again, and a sampler that is told the truth finds it."""

import numpy as np
import pytest
import torch

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.parts.diffusion import DDIM, NoiseSchedule

KINDS = [NoiseSchedule(), NoiseSchedule(kind="linear"), NoiseSchedule(steps=200)]


def by_recipe(kind: str, steps: int) -> np.ndarray:
    """The products that Ho et al. and Nichol and Dhariwal write down, step by step."""
    if kind == "linear":
        betas = np.linspace(1000 / steps * 1e-4, 1000 / steps * 0.02, steps)
    else:
        betas = np.array([min(1 - wave((i + 1) / steps) / wave(i / steps), 0.999) for i in range(steps)])
    return np.cumprod(1 - betas)


def wave(t: float) -> float:
    return np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2


@pytest.mark.parametrize("schedule", KINDS)
def test_schedules_are_those_of_the_papers(schedule):
    kept = schedule.kept()
    np.testing.assert_allclose(kept.numpy(), by_recipe(schedule.kind, schedule.steps), rtol=1e-6)
    assert kept[0] > 0.999
    assert kept[-1] < 1e-4
    assert (kept.diff() < 0).all()


@pytest.mark.parametrize("schedule", KINDS)
def test_variance_is_kept_and_noise_and_values_tell_each_other(schedule):
    x, noise = torch.randn(2, 4000, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t = torch.randint(schedule.steps - 1, (4000,), generator=torch.Generator().manual_seed(1))
    noised = schedule.noised(x, t, noise)
    assert float(noised.var()) == pytest.approx(1.0, abs=0.03)
    torch.testing.assert_close(schedule.clean(noised, t, noise), x)
    torch.testing.assert_close(schedule.noise(noised, t, x), noise)
    start = torch.zeros(4000, dtype=torch.long)
    torch.testing.assert_close(schedule.noised(x, start, noise), x, atol=0.1, rtol=0)


@pytest.mark.parametrize("sampler", [DDIM(steps=20), DDIM(steps=20, eta=0.0), DDIM(steps=50, limit=3.0)])
@pytest.mark.parametrize("schedule", KINDS)
def test_told_the_noise_of_one_point_it_arrives_there(schedule, sampler):
    point = torch.tensor([[0.3, -1.2, 2.0]], dtype=torch.float64)
    asked: list[int] = []

    def oracle(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(int(t[0]))
        return schedule.noise(x, t, point.expand_as(x))

    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(sampler(oracle, x, schedule, Rng(0)), point.expand(5, -1))
    assert asked == sampler.times(schedule)
    assert asked[0] == schedule.steps - 1
    assert asked[-1] == 0


def test_as_many_steps_as_asked_for_and_one_to_finish():
    assert DDIM(steps=125).times(NoiseSchedule())[:3] == [999, 991, 983]
    assert len(DDIM(steps=125).times(NoiseSchedule())) == 126


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_from_noise_it_draws_as_the_data_are_spread(eta):
    """Data of variance 4 around 1: the best guess of their noise is linear, and samples have their moments."""
    schedule = NoiseSchedule(steps=200)
    kept = schedule.kept()

    def best(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = kept[t][:, None]
        return (1 - a).sqrt() * (x - a.sqrt()) / (4 * a + 1 - a)

    x = torch.randn(4000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = DDIM(steps=100, eta=eta)(best, x, schedule, Rng(0))
    assert float(found.mean()) == pytest.approx(1.0, abs=0.12)
    assert float(found.std()) == pytest.approx(2.0, abs=0.15)


def test_no_value_exceeds_the_limit():
    def wild(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return -100 * torch.ones_like(x)

    assert DDIM(steps=10, limit=2.0)(wild, torch.zeros(2, 3), NoiseSchedule(), Rng(0)).abs().max() <= 2.0


def test_a_schedule_has_steps():
    with pytest.raises(RequestError, match="2 or more"):
        NoiseSchedule(steps=1)

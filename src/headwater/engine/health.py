"""Is the representation alive? Measures that need no labels, and a verdict in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headwater.core.types import Input


def rankme(features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """The effective number of dimensions in use: exp of the entropy of the singular values (Garrido et al., 2022)."""
    s = torch.linalg.svdvals(features.float())
    p = s / s.sum().clamp(min=1e-12) + 1e-7
    return torch.special.entr(p).sum().exp()


def spread(features: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """0 when all samples share one feature vector, about 1 when unit features fill all directions evenly."""
    unit = nn.functional.normalize(features.float(), dim=1)
    return unit.var(0).sum().sqrt()


@torch.no_grad()
def examine(encoder: nn.Module, probe: Input) -> dict[str, float]:
    """RankMe and spread of the pooled features of a fixed probe batch; leaves the encoder in the mode it was in."""
    training = encoder.training
    encoder.eval()
    pooled = encoder(probe).pooled
    encoder.train(training)
    return {"rankme": float(rankme(pooled - pooled.mean(0))), "spread": float(spread(pooled)), "dim": pooled.shape[1]}


@dataclass(frozen=True)
class Verdict:
    """`level`: ok, watch or bad."""

    level: str
    words: str

    @property
    def brief(self) -> str:
        return "ok" if self.level == "ok" else self.words


def judge(history: Sequence[Mapping[str, Any]]) -> Verdict:
    """Read the logged lines of a run and say whether it looks healthy, and why not."""
    losses = [h for h in history if "loss" in h]
    checks = [h for h in history if "rankme" in h]
    if not losses:
        return Verdict("watch", "nothing logged yet")
    last = losses[-1]
    if checks:
        check = checks[-1]
        if check["spread"] < 0.02 or check["rankme"] < 1.5:
            return Verdict(
                "bad",
                f"collapsed: every sample gets nearly the same features (spread {check['spread']:.3f}, "
                f"RankMe {check['rankme']:.1f} of {check['dim']:.0f}); lower the rate or weaken the views",
            )
    tail = losses[len(losses) // 2 :]
    if "chance" in last and len(losses) >= 10:
        near = [abs(h["loss"] - h["chance"]) <= 0.01 * abs(h["chance"]) for h in tail if "chance" in h]
        if near and all(near):
            return Verdict(
                "bad",
                f"the loss stands at {last['loss']:.4f}, that of a model that knows nothing (chance {last['chance']:.4f}); "
                "it has not begun to learn: try a higher rate or easier views",
            )
    if "teacher_entropy" in last:
        most = last.get("teacher_entropy_max", math.inf)
        if last["teacher_entropy"] > 0.999 * most:
            return Verdict(
                "bad", "the teacher says the same of every prototype (uniform targets): lower its temperature"
            )
        if last["teacher_entropy"] < 1e-3:
            return Verdict("bad", "the teacher puts everything on one prototype: check centring and its temperature")
    if checks and checks[-1]["rankme"] < 0.02 * checks[-1]["dim"]:
        return Verdict(
            "watch", f"only {checks[-1]['rankme']:.0f} of {checks[-1]['dim']:.0f} feature dimensions are in use"
        )
    if len(losses) >= 20 and _mean(tail) > _mean(losses[: len(losses) // 4]):
        return Verdict("watch", "the loss is higher than at the start (normal for some teachers, else lower the rate)")
    alive = f", RankMe {checks[-1]['rankme']:.0f} of {checks[-1]['dim']:.0f}" if checks else ""
    return Verdict("ok", f"learning{alive}")


def _mean(lines: Sequence[Mapping[str, Any]]) -> float:
    return sum(h["loss"] for h in lines) / max(1, len(lines))

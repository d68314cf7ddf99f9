"""The engine as procedures see it: features of encoders and training, each done once and remembered."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from headwater.api.encoders import Pretrained, suited
from headwater.core.errors import WorkError
from headwater.core.rng import Rng, mix
from headwater.core.types import Input
from headwater.core.verbs import Method
from headwater.data.loader import Loader
from headwater.data.source import Source, Subset
from headwater.engine.embed import vectors
from headwater.engine.fit import FitConfig, fit
from headwater.parts.corruptions import Corruption

BATCH = 256


@dataclass
class Bench:
    """A `Lab`. What it has made is kept until `forget`; a piece of work that failed fails again at once."""

    device: torch.device = torch.device("cpu")
    workers: int = 2
    seed: int = 0
    fitting: FitConfig = field(default_factory=FitConfig)
    made: dict[Any, Any] = field(default_factory=dict)

    def forget(self) -> None:
        self.made.clear()

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self.made:
            try:
                self.made[key] = make(), None
            except Exception as error:
                self.made[key] = None, error
        made, error = self.made[key]
        if error is not None:
            raise error
        return made

    def features(
        self, encoder: Pretrained, data: Source, change: tuple[str, Corruption] | None = None
    ) -> Float[Tensor, "n d"]:
        """The pooled features of every item, prepared as the encoder wants; `change` corrupts the samples before, all
        encoders' alike. Raises WorkError where one is not finite or an item cannot be read."""
        name = "" if change is None else change[0]
        return self.once((id(encoder), id(data), name), lambda: self._features(encoder, data, change))

    def _features(self, encoder: Pretrained, data: Source, change: tuple[str, Corruption] | None) -> Tensor:
        drawn = Rng(mix(self.seed, "" if change is None else change[0]))

        def prepared(x: Input) -> Input:
            if change is not None:
                x = change[1](x.to("cpu"), drawn).to(self.device)
            return encoder.prepare(x)

        source = suited(data, encoder)
        found, kept = vectors(
            encoder.encoder, Loader(source, BATCH, workers=self.workers), len(source), prepared, self.device
        )
        if len(kept) < len(source):
            raise WorkError(f"{len(source) - len(kept)} of {len(source)} items of {source.name} could not be read.")
        return torch.from_numpy(found)

    def train(self, method: Method, data: Any, fitting: FitConfig | None = None) -> None:
        config = fitting or self.fitting
        if not fit(method, Loader(data, config.batch_size, seed=config.seed), config, device=self.device).done:
            raise KeyboardInterrupt


def readable(source: Source, workers: int = 2) -> Source:
    """The items that decode. Too many that do not raise WorkError with their list."""
    if source.tensors is not None:
        return source
    kept = [i for chosen, _ in Loader(source, BATCH, workers=workers).ordered(range(len(source))) for i in chosen]
    return source if len(kept) == len(source) else Subset(source, np.array(kept))

"""An encoder that learns on from session to session, slowly, so that what it said of older classes stays about right."""

import copy
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.modules.batchnorm import _BatchNorm

from headwater.api import contenders
from headwater.api.encoders import Pretrained
from headwater.core.rng import mix
from headwater.data.loader import Loader
from headwater.data.source import Source, Subset
from headwater.engine.artefact import Card, save_encoder
from headwater.engine.embed import vectors
from headwater.engine.fit import FitConfig, fit
from headwater.engine.log import Progress
from headwater.engine.optimise import SGD
from headwater.parts.sessions import BATCH, DECAY, MOMENTUM, SessionHead, unit

Array = NDArray[Any]
EVERY = 1000  # steps between checkpoints, at most


class SlowLearner:
    """The encoder of a learner such as SLCA, which is copied and trained with a head of each session's own.

    model     with `steps`, `rate`, `slow` and, once it has learned a session, `scale_`
    folder    where a session that is under way keeps its checkpoints
    """

    def __init__(
        self, model: Any, pretrained: Pretrained, folder: Path, seed: int, device: torch.device, workers: int
    ) -> None:
        self.model, self.pretrained, self.folder, self.seed = model, pretrained, folder, seed
        self.device, self.workers = device, workers
        self.config = FitConfig(
            steps=model.steps,
            optimiser=SGD(rate=model.rate, slow=model.slow, momentum=MOMENTUM, weight_decay=DECAY),
            clip=math.inf,
            precision="float32",
            save_every=min(EVERY, max(1, model.steps // 4)),
        )
        self.encoder = copy.deepcopy(pretrained.encoder).requires_grad_(True)
        for module in self.encoder.modules():
            # the statistics of batch norm would become those of the last session, however slow the encoder is
            if isinstance(module, _BatchNorm):
                module.requires_grad_(False)

    def session(
        self, part: Source, codes: Array, first: Array, number: int, progress: Progress | None
    ) -> tuple[Array, Array]:
        """Trains on the items of session `number`, whose classes `codes` counts from 0; `first` is what the encoder said of
        them to begin with. Returns what it says of them then, [n d], and the head of the session, [k d+1]. Goes on where an
        earlier try was killed, to the same bits."""
        model, at = self.model, self.folder / f"session-{number}"
        for other in self.folder.glob("session-*"):
            if other != at:
                shutil.rmtree(other)
        scale = model.scale_ if number else unit(first)
        torch.manual_seed(mix(self.seed, "head", number))
        mine = _numbered(part, codes)
        learner = contenders.classifier(self.encoder, self.pretrained, mine)
        learner.head = head = SessionHead(self.encoder.dim, len(mine.classes), scale)
        size = min(BATCH, len(part))
        config = replace(self.config, batch_size=size, seed=mix(self.seed, "session", number) % 2**31)
        loader = Loader(mine, size, seed=config.seed, workers=self.workers)
        made = fit(learner, loader, config, out=at, resume=at.is_dir(), device=self.device, progress=progress)
        if not made.done:
            raise KeyboardInterrupt
        return self.said(part), head.array()

    def said(self, part: Source) -> Array:
        """What the encoder says of these items now."""
        return vectors(
            self.encoder, Loader(part, 256, workers=self.workers), len(part), self.pretrained.prepare, self.device
        )[0]

    def save(self, sessions: Sequence[Sequence[str]]) -> None:
        """The encoder as it is now, for other verbs, and no checkpoints any more."""
        card = self.pretrained.card
        told = {**card.provenance, "taught_in_sessions": [list(names) for names in sessions]}
        save_encoder(self.folder / "encoder", self.encoder, Card(card.architecture, card.preprocessing, told))
        for done in self.folder.glob("session-*"):
            shutil.rmtree(done)


def _numbered(part: Source, codes: Array) -> Source:
    """The same items, with the classes of the session alone."""
    made = Subset(part, np.arange(len(part)))
    made.labels, made.classes = codes, tuple(str(k) for k in range(int(codes.max()) + 1))
    return made

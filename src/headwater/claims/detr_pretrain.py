"""Detection transformers: boxes that a teacher of few labels finds on unlabelled pictures help the next one with those labels."""

import functools
from dataclasses import replace

import numpy as np
import torch

from headwater.api.recipe import Recipe
from headwater.api.reproduce import Claim, Pair
from headwater.claims.training import recipe, trained
from headwater.core.rng import Rng
from headwater.core.types import Batch, Step
from headwater.core.verbs import Method
from headwater.data import open as open_data
from headwater.data.annotated import Annotated
from headwater.data.drawn import Drawn
from headwater.data.loader import Loader
from headwater.data.source import Source, Subset
from headwater.engine.optimise import AdamW
from headwater.methods.supervise.detr_pretrain import DETRPretrain
from headwater.parts.encoders import TokenEncoderConfig
from headwater.parts.precision import average_precision

NAME = "detr-pretrain"
LABELLED, POOL, TEST = np.arange(60), np.arange(60, 960), np.arange(960, 1200)
FINE_TUNE, PRE_TRAIN, KEEP = 300, 500, 4
SIDE = 64


@functools.cache
def scenes() -> Annotated:
    found = open_data("shapes-boxes")
    assert isinstance(found, Annotated)
    return found


def small(source: Source, steps: int) -> Recipe:
    made = recipe(NAME, source, steps=steps, batch_size=16, many=0, queries=16)
    encoder = made.encoder["image"]
    assert isinstance(encoder, TokenEncoderConfig)
    trunk = replace(encoder.transformer, dim=64, depth=2, heads=4)
    encoder = replace(encoder, trunk=trunk, tokenizer=replace(encoder.tokenizer, patch=(8, 8)))  # type: ignore[call-arg]
    return replace(
        made, encoder={"image": encoder}, fit=replace(made.fit, optimiser=AdamW(rate=2e-3, weight_decay=1e-4))
    )


def detector(source: Source, steps: int, seed: int, begin: Method | None = None) -> DETRPretrain:
    """Trained on these boxes, from scratch or from what another one learned."""

    def change(method: Method) -> Method:
        if begin is not None:
            method.load_state_dict(begin.state_dict())
        return method

    method = trained(NAME, source, seed, small(source, steps), change)
    assert isinstance(method, DETRPretrain)
    return method


@functools.cache
def teacher(seed: int) -> DETRPretrain:
    """With as many steps as its student has in all."""
    return detector(Subset(scenes(), LABELLED), PRE_TRAIN + FINE_TUNE, seed)


def found(method: DETRPretrain, source: Source) -> np.ndarray:
    """Score, class and box in pixels of every query, the best first [n q 6]."""
    said = []
    for _, batch in Loader(source, 120).ordered(range(len(source))):
        x = batch.x["image"]
        assert isinstance(x, torch.Tensor)
        said.append(method.predict(Batch({"image": x / 255}), Step(Rng(0))))
    return torch.cat(said).double().numpy() * ([1, 1] + [SIDE] * 4)


def pseudo_labelled(method: DETRPretrain, seed: int, shuffled: bool) -> Annotated:
    """The pool with the best boxes that the method finds on each scene; `shuffled`, on another scene."""
    rows = found(method, Subset(scenes(), POOL))[:, :KEEP]
    if shuffled:
        rows = np.random.default_rng(seed).permutation(rows)
    n, flat = len(rows), rows.reshape(-1, 6)
    drawn = Drawn(
        [str(i) for i in range(n)],
        flat[:, 2:].astype(np.float32),
        flat[:, 1].astype(np.int64),
        np.arange(n + 1) * KEEP,
        np.full((n, 2), SIDE),
        scenes().marked["boxes"],
    )
    return Annotated(Subset(scenes().source, POOL), drawn.within())


def ap50(method: DETRPretrain) -> float:
    test = Subset(scenes(), TEST)
    truth = []
    for i in range(len(test)):
        marks = test.annotations(i, {"image": torch.zeros(3, SIDE, SIDE)})
        assert marks is not None
        truth.append((marks.boxes[0].double().numpy(), marks.classes[0].numpy()))
    guesses = [(rows[:, 2:], rows[:, 0], rows[:, 1].astype(np.int64)) for rows in found(method, test)]
    return 100 * float(average_precision(guesses, truth, [0.5])[0])


def measure(seed: int, shuffled: bool = False) -> Pair:
    begun = detector(pseudo_labelled(teacher(seed), seed, shuffled), PRE_TRAIN, seed)
    tuned = detector(Subset(scenes(), LABELLED), FINE_TUNE, seed, begun)
    return Pair(ap50(tuned), ap50(teacher(seed)))


CLAIM = Claim(
    paper="Swin-L H-Deformable-DETR reaches 59.3 AP on COCO, 1.4 more than without, when pre-trained on Objects365 pictures "
    "with boxes that a detector trained on COCO finds; DETReg's pre-training without such a teacher gains nothing there.",
    claim="A detector learns the labels of 60 scenes for 800 steps and finds the 4 best boxes of each of 900 unlabelled scenes; "
    "a fresh one that learns those for 500 steps and then the labels for 300, as many in all, finds more of new scenes than "
    "its teacher. Does not hold: no gain over the teacher was found beyond what seeds differ by, and shuffled boxes did no "
    "worse; 300 steps of labels after 500 of boxes are too few here. DETReg's way and the full-data regime are not measured.",
    data="shapes-boxes: 60 labelled scenes, 900 without labels, 240 to test on",
    metric="AP50 on test scenes, %",
    direction="higher",
    baseline="its teacher: the same detector from scratch, with as many steps in all, on the labels alone",
    least=2.0,
    measure=measure,
    without="the tie of boxes to pictures: those of the teacher are shuffled over the unlabelled scenes",
    ablated=lambda seed: measure(seed, shuffled=True),
)

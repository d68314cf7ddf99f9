"""EfficientAD: who sees the whole finds that something is missing, which no patch tells."""

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from headwater.api.reproduce import Claim, Pair
from headwater.claims.training import recipe, trained
from headwater.core.verbs import Method
from headwater.data import open as open_data
from headwater.data.generated.inspection import KINDS
from headwater.data.loader import Loader
from headwater.data.source import Subset
from headwater.methods.assess.efficientad import EfficientAD

STEPS, BATCH = 120, 8


def nearsighted(method: Method) -> Method:
    """A network of the teacher's form, which sees 33 pixels, in the place of the autoencoder."""
    assert isinstance(method, EfficientAD)
    method.auto = method.teacher.wider(1)  # type: ignore[assignment]
    return method


def measure(seed: int, whole: bool = True) -> Pair:
    good = open_data("good-parts")
    made = recipe("efficientad", good, steps=STEPS, batch_size=BATCH)
    method = trained("efficientad", good, seed, made, (lambda method: method) if whole else nearsighted)
    assert isinstance(method, EfficientAD)
    inspected = open_data("inspected-parts")
    assert inspected.labels is not None
    rows = np.flatnonzero(np.isin(inspected.labels, (KINDS.index("good"), KINDS.index("missing"))))
    test = Subset(inspected, rows)
    found = torch.cat([method.maps(b.x["image"] / 255) for _, b in Loader(test, 60).ordered(range(len(test)))], 1)  # type: ignore[operator]
    wrong = inspected.labels[rows] != KINDS.index("good")
    patch, arrangement = (100 * float(roc_auc_score(wrong, v.flatten(1).amax(1))) for v in found)
    return Pair(arrangement, patch)


CLAIM = Claim(
    paper="EfficientAD finds 99.1 % (AUROC) of MVTec AD's defects and 90.7 % of MVTec LOCO's, many of them logical, in about "
    "2 ms a picture; its autoencoder is what finds logical ones.",
    claim="Of parts from which a disc or a square is missing, where every patch is in order, the map of student and autoencoder "
    "tells more than that of teacher and student. The teacher is untrained; the published figures need scale.",
    data="good-parts and inspected-parts: generated pictures of 64 pixels",
    metric="AUROC of pictures, %",
    direction="higher",
    baseline="the map of teacher and student",
    least=15.0,
    measure=measure,
    without="the view of the whole: a network that sees 33 pixels stands for the autoencoder",
    ablated=lambda seed: measure(seed, whole=False),
)

"""`hw.FeatureExtractor`: an encoder as the first step of a scikit-learn pipeline."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from headwater.api.embed import embed
from headwater.api.encoders import Pretrained, load
from headwater.core.errors import RequestError
from headwater.data import open as open_data


class FeatureExtractor(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The pooled features of an encoder that stays as it is.

    encoder      a run or encoder folder, hf:CHECKPOINT, or what `hw.load` returns
    batch_size   samples per forward pass
    device       auto, cpu, cuda or cuda:N
    workers      threads that decode

    Samples are an array as `hw.open` takes it, [n c h w] for pictures, or a list or array of paths. Every sample gets its
    row: one that cannot be read raises RequestError, as does data of another modality than the encoder's.
    """

    def __init__(self, encoder: Any, batch_size: int = 256, device: str = "auto", workers: int = 2) -> None:
        self.encoder, self.batch_size, self.device, self.workers = encoder, batch_size, device, workers

    def fit(self, X: Any = None, y: Any = None) -> "FeatureExtractor":
        """Loads the encoder; nothing is learned."""
        self.encoder_ = self.encoder if isinstance(self.encoder, Pretrained) else load(self.encoder)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """float32 [n, dim]."""
        if not hasattr(self, "encoder_"):
            self.fit()
        source = open_data(X, modality=self.encoder_.modality)
        made = embed(self.encoder_, source, batch_size=self.batch_size, device=self.device, workers=self.workers)
        if len(made) != len(X):
            raise RequestError(f"{len(X) - len(made)} of {len(X)} samples cannot be read; a pipeline needs them all.")
        return np.asarray(made)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """encoder0, encoder1, ..."""
        if not hasattr(self, "encoder_"):
            self.fit()
        return np.array([f"encoder{i}" for i in range(self.encoder_.encoder.dim)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True  # there is nothing to fit

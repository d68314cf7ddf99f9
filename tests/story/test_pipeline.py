"""An encoder as the first step of scikit-learn's pipelines."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

import headwater as hw
from headwater.core.errors import RequestError


@pytest.fixture(scope="module")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return x[:300].reshape(-1, 1, 8, 8).astype(np.float32), y[:300]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, pictures: tuple[np.ndarray, np.ndarray]) -> Path:
    out = tmp_path_factory.mktemp("runs") / "simclr"
    hw.pretrain("simclr", pictures[0], out=out, steps=10, batch_size=64, device="cpu")
    return out


def test_scikit_learn_searches_and_validates_over_it(run: Path, pictures: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = pictures
    features = hw.FeatureExtractor(run)
    np.testing.assert_array_equal(features.transform(x), hw.embed(run, x))
    assert len(cross_val_score(make_pipeline(features, hw.assess.NaiveBayes()), x, y, cv=3)) == 3
    search = GridSearchCV(make_pipeline(features, hw.assess.KNN()), {"knn__k": [1, 5]}, cv=2).fit(x, y)
    assert search.best_score_ > 0.5
    assert clone(hw.FeatureExtractor(hw.load(run))).fit_transform(x).shape == (300, features.encoder_.dim)
    assert len(features.get_feature_names_out()) == features.encoder_.dim


def test_samples_may_be_paths(run: Path, pictures: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    names = []
    for i in (3, 1, 2):
        at = tmp_path / f"part{i}" / f"{i}.png"
        at.parent.mkdir()
        Image.fromarray((pictures[0][i, 0] * 15).astype(np.uint8)).save(at)
        names.append(str(at))
    told = hw.FeatureExtractor(run).transform(np.array(names))
    for row, name in zip(told, names, strict=True):
        np.testing.assert_allclose(row, hw.FeatureExtractor(run).transform([name])[0], rtol=1e-5, atol=1e-6)
    (tmp_path / "part1" / "1.png").write_bytes(b"no picture")
    with pytest.raises(RequestError, match="1 of 3 samples cannot be read"):
        hw.FeatureExtractor(run).transform(names)
    with pytest.raises(RequestError, match=r"1 of 2 files listed do not exist, such as .*gone\.png"):
        hw.FeatureExtractor(run).transform([names[0], str(tmp_path / "gone.png")])


def test_data_of_another_kind_are_refused(run: Path) -> None:
    with pytest.raises(RequestError, match="image"):
        hw.FeatureExtractor(run).transform(np.zeros((4, 3), np.float32))

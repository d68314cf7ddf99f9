"""CLIMB: mixtures are mixtures, rounds look where the regression points, and a corpus without labels is mixed for its target."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import adjusted_rand_score

from headwater.core.errors import RequestError
from headwater.core.rng import Rng
from headwater.core.verbs import Choice, Known
from headwater.data.curated import counts
from headwater.methods.curate.climb import Climb, boosted, good
from headwater.parts.kmeans import Held, joined
from headwater.parts.mixtures import drawn

SMALL = Climb(rounds=(12, 6, 3), unseen=500, top=40, average=10)


def bowl(mixture: np.ndarray) -> np.ndarray:
    return ((mixture - np.array([0.6, 0.3, 0.1, 0.0])) ** 2).sum(-1)


def test_mixtures_lie_on_the_simplex_about_the_share_of_each_group() -> None:
    share = np.array([0.5, 0.3, 0.15, 0.05])
    made = drawn(share, 20_000, np.random.default_rng(0), widths=(4.0,))
    assert (made >= 0).all() and np.allclose(made.sum(1), 1)
    np.testing.assert_allclose(made.mean(0), share, atol=0.01)
    capped = drawn(share, 2000, np.random.default_rng(0), cap=np.array([1.0, 0.4, 1.0, 0.1]))
    assert len(capped) == 2000 and (capped <= [1, 0.4, 1, 0.1 + 1e-6]).all()
    with pytest.raises(RequestError, match="too small for so many draws"):
        drawn(share, 10, np.random.default_rng(0), cap=np.full(4, 0.2))


def test_rounds_have_their_sizes_and_look_among_the_best_expected() -> None:
    seen: list[np.ndarray] = []
    fits: list[tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]] = []

    def fit(mixtures: np.ndarray, losses: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        np.testing.assert_array_equal(mixtures, np.array(seen))
        np.testing.assert_array_equal(losses, bowl(mixtures))
        fits.append((mixtures, boosted(mixtures, losses)))
        return fits[-1][1]

    def loss(mixture: np.ndarray) -> float:
        seen.append(mixture)
        return float(bowl(mixture))

    ledger = SMALL.search(loss, np.ones(4), Rng(0), fit)
    assert [len(m) for m, _ in fits] == [12, 18, 21] and len(np.unique(ledger.mixtures, axis=0)) == 21
    some = drawn(np.full(4, 0.25), 5000, np.random.default_rng(9))
    for (_, expected), later in zip(fits, (ledger.mixtures[12:18], ledger.mixtures[18:]), strict=False):
        limit = np.quantile(expected(some), 0.2)  # forty of 500 are 8 %
        assert (expected(later) <= limit).all()
    again = SMALL.search(lambda m: float(bowl(m)), np.ones(4), Rng(0))
    np.testing.assert_array_equal(again.best, ledger.best)
    np.testing.assert_array_equal(again.mixtures, ledger.mixtures)
    assert SMALL.search(lambda m: float(bowl(m)), np.ones(4), Rng(1)).best.tolist() != ledger.best.tolist()


def test_an_oracle_finds_the_best_of_the_pool_and_the_regression_is_scikit_learns() -> None:
    one = Climb(rounds=(3,), unseen=4000, average=1)
    ledger = one.search(lambda m: float(bowl(m)), np.ones(4), Rng(0), lambda mixtures, losses: bowl)
    assert bowl(ledger.best) < np.quantile(bowl(drawn(np.full(4, 0.25), 20_000, np.random.default_rng(0))), 0.002)
    many = Climb(rounds=(3,), unseen=4000, average=50).search(lambda m: 0.0, np.ones(4), Rng(0), lambda m, s: bowl)
    assert abs(many.best.sum() - 1) < 1e-9 and bowl(many.best) < 0.01
    x = drawn(np.full(4, 0.25), 30, np.random.default_rng(0))
    theirs = GradientBoostingRegressor(max_depth=3, n_estimators=150, learning_rate=0.05, subsample=0.7, random_state=0)
    np.testing.assert_array_equal(boosted(x, bowl(x))(x), theirs.fit(x, bowl(x)).predict(x))


def test_joining_and_dropping() -> None:
    centres = torch.tensor([[0.0, 0], [1, 0], [5, 0], [5, 1.2], [20, 0]])
    assert joined(centres, nearer=0.0).tolist() == [0, 1, 2, 3, 4]
    assert joined(centres, nearer=1.1).unique().numel() == 4
    assert joined(centres, nearer=1e9).tolist() == [0] * 5
    three = joined(centres, groups=3)
    assert three[0] == three[1] and three[2] == three[3] and three.unique().numel() == 3
    scores = torch.tensor([4.0, 2.0, 1.0, 2.0, float("nan"), 3.0])
    assert good(scores, torch.tensor([0, 0, 1, 1, 1, 3]), 5, 3.0).tolist() == [True, False, False, True, False]


def test_what_scores_low_is_dropped_and_the_rest_keeps_its_number() -> None:
    g = torch.Generator().manual_seed(0)
    kind = torch.arange(5).repeat_interleave(40)
    x = 20 * torch.randn(5, 6, generator=g)[kind] + torch.randn(200, 6, generator=g)
    climb = Climb(clusters=5, groups=2, rounds=(4, 2), unseen=100, top=20, average=5)
    scores = torch.where(kind == 2, 1.0, 4.0)
    made = climb.grouped(Held(x), Rng(0), scores)
    assert (made[kind == 2] == -1).all() and made[kind != 2].unique().tolist() == [0, 1]
    trials: list[Choice] = []

    def trial(choice: Choice) -> float:
        trials.append(choice)
        return choice.mixture[0]

    choice = climb.select(Held(x), 100, Rng(0), Known(torch.full((200,), -1), scores=scores, trial=trial))
    assert len(trials) == 6 and (kind[choice.kept] != 2).all() and len(choice.kept) == 160 and choice.draws == 100
    assert choice.mixture[0] < choice.mixture[1] and sum(choice.mixture.values()) == pytest.approx(1)
    sizes = choice.columns["group"][choice.kept].bincount().numpy()
    assert all(c.mixture[g] * 100 <= 4 * sizes[g] + 1e-6 for c in trials for g in (0, 1))
    with pytest.raises(RequestError, match="nothing is left to mix"):
        climb.grouped(Held(x), Rng(0), torch.ones(200))
    with pytest.raises(RequestError, match="needs data that count"):
        climb.select(Held(x), 100, Rng(0))
    with pytest.raises(RequestError, match="rounds fit in top"):
        Climb(rounds=(4, 300))


def test_a_mixture_is_drawn_as_it_says() -> None:
    group = np.repeat([0, 1, 2], [50, 30, 20])
    times = counts(group, {"0": 0.2, "1": 0.5, "2": 0.3}, 1000, "x")
    assert [times[group == g].sum() for g in range(3)] == [200, 500, 300]
    alone = counts(group, {"0": 0.0, "1": 1.0, "2": 0.0}, 90, "x")
    assert alone[group == 1].tolist() == [3] * 30 and alone.sum() == 90


LETTERS = {c: i for i, c in enumerate("abcdefghijklmnopqrstuvwxyz0123456789+= ,.()[]")}


def write(topic: int, g: np.random.Generator) -> str:
    """A line of sums, of sentences that agree in number, of a list, of brackets, of two kinds of noise."""
    if topic == 0:
        return " ".join(f"{a}+{b}={a + b}" for a, b in g.integers(0, 30, (6, 2)))
    if topic == 1:
        pairs = [
            ("the cat sits", "the cats sit"),
            ("a dog runs", "some dogs run"),
            ("the bird sings", "the birds sing"),
        ]
        return ". ".join(pairs[i][j] for i, j in zip(g.integers(0, 3, 5), g.integers(0, 2, 5), strict=True)) + "."
    if topic == 2:
        return ", ".join(g.choice(["milk", "eggs", "flour", "butter", "jam", "sugar"], 8))
    if topic == 3:
        return "".join(g.choice(["(x)", "[y]", "(f[z])", "[(w)]"], 14))
    letters = list("qzxvkw ") if topic == 4 else list("jpyhgu.]")
    return "".join(g.choice(letters, 50))


def bigram_loss(lines: list[str], held: list[str]) -> float:
    """Bits per letter of a model of pairs of letters, with a tenth added to each count."""
    k = len(LETTERS)
    count = np.full((k, k), 0.1)
    for line in lines:
        at = np.array([LETTERS[c] for c in line])
        np.add.at(count, (at[:-1], at[1:]), 1)
    log = -np.log2(count / count.sum(1, keepdims=True))
    at = [np.array([LETTERS[c] for c in line]) for line in held]
    return float(np.concatenate([log[a[:-1], a[1:]] for a in at]).mean())


def test_a_corpus_without_labels_is_mixed_for_what_counts() -> None:
    g = np.random.default_rng(0)
    topic = np.repeat(np.arange(6), [80, 80, 100, 100, 140, 140])
    corpus = [write(t, g) for t in topic]
    held = [write(t, g) for t in (0, 1) for _ in range(60)]
    words = TfidfVectorizer(analyzer="char", ngram_range=(1, 2)).fit_transform(corpus)
    features = TruncatedSVD(12, random_state=0).fit_transform(words).astype(np.float32)
    climb = Climb(clusters=12, groups=6, rounds=(24, 12, 6), most=20.0)
    group = climb.grouped(Held(torch.from_numpy(features)), Rng(0)).numpy()
    assert adjusted_rand_score(topic, group) >= 0.8
    sizes = np.bincount(group)
    useful = [np.bincount(group[topic == t]).argmax() for t in (0, 1)]
    noise = [np.bincount(group[topic == t]).argmax() for t in (4, 5)]

    def loss(mixture: np.ndarray) -> float:
        times = counts(group, {str(k): v for k, v in enumerate(mixture)}, 20, "x")  # few lines, so that they matter
        return bigram_loss([line for line, n in zip(corpus, times, strict=True) for _ in range(n)], held)

    ledger = climb.search(loss, sizes.astype(float), Rng(0))
    uniform = np.full(6, 1 / 6)
    assert ledger.best[useful].sum() >= 1.5 * uniform[useful].sum()  # a model of pairs has soon seen enough of them
    assert ledger.best[noise].sum() <= 0.5 * uniform[noise].sum()
    assert loss(ledger.best) < min(loss(uniform), loss(sizes / sizes.sum()))
    fresh = drawn(sizes / sizes.sum(), 60, np.random.default_rng(5))
    expected = boosted(ledger.mixtures, ledger.losses)(fresh)
    assert spearmanr(expected, [loss(m) for m in fresh]).statistic >= 0.6
    order = iter(
        np.random.default_rng(1).permutation(ledger.losses)
    )  # losses that belong to other mixtures say nothing
    blind = climb.search(lambda m: float(next(order)), sizes.astype(float), Rng(0))
    assert loss(blind.best) > loss(ledger.best) + 0.1

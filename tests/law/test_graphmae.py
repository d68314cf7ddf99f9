"""GraphMAE: hidden nodes are rebuilt from their neighbours alone; layers equal to torch_geometric's."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headwater.core.errors import RequestError
from headwater.core.types import Batch, Graph
from headwater.methods.reconstruct import graphmae
from headwater.methods.reconstruct.graphmae import scaled_cosine_error
from headwater.parts.graphnet import GAT, GIN
from headwater.parts.masks import RandomMask, where_hidden
from tests.small import batch, graph, some, step, vit

FOURTH = some(batch().x["graph"], [3])
ONE = Graph(FOURTH.values[..., :10], FOURTH.extent, FOURTH.edges)  # all ten of its nodes, and nothing to fill up


def build(layer: str = "gin", **changes: object) -> graphmae.GraphMAE:
    torch.manual_seed(0)
    method = replace(graphmae.TINY, **changes).build({"graph": graph(layer=layer)})
    nn.init.normal_(method.token)
    return method.eval()


def masked(method: graphmae.GraphMAE, x: Graph) -> Tensor:
    """Which nodes the step of the tests hides."""
    real = torch.arange(x.values.shape[2]) < x.extent
    mask = method.config.mask(len(x), (x.values.shape[2],), step().rng, real)
    return where_hidden(mask) & real


def test_the_error_is_one_minus_the_cosine_to_a_power():
    for t in (0.0, 0.4, 1.9, math.pi):
        a, b = torch.tensor([1.0, 0.0]), torch.tensor([math.cos(t), math.sin(t)])
        for power in (1.0, 2.0, 3.0):
            found = float(scaled_cosine_error(b, a, power))
            assert found == pytest.approx((1 - math.cos(t)) ** power, abs=1e-5)
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(5, 7, generator=g), torch.randn(5, 7, generator=g)
    want = scaled_cosine_error(a, b, 2.0)
    torch.testing.assert_close(scaled_cosine_error(30 * a, b, 2.0), want)
    torch.testing.assert_close(scaled_cosine_error(a, 0.01 * b, 2.0), want)
    assert scaled_cosine_error(3 * a, a, 1.0).abs().max() < 1e-6
    half = (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1) / 2
    torch.testing.assert_close(scaled_cosine_error(a, b, 1.0), half)


def test_zeros_cost_one_and_pull_nowhere():
    guess = torch.zeros(2, 3, requires_grad=True)
    error = scaled_cosine_error(guess, torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]), 3.0)
    error.sum().backward()
    assert error.tolist() == [1.0, 1.0] and guess.grad is not None and not guess.grad.any()


@pytest.mark.parametrize(("ratio", "noise"), [(0.5, 0.0), (0.75, 0.3), (0.25, 0.05)])
def test_so_many_nodes_hold_the_token_and_so_many_the_features_of_another(ratio: float, noise: float):
    method = build(mask=RandomMask(ratio=ratio), noise=noise)
    assert ONE.values.shape[2] == int(ONE.extent) == 10
    mask = method.config.mask(1, (10,), step().rng)
    assert mask.drop.shape[1] == int(ratio * 10)
    before = method.target(ONE)[0]
    after = method.target(method.corrupted(ONE, mask, step()))[0]
    hidden = where_hidden(mask)[0]
    assert torch.equal(after[~hidden], before[~hidden])
    token = (after == method.token).all(1)
    assert not token[~hidden].any()
    assert int(token.sum()) == int(hidden.sum()) - int(noise * int(hidden.sum()))
    for row in after[hidden & ~token]:
        assert (row == before).all(1).any()


def test_in_a_batch_nothing_that_is_no_node_is_touched_or_counted():
    method, x = build(), batch().x["graph"]
    real = torch.arange(12) < x.extent
    mask = method.config.mask(8, (12,), step().rng, real)
    seen = method.corrupted(x, mask, step())
    assert not (seen.values * ~real[:, None]).any()
    hidden = where_hidden(mask) & real
    assert hidden.sum(1).tolist() == (x.extent[:, 0] * 6 // 12).tolist()
    token = (method.target(seen) - method.token).abs().amax(2) < 1e-6
    assert (token & real).sum(1).tolist() == [int(h) - int(h) // 4 for h in hidden.sum(1)]
    wild = Graph(torch.where(real[:, None], x.values, 77.0), x.extent, x.edges)
    a, b = (method(Batch({"graph": g}), step()).value for g in (x, wild))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("layer", ["gin", "gat"])
def test_with_no_neighbours_all_hidden_nodes_get_one_answer_whatever_they_were(layer: str):
    method = build(layer)
    nothing = torch.full_like(ONE.edges, -1)
    hidden = masked(method, ONE)
    said = []
    for features in (ONE.values, torch.randn_like(ONE.values)):
        code = method.encoder(Graph(features, ONE.extent, ONE.edges)).tokens
        said.append(method.decode(code, hidden, nothing)[hidden])
        assert not torch.allclose(method.decode(code, hidden & False, nothing)[hidden], said[-1])
    torch.testing.assert_close(said[0], said[0][:1].expand_as(said[0]))
    torch.testing.assert_close(said[0], said[1])


def test_seen_nodes_cost_nothing():
    method, x = build(), batch().x["graph"]
    guesses: list[Tensor] = []

    def keep(_: nn.Module, __: object, out: Tensor) -> None:
        out.retain_grad()
        guesses.append(out)

    method.decoder.register_forward_hook(keep)
    loss = method(Batch({"graph": x}), step()).value
    loss.backward()
    gradient = guesses[0].grad
    hidden = masked(method, x)
    assert not gradient[~hidden].any()
    assert gradient[hidden].any(1).all()
    torch.testing.assert_close(loss, scaled_cosine_error(guesses[0], method.target(x), 2.0)[hidden].mean())


def test_the_encoder_loses_edges_and_the_decoder_none():
    method, x = build(drop_edges=0.5), batch().x["graph"]
    real = torch.arange(12) < x.extent
    mask = method.config.mask(8, (12,), step().rng, real)
    seen = method.corrupted(x, mask, step()).edges
    lost = (seen < 0).all(-1) & (x.edges >= 0).all(-1)
    assert 0.3 < float(lost.sum() / (x.edges >= 0).all(-1).sum()) < 0.7
    assert torch.equal(lost[:, :12], lost[:, 12:])  # the tests' graphs say all edges once in each direction
    given: list[Tensor] = []
    method.decoder.register_forward_pre_hook(lambda _, args: given.append(args[1]))
    method(Batch({"graph": x}), step())
    assert torch.equal(given[0], x.edges)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("layer", ["gin", "gat"])
def test_the_loss_is_what_torch_geometric_makes_of_the_same_weights(layer: str):
    pyg = pytest.importorskip("torch_geometric.nn")
    method = build(layer, noise=0.0, power=2.0)
    for p in method.parameters():
        nn.init.normal_(p, std=0.3)
    layers = [theirs(pyg, each) for each in (*method.encoder.layers, method.decoder)]
    hidden = masked(method, ONE)[0]
    features, edges, encoder = ONE.values[0].T, ONE.edges[0], method.encoder
    edges = edges[edges[:, 0] >= 0].T
    x = torch.where(hidden[:, None], method.token, features)
    place = encoder.tokenizer.places(ONE)[0] / 16
    code = encoder.tokenizer.embed(x) + encoder.tokenizer.structure(place)
    for norm, each in zip(encoder.norms, layers[:-1], strict=True):
        code = code + each(norm(code), edges)
    code = method.bridge(encoder.norm(code))
    guess = layers[-1](torch.where(hidden[:, None], 0.0, code), edges)
    apart = 1 - (F.normalize(guess, dim=1) * F.normalize(features, dim=1)).sum(1)
    torch.testing.assert_close(method(Batch({"graph": ONE}), step()).value, apart[hidden].square().mean())


@torch.no_grad()
def theirs(pyg: object, ours: nn.Module) -> nn.Module:
    """The layer of torch_geometric that computes the same."""
    if isinstance(ours, GIN):
        made = pyg.GINConv(ours.mlp, train_eps=True)
        made.eps.copy_(ours.eps)
        return made
    assert isinstance(ours, GAT)
    heads, width = ours.source.shape
    made = pyg.GATConv(ours.value.in_features, width, heads=heads)
    made.lin.weight.copy_(ours.value.weight)
    made.att_src.copy_(ours.source[None])
    made.att_dst.copy_(ours.target[None])
    made.bias.copy_(ours.bias)
    return made.eval()


def test_features_may_be_aimed_at_as_they_are():
    method = build(standardise=False)
    method.encoder.tokenizer.normalise.set(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 2.0, 9.0]))
    assert torch.equal(method.target(ONE), ONE.values.transpose(1, 2))
    away = replace(method.config, standardise=True).build({"graph": method.encoder})
    want = (ONE.values - torch.tensor([1.0, 2.0, 3.0])[:, None]) / torch.tensor([0.5, 2.0, 9.0])[:, None]
    torch.testing.assert_close(away.target(ONE), want.transpose(1, 2))


def test_it_asks_for_an_encoder_of_graphs():
    with pytest.raises(RequestError, match=r"GraphMAE decodes along edges .* such as --encoder gin-micro"):
        graphmae.TINY.build({"graph": vit()})

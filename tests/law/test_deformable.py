"""The detection decoder: equal to Deformable DETR in transformers, and groups of queries that never see each other."""

import pytest
import torch
from torch import Tensor, nn

from headwater.parts.deformable import DeformableAttention, DeformableBlock, DeformableDecoder, isolated, logit
from headwater.parts.transformer import TransformerConfig

CONFIG = TransformerConfig(dim=16, depth=2, heads=4, mlp_ratio=2.0, activation="relu", eps=1e-5, norm="post")
GRID, POINTS, QUERIES = (3, 5), 3, 6
SHAPES = torch.tensor([GRID])


def theirs(**more: object) -> object:
    transformers = pytest.importorskip("transformers")
    return transformers.DeformableDetrConfig(
        d_model=16,
        decoder_attention_heads=4,
        decoder_ffn_dim=32,
        decoder_n_points=POINTS,
        decoder_layers=2,
        num_feature_levels=1,
        dropout=0.0,
        attn_implementation="eager",
        **more,
    )


def scrambled(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for p in module.parameters():
            p.normal_(std=0.3)
    return module


def copied(ours: DeformableBlock | DeformableAttention, layer: nn.Module) -> None:
    """The weights of theirs, by name."""
    names = {
        "cross.offsets": "encoder_attn.sampling_offsets",
        "cross.weights": "encoder_attn.attention_weights",
        "cross.value": "encoder_attn.value_proj",
        "cross.out": "encoder_attn.output_proj",
        **{f"attention.{n}": f"self_attn.{n[0]}_proj" for n in ("q", "k", "v", "out")},
        "mlp.0": "mlp.fc1",
        "mlp.2": "mlp.fc2",
        "norm1": "self_attn_layer_norm",
        "norm2": "encoder_attn_layer_norm",
        "norm3": "final_layer_norm",
    }
    cut = isinstance(ours, DeformableAttention)
    state = {}
    for mine, other in names.items():
        if not cut or mine.startswith("cross."):
            for kind in ("weight", "bias"):
                found = other.removeprefix("encoder_attn.") if cut else other
                state[f"{mine.removeprefix('cross.') if cut else mine}.{kind}"] = layer.state_dict()[f"{found}.{kind}"]
    ours.load_state_dict(state)


def inputs(r: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    x, place = torch.randn(2, QUERIES, 16), torch.randn(2, QUERIES, 16)
    return x, place, torch.randn(2, GRID[0] * GRID[1], 16), torch.rand(2, QUERIES, r)


@pytest.mark.parametrize("r", [2, 4])
def test_attention_is_that_of_transformers(r: int) -> None:
    from transformers.models.deformable_detr import modeling_deformable_detr as hf

    reference = scrambled(hf.DeformableDetrMultiscaleDeformableAttention(theirs(), 4, POINTS))
    ours = DeformableAttention(16, 4, POINTS)
    copied(ours, reference)
    x, place, memory, at = inputs(r)
    told, _ = reference(
        x,
        encoder_hidden_states=memory,
        position_embeddings=place,
        reference_points=at[:, :, None],
        spatial_shapes=SHAPES,
        spatial_shapes_list=[GRID],
    )
    torch.testing.assert_close(ours(x + place, memory, at, GRID), told, rtol=1e-5, atol=1e-5)


def test_layers_and_the_boxes_they_correct_are_those_of_transformers() -> None:
    from transformers.models.deformable_detr import modeling_deformable_detr as hf

    reference = scrambled(hf.DeformableDetrDecoder(theirs()).eval())
    ours = DeformableDecoder(CONFIG, 16, POINTS, (QUERIES,), 3).eval()
    for block, layer in zip(ours.blocks, reference.layers, strict=True):
        copied(block, layer)
    scrambled(ours.correct)
    reference.bbox_embed = ours.correct
    _, _, memory, _ = inputs(2)
    place, x = ours.queries.expand(2, -1, -1).chunk(2, -1)
    with torch.inference_mode():
        found = ours(memory, GRID)
        told = reference(
            inputs_embeds=x,
            encoder_hidden_states=ours.narrow(memory),
            object_queries_position_embeddings=place,
            reference_points=ours.point(place).sigmoid(),
            spatial_shapes=SHAPES,
            spatial_shapes_list=[GRID],
            valid_ratios=torch.ones(2, 1, 2),
        )
    torch.testing.assert_close(found.queries, told.last_hidden_state, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.boxes, told.intermediate_reference_points.transpose(0, 1), rtol=1e-5, atol=1e-5)


def test_a_head_reads_the_token_at_its_place() -> None:
    """Without offsets: a reference in the middle of a token reads that token alone."""
    attention = DeformableAttention(16, 4, POINTS)
    with torch.no_grad():
        attention.offsets.bias.zero_()
    x, memory = torch.randn(1, 1, 16), torch.randn(1, 15, 16)
    at = torch.tensor([[[(3 + 0.5) / 5, (1 + 0.5) / 3]]])
    said = attention(x, memory, at, GRID)
    torch.testing.assert_close(said[0, 0], attention.out(attention.value(memory[0, 1 * 5 + 3])), rtol=1e-5, atol=1e-5)


def test_groups_of_queries_never_see_each_other() -> None:
    torch.manual_seed(0)
    decoder = DeformableDecoder(CONFIG, 16, POINTS, (4, 5), 3)
    scrambled(decoder.blocks)
    memory = torch.randn(2, 15, 16)
    with torch.no_grad():
        before, alone = decoder(memory, GRID).split(4), decoder(memory, GRID, 1)
        decoder.queries[4:] += 1
        after = decoder(memory, GRID).split(4)
    for name in ("logits", "boxes", "queries"):
        assert torch.equal(getattr(before[0], name), getattr(after[0], name))
        assert not torch.allclose(getattr(before[1], name), getattr(after[1], name))
        torch.testing.assert_close(getattr(before[0], name), getattr(alone, name), rtol=1e-5, atol=1e-6)
    assert isolated((2, 1), memory.device).int().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]


def test_no_gradient_flows_through_the_box_that_a_layer_corrects() -> None:
    decoder = DeformableDecoder(CONFIG, 16, POINTS, (4,), 3)
    found = decoder(torch.randn(1, 15, 16), GRID)
    found.boxes[1].sum().backward()
    assert decoder.correct[1][-1].bias.grad.any() and not decoder.correct[0][-1].bias.grad.any()


def test_logit_is_the_inverse_of_the_sigmoid() -> None:
    x = torch.linspace(-8, 8, 9)
    torch.testing.assert_close(logit(x.sigmoid()), x, rtol=1e-4, atol=1e-4)
    assert logit(torch.tensor([0.0, 1.0])).isfinite().all()

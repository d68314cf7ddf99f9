"""DINOv2: one large crop per sample is masked, targets come from whole crops, and the sum by hand."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from headwater.core.rng import Rng
from headwater.core.types import Step
from headwater.methods.distill import dinov2
from headwater.parts.masks import where_hidden
from headwater.parts.schedules import Cosine
from headwater.parts.views import Crop, MultiCrop
from tests.small import batch, step, vit

VIEWS = MultiCrop(Crop(16), Crop(8), n_large=2, n_small=2)


def build(**changes: object) -> dinov2.DINOv2:
    torch.manual_seed(0)
    method = replace(dinov2.TINY, views=VIEWS, **changes).build({"image": vit()})
    for p in (*method.teacher.parameters(), *method.teacher_heads.parameters()):
        torch.nn.init.normal_(p, std=0.2)  # a teacher that is not the student
    return method


def hidden_of(method: dinov2.DINOv2, seed: int = 2) -> torch.Tensor:
    """What the student's large crops hide: [crop, sample, patch]."""
    caught = []
    hook = method.encoder.register_forward_pre_hook(
        lambda _, args, named: caught.append(named.get("hidden")), with_kwargs=True
    )
    method(batch(), step(seed))
    hook.remove()
    assert [c is None for c in caught] == [False, True]  # large crops, then small ones, which hide nothing
    return caught[0].view(2, 8, 16)


def test_exactly_one_large_crop_of_a_sample_is_masked_and_either_may_be():
    method = build()
    first, ratios = 0, []
    for seed in range(12):
        hidden = hidden_of(method, seed)
        assert (hidden.any(2).sum(0) == 1).all()
        counts = hidden.sum((0, 2))
        assert len(torch.unique(counts)) == 1
        first += int(hidden[0].any(1).sum())
        ratios.append(int(counts[0]) / 16)
    assert 30 <= first <= 66  # of 96
    assert 1 / 16 <= min(ratios) < max(ratios) <= 0.6
    assert len(set(ratios)) > 2


def test_the_teacher_sees_large_crops_whole():
    method = build()
    caught = []
    method.teacher.copy.register_forward_pre_hook(
        lambda _, args, named: caught.append((args[0].shape, named)), with_kwargs=True
    )
    method(batch(), step())
    assert caught == [((16, 3, 16, 16), {})]


def balanced(scores: torch.Tensor, heat: float) -> torch.Tensor:
    """Sinkhorn-Knopp as the paper of SwAV writes it, in plain numbers."""
    q = (scores.double() / heat).exp()
    for _ in range(3):
        q = q / q.sum(0, keepdim=True)
        q = q / q.sum(1, keepdim=True)
    return q.float()


def test_the_loss_is_the_sum_of_its_parts_by_hand():
    method = build(patch_weight=0.7, koleo_weight=0.3, head_norm=False)  # so that rows can be judged one by one
    rng = step().rng
    views = VIEWS(batch().x["image"], rng)
    which = rng.randint(2, 8)
    flags = where_hidden(method.config.mask(8, (4, 4), rng))
    hidden = torch.stack([flags & (which == crop)[:, None] for crop in range(2)])

    heat, teacher, heads = 0.07, method.teacher.copy, method.teacher_heads.copy
    told = [teacher(v) for v in views[:2]]
    target = balanced(torch.cat([heads.sample(t.pooled) for t in told]), heat).chunk(2)
    seen = [method.encoder(v, hidden=h, stand_in=method.mask_token) for v, h in zip(views[:2], hidden, strict=True)]
    pooled = [f.pooled for f in seen] + [method.encoder(v).pooled for v in views[2:]]
    q = [torch.softmax(method.heads.sample(z) / 0.1, -1) for z in pooled]
    dino = [-(target[i] * q[j].log()).sum(-1).mean() for i in range(2) for j in range(4) if i != j]

    places = [(int(which[i]), i, int(n)) for i in range(8) for n in flags[i].nonzero()]
    said = torch.stack([heads.patch(told[c].tokens[i : i + 1, n : n + 1])[0, 0] for c, i, n in places])
    guess = torch.stack([method.heads.patch(seen[c].tokens[i : i + 1, n : n + 1])[0, 0] for c, i, n in places])
    error = -(balanced(said, heat) * torch.log_softmax(guess / 0.1, -1)).sum(-1)
    ibot = error.sum() / flags[0].sum() / 16  # per crop the mean of its hidden patches; over all 16 crops

    spread = 0.0
    for crop in seen:
        unit = F.normalize(crop.pooled, dim=1)
        for i in range(8):
            nearest = min((unit[i] - unit[j]).norm() for j in range(8) if j != i)
            spread = spread - nearest.log() / 8

    out = method(batch(), step())
    torch.testing.assert_close(out.metrics["dino"], torch.stack(dino).mean().detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.metrics["ibot"], ibot.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.metrics["koleo"], spread.detach(), rtol=1e-4, atol=1e-4)
    want = torch.stack(dino).mean() + 0.7 * ibot + 0.3 * spread
    torch.testing.assert_close(out.value, want, rtol=1e-4, atol=1e-4)


def test_a_hidden_patch_is_not_read_where_it_is_hidden():
    method = build()
    x, hidden = batch().x["image"], torch.zeros(8, 16, dtype=torch.bool)
    hidden[:, [1, 6]] = True
    tokenizer = method.encoder.tokenizer
    patches = tokenizer.patches(x)
    other = tokenizer.unpatch(torch.where(hidden[..., None], 1 - patches, patches), (4, 4))
    a, b = (method.encoder(v, hidden=hidden, stand_in=method.mask_token).tokens for v in (x, other))
    torch.testing.assert_close(a, b)


def test_one_head_may_serve_both():
    method = build(shared_head=True)
    method(batch(), step()).value.backward()
    assert method.heads.patch is None
    assert method.teacher_heads.copy.patch is None
    assert sum("prototypes" in n for n, p in method.named_parameters() if p.requires_grad) == 1
    assert method.heads.sample.prototypes.grad.any()


def test_prototypes_stand_still_at_first_and_teachers_follow():
    method = build(freeze=0.1, momentum=Cosine(0.9, 1.0))
    method(batch(), step(progress=0.05)).value.backward()
    for head in (method.heads.sample, method.heads.patch):
        assert (head.prototypes.grad == 0).all()
        assert head.body[0].weight.grad.any()
    slow, fast = method.teacher_heads.copy.patch.body[0].weight.clone(), method.heads.patch.body[0].weight.detach()
    method.after_step(Step(Rng(0), 0.5), {})
    torch.testing.assert_close(method.teacher_heads.copy.patch.body[0].weight, 0.95 * slow + 0.05 * fast)
    assert method.encoders() == {"image": method.teacher.copy}

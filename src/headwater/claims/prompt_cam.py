"""Prompt-CAM: the prompt of a class looks at what makes the class, more than another's does or the frozen network itself."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from headwater.api.reproduce import Claim, Pair
from headwater.methods.adapt.prompt_cam import Config
from headwater.parts.encoders import TokenEncoder, TokenEncoderConfig
from headwater.parts.frozen import looked_at
from headwater.parts.tokens import GridTokenizerConfig
from headwater.parts.transformer import TransformerConfig

STEPS, ASKED = 300, 200  # of the network, and of its prompts
KINDS, CLASSES, NOTHING = 8, 4, 9  # the pattern after the kinds is common to all pictures


def pictures(kinds: Tensor, patterns: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise [n 1 32 32] with the patterns `kinds` [n m] in it, each in a patch of its own, and which patches those are."""
    n, m = kinds.shape
    x = 0.35 * torch.randn(n, 64, 1, 4, 4, generator=g)
    at = torch.rand(n, 64, generator=g).argsort(1)[:, :m]
    x.scatter_add_(1, at[:, :, None, None, None].expand(-1, -1, 1, 4, 4), patterns[kinds])
    return x.view(n, 8, 8, 1, 4, 4).permute(0, 3, 1, 4, 2, 5).reshape(n, 1, 32, 32), at


def batch(n: int, classes: int, patterns: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures of one of so many classes, with the common pattern elsewhere: the class, the kinds, and where they are."""
    y = torch.randint(classes, (n,), generator=g)
    kinds = torch.stack([y, torch.full_like(y, KINDS)], 1)
    return *pictures(kinds, patterns, g), kinds, y


def network(patterns: Tensor, g: torch.Generator) -> TokenEncoder:
    """Has learned which of all patterns each patch shows, if any."""
    tokenizer = GridTokenizerConfig(modality="image", channels=1, patch=(4, 4))
    base = TokenEncoderConfig(tokenizer=tokenizer, trunk=TransformerConfig(dim=32, depth=2, heads=4)).build()
    head, weight = nn.Linear(32, NOTHING + 1), torch.ones(NOTHING + 1)
    weight[NOTHING] = 0.1
    taught = torch.optim.Adam([*base.parameters(), *head.parameters()], lr=2e-3)
    for _ in range(STEPS):
        x, at, kinds, _ = batch(64, KINDS, patterns, g)
        there = torch.full((64, 64), NOTHING).scatter(1, at, kinds)
        taught.zero_grad()
        F.cross_entropy(head(base(x).tokens).flatten(0, 1), there.flatten(), weight=weight).backward()  # type: ignore[no-untyped-call]
        taught.step()
    return base.eval()


def measure(seed: int, learns: bool = True) -> Pair:
    g = torch.Generator().manual_seed(seed)
    patterns = (torch.rand(KINDS + 1, 1, 4, 4, generator=g) < 0.5).float() * 2 - 1
    torch.manual_seed(seed)
    asked = Config(classes=CLASSES).build().adapt(network(patterns, g))
    asked.new.prompts.requires_grad_(learns)
    taught = torch.optim.Adam([p for p in asked.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(ASKED):
        x, _, _, y = batch(64, CLASSES, patterns, g)
        taught.zero_grad()
        F.cross_entropy(asked(x).pooled, y).backward()  # type: ignore[no-untyped-call]
        taught.step()
    x, at, _, y = batch(500, CLASSES, patterns, g)
    asked.eval()
    with torch.no_grad():
        maps, base = asked.maps(x).mean(2), looked_at(asked.base.trace(x)[-1], 0, None)
    own = maps[torch.arange(len(y)), y]
    return Pair(*(100 * float((m.argmax(1) == at[:, 0]).float().mean()) for m in (own, base)))


CLAIM = Claim(
    paper="Prompts of a frozen ViT point to the traits that tell apart birds, cars and dogs (CUB with DINO: 73.2 %).",
    claim="The attention of a class's prompt is highest on the patch that makes the class, in noise with a pattern that all "
    "classes share, far oftener than the frozen network's own. Weaker than the paper: patterns instead of traits; a network that "
    "learned patterns patch by patch (one with a class token lets prompts read that instead); prompts of other classes look at "
    "that patch as well, to score low; and a scorer for each class points as well as the shared one.",
    data="generated: patterns of 4 × 4 pixels in noise",
    metric="pictures in which the highest attention lies on the patch of the class, %",
    direction="higher",
    baseline="the mean attention of the frozen network's last block",
    least=10.0,
    measure=measure,
    without="the learning of the prompts: only the scorer learns",
    ablated=lambda seed: measure(seed, learns=False),
)

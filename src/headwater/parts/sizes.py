"""The sizes of encoders by name. micro and nano are for small data; the rest are those of the papers."""

from typing import Literal

# width, depth, heads (Dosovitskiy et al., 2020; Touvron et al., 2021; micro and nano are for 8 to 64 pixels)
VIT = {
    "vit-micro": (96, 4, 3),
    "vit-nano": (128, 6, 4),
    "vit-tiny": (192, 12, 3),
    "vit-small": (384, 12, 6),
    "vit-base": (768, 12, 12),
    "vit-large": (1024, 24, 16),
    "vit-huge": (1280, 32, 16),
}
NOPE = {name.replace("vit", "nope"): size for name, size in VIT.items()}  # the same, with no positions (MP3, 2022)
# width, depth, heads (Pai et al., 2024, from tiny on)
CRATE = {
    "crate-micro": (96, 4, 3),
    "crate-nano": (128, 6, 4),
    "crate-tiny": (384, 12, 6),
    "crate-small": (576, 12, 12),
    "crate-base": (768, 12, 12),
    "crate-large": (1024, 24, 16),
}
# width, depth, heads (Peebles and Xie, 2022, from small on)
DIT = {
    "dit-micro": (96, 4, 3),
    "dit-nano": (128, 6, 4),
    "dit-small": (384, 12, 6),
    "dit-base": (768, 12, 12),
    "dit-large": (1024, 24, 16),
}
# width, depth, heads: post-norm, with a regularisation token (Thimonier et al., 2024)
TJEPA = {"tjepa-micro": (64, 4, 8)}
# widths, depths, stem stride
RESNET = {
    "resnet-micro": ((16, 32, 64), (1, 1, 1), 1),
    "resnet-nano": ((32, 64, 128), (1, 1, 1), 1),
    "resnet-18": ((64, 128, 256, 512), (2, 2, 2, 2), 2),
    "resnet-34": ((64, 128, 256, 512), (3, 4, 6, 3), 2),
    "resnet-50": ((256, 512, 1024, 2048), (3, 4, 6, 3), 2),
    "resnet-101": ((256, 512, 1024, 2048), (3, 4, 23, 3), 2),
    "resnet-152": ((256, 512, 1024, 2048), (3, 8, 36, 3), 2),
}
BOTTLENECK = ("resnet-50", "resnet-101", "resnet-152")
CONVNEXT = {
    "convnext-nano": ((64, 128, 256), (2, 2, 4), 2),
    "convnext-tiny": ((96, 192, 384, 768), (3, 3, 9, 3), 4),
    "convnext-small": ((96, 192, 384, 768), (3, 3, 27, 3), 4),
    "convnext-base": ((128, 256, 512, 1024), (3, 3, 27, 3), 4),
}
# widths, width that comes out, deep, padded (Batzner et al., 2023, from small on)
PDN = {
    "pdn-micro": ((16, 32), 48, False, True),
    "pdn-nano": ((32, 64), 96, False, True),
    "pdn-small": ((128, 256), 384, False, False),
    "pdn-medium": ((256, 512), 384, True, False),
}
# width, depths, heads, window, version (Liu et al., 2021 and 2022)
SWIN: dict[str, tuple[int, tuple[int, ...], tuple[int, ...], int, Literal[1, 2]]] = {
    "swin-micro": (48, (2, 2), (2, 4), 4, 1),
    "swin-tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24), 7, 1),
    "swin-small": (96, (2, 2, 18, 2), (3, 6, 12, 24), 7, 1),
    "swin-base": (128, (2, 2, 18, 2), (4, 8, 16, 32), 7, 1),
    "swin-large": (192, (2, 2, 18, 2), (6, 12, 24, 48), 7, 1),
    "swinv2-tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24), 8, 2),
    "swinv2-small": (96, (2, 2, 18, 2), (3, 6, 12, 24), 8, 2),
    "swinv2-base": (128, (2, 2, 18, 2), (4, 8, 16, 32), 8, 2),
}
# width, depth
MIXER = {"mixer-micro": (64, 4), "mixer-nano": (128, 6)}
# width, blocks of a level, levels, patch, dropout (Ekambaram et al., 2024, for tiny)
TTM = {"ttm-micro": (32, 2, 3, 8, 0.0), "ttm-tiny": (192, 2, 3, 64, 0.2)}
PERCEPTRON = {"mlp-micro": (128, 3), "mlp-nano": (256, 4)}
# width, depth, heads (Gulati et al., 2020, from small on)
CONFORMER = {
    "conformer-micro": (96, 4, 4),
    "conformer-tiny": (144, 8, 4),
    "conformer-small": (144, 16, 4),
    "conformer-medium": (256, 16, 4),
    "conformer-large": (512, 17, 8),
}
# width, depth, heads, channels of the convolutions over the wave, tokens that tell a place (Baevski et al., 2020)
WAV2VEC2 = {
    "wav2vec2-micro": (96, 4, 3, 64, 32),
    "wav2vec2-base": (768, 12, 12, 512, 128),
    "wav2vec2-large": (1024, 24, 16, 512, 128),
}
# width, depth, heads, width of a head, width of the MLP (version 1.1 of T5 from small on)
T5 = {
    "t5-micro": (96, 4, 3, 32, 256),
    "t5-nano": (128, 6, 4, 32, 344),
    "t5-small": (512, 8, 6, 64, 1024),
    "t5-base": (768, 12, 12, 64, 2048),
    "t5-large": (1024, 24, 16, 64, 2816),
}
GRAPHNET = {"gin-micro": (96, 4), "gin-nano": (192, 5), "gat-micro": (96, 3), "gat-nano": (192, 4)}

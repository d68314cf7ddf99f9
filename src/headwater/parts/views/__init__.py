"""Views: batched random changes that keep what a sample is. No weights, no state; each is its own configuration."""

from headwater.parts.views.audio import BandStop, Delay, Loudness, Playback
from headwater.parts.views.block import BoxCrop, EveryFrame
from headwater.parts.views.colour import Blur, Colour, Grey, Noise, Solarise
from headwater.parts.views.compose import Chain, MultiCrop, Retouch, View, Views
from headwater.parts.views.image import Affine, CentreCrop, Crop, Elastic, Flip, Resize, rotations
from headwater.parts.views.joint import JointCrop, JointFlip, JointResize, JointScale, JointView
from headwater.parts.views.missing import DropModality
from headwater.parts.views.recipes import byol_views, dino_views, grey_view, simclr_view
from headwater.parts.views.series import Corrupt, DropChannels, Jitter, Scale, Shift, Warp, Window
from headwater.parts.views.text import Excerpt

__all__ = [
    "Affine",
    "BandStop",
    "Blur",
    "BoxCrop",
    "CentreCrop",
    "Chain",
    "Colour",
    "Corrupt",
    "Crop",
    "Delay",
    "DropChannels",
    "DropModality",
    "Elastic",
    "EveryFrame",
    "Excerpt",
    "Flip",
    "Grey",
    "Jitter",
    "JointCrop",
    "JointFlip",
    "JointResize",
    "JointScale",
    "JointView",
    "Loudness",
    "MultiCrop",
    "Noise",
    "Playback",
    "Resize",
    "Retouch",
    "Scale",
    "Shift",
    "Solarise",
    "View",
    "Views",
    "Warp",
    "Window",
    "byol_views",
    "dino_views",
    "grey_view",
    "rotations",
    "simclr_view",
]

"""What a config.json leaves unsaid where it is as `transformers` has it: the towers of CLIP and SigLIP are often saved so."""

from collections.abc import Mapping
from typing import Any

_WIDE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_PATCHED = {"num_channels": 3, "image_size": 224, "patch_size": 16}
_CLIP = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_SIGLIP = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "clip_vision_model": {**_WIDE, **_CLIP, "num_channels": 3, "image_size": 224, "patch_size": 32},
    "siglip_vision_model": {**_WIDE, **_SIGLIP, "num_channels": 3, "image_size": 224, "patch_size": 16},
    "clip_text_model": {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        **_CLIP,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "eos_token_id": 49407,
    },
    "siglip_text_model": {
        **_WIDE,
        **_SIGLIP,
        "vocab_size": 32000,
        "max_position_embeddings": 64,
        "pad_token_id": 1,
        "eos_token_id": 49407,
        "projection_size": None,
    },
    "beit": {
        **_WIDE,
        **_PATCHED,
        "layer_norm_eps": 1e-12,
        "use_absolute_position_embeddings": False,
        "use_relative_position_bias": False,
        "use_shared_relative_position_bias": False,
        "layer_scale_init_value": 0.1,
        "use_mean_pooling": True,
    },
    "dinov3_vit": {
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        **_PATCHED,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "query_bias": True,
        "key_bias": False,
        "value_bias": True,
        "layerscale_value": 1.0,
        "use_gated_mlp": False,
        "num_register_tokens": 0,
    },
    "videomae": {
        **_WIDE,
        **_PATCHED,
        "layer_norm_eps": 1e-12,
        "num_frames": 16,
        "tubelet_size": 2,
        "use_mean_pooling": True,
    },
    "mt5": {"feed_forward_proj": "gated-gelu"},
}

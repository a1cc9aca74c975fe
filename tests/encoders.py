"""Small self-supervised encoders with random weights, written in Hugging Face's format."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ser_lightning.encoder_files import architecture_of

LAYERS, WIDTH = 3, 16
_CONFIG = {
    "feat_extract_norm": "group",
    "conv_dim": [8, 8, 8],
    "conv_kernel": [10, 8, 4],
    "conv_stride": [5, 8, 8],
    "conv_bias": False,
    "hidden_size": WIDTH,
    "feat_proj_dropout": 0.1,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_buckets": 320,
    "max_bucket_distance": 800,
    "attention_dropout": 0.1,
    "intermediate_size": 16,
    "activation_dropout": 0.0,
    "hidden_dropout": 0.1,
    "do_stable_layer_norm": False,
    "layerdrop": 0.05,
}


def write_encoder(folder: Path, family: str = "wavlm", seed: int = 0, **config: object) -> Path:
    """Write an encoder with hop 320, as those of full size, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": family, **_CONFIG, **config}))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = architecture_of(str(folder)).build().state_dict()
    named = {"masked_spec_embed": torch.zeros(WIDTH), "lm_head.weight": torch.zeros(2, WIDTH)}
    for name, value in state.items():
        name = name.replace("encoder.transformer.", "encoder.").replace("encoder.feature_proj", "feature_proj")
        if ".attention.attention.in_proj_" in name:  # torch's, of WavLM, joins the three projections
            layer, kind = name.split(".attention.attention.in_proj_")
            for part, third in zip("qkv", value.chunk(3), strict=True):
                named[f"{family}.{layer}.attention.{part}_proj.{kind}"] = third.contiguous()
        else:
            named[f"{family}.{name.replace('attention.attention.', 'attention.')}"] = value.contiguous()
    save_file(named, folder / "model.safetensors")
    return folder

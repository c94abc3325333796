"""CLIP's weights under the names that different libraries give them, brought to open_clip's.

The same network is stored by OpenAI (open_clip's names and three numbers that are no weights), by open_clip (two forms:
text tower at the top, or under ``text.``), and by Hugging Face's ``transformers`` (``CLIPModel``: separate query, key
and value, projections transposed).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

OPENAI_NUMBERS = ("input_resolution", "context_length", "vocab_size")
TEXT_TOWER = ("positional_embedding", "text_projection", "token_embedding.", "transformer.", "ln_final.")
"""How the names of the text tower begin where it stands at the top."""
NO_WEIGHTS = ("position_ids", "attn_mask")
"""Last parts of names of buffers that some versions store and that follow from the architecture."""
LAYER = re.compile(r"(vision_model|text_model)\.encoder\.layers\.(\d+)\.(.+)")
LAYER_PARTS = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
HUGGINGFACE = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.pre_layernorm.weight": "visual.ln_pre.weight",
    "vision_model.pre_layernorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "logit_scale": "logit_scale",
}
TRANSPOSED = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}


def to_open_clip(tensors: Mapping[str, Tensor], network: nn.Module) -> tuple[dict[str, Tensor], str]:
    """Tensors under the names of ``network``, and the layout that was found.

    Args:
        tensors: as a file holds them, any of the layouts above.
        network: open_clip's network, of either of its forms.
    """
    layout = "open_clip"
    if any(k.startswith(("vision_model.", "text_model.")) for k in tensors):
        layout, found = "Hugging Face", _from_huggingface(tensors)
    else:
        if any(k in tensors for k in OPENAI_NUMBERS):
            layout = "OpenAI"
        found = {k: v for k, v in tensors.items() if k not in OPENAI_NUMBERS}
    found = {k: v for k, v in found.items() if k.rsplit(".", 1)[-1] not in NO_WEIGHTS}
    wanted = network.state_dict()
    if "text.positional_embedding" in wanted or "text.token_embedding.weight" in wanted:
        found = {f"text.{k}" if k.startswith(TEXT_TOWER) else k: v for k, v in found.items()}
    elif "token_embedding.weight" in wanted:
        found = {k.removeprefix("text."): v for k, v in found.items()}
    for name in ("logit_scale", "logit_bias"):  # some store one number, some a vector of one
        if name in found and name in wanted and found[name].numel() == wanted[name].numel():
            found[name] = found[name].reshape(wanted[name].shape)
    return found, layout


def _from_huggingface(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name in TRANSPOSED:
            found[TRANSPOSED[name]] = tensor.T.contiguous()
        elif match := LAYER.fullmatch(name):
            tower, number, part = match.groups()
            block = f"{'visual.' if tower == 'vision_model' else ''}transformer.resblocks.{number}."
            part, kind = part.rsplit(".", 1)
            if part in LAYER_PARTS:
                found[f"{block}{LAYER_PARTS[part]}.{kind}"] = tensor
            else:
                thirds.setdefault(f"{block}attn.in_proj_{kind}", {})[part] = tensor
        else:
            found[HUGGINGFACE.get(name, name)] = tensor
    for name, parts in thirds.items():
        q_k_v = [parts.get(f"self_attn.{x}_proj") for x in "qkv"]
        if all(x is not None for x in q_k_v):
            found[name] = torch.cat(q_k_v)
    return found

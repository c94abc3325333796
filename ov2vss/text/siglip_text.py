"""SigLIP's text tower, and the tokenizer that is published beside its weights."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import open_clip
import torch.nn.functional as F
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from tokenizers import Regex, Tokenizer
from tokenizers.normalizers import Lowercase, Replace, Sequence, Strip
from torch import Tensor, nn

from ov2vss.clip_source import ClipSource
from ov2vss.errors import OV2VSSError
from ov2vss.text.text_encoder import TextEncoder
from ov2vss.weights_file import fetching

FILES = ("tokenizer.json", "tokenizer_config.json")


def find_tokenizer(model: str, source: ClipSource) -> Path:
    """Folder with :data:`FILES` for open_clip's ``model``: where the weights lie, the local hub cache, or the hub.

    Raises:
        OV2VSSError: they are in none of these places, or the words of this model are not read by such a tower.
    """
    text = (open_clip.get_model_config(model) or {}).get("text_cfg", {})
    if text.get("hf_model_name"):
        raise OV2VSSError(f"the words of {model} are read by {text['hf_model_name']}", "choose ViT-B-16-SigLIP")
    repository = str(text.get("hf_tokenizer_name") or "")
    if source.weights:
        place = Path(source.weights)
        folder = place if place.is_dir() else place.parent
        if all((folder / name).is_file() for name in FILES):
            return folder
    cached = [try_to_load_from_cache(repository, name) for name in FILES] if repository else []
    if cached and all(isinstance(file, str) for file in cached):
        return Path(str(cached[0])).parent
    remedy = f"put {' and '.join(FILES)} beside the weights and name their folder with --clip-weights"
    if source.download and repository:
        with fetching(f"the tokenizer of {model} (hub repository {repository})", remedy):
            fetched = [Path(hf_hub_download(repository, name)) for name in FILES]
        return fetched[0].parent
    raise OV2VSSError(
        f"the tokenizer of {model} is not on this machine (hub repository {repository})", f"{remedy}, or --download"
    )


def siglip_tokenizer(folder: Path, context_length: int) -> Tokenizer:
    """The published tokenizer behind SigLIP's cleaning of texts: no punctuation, small letters, single spaces.

    Every text is padded to the whole context: the tower was trained to read its last place.

    Raises:
        OV2VSSError: the files are none that ``tokenizers`` reads, or name no padding.
    """
    file = folder / FILES[0]
    try:
        tokenizer = Tokenizer.from_file(str(file))
        padding = _content(json.loads((folder / FILES[1]).read_text(encoding="utf-8"))["pad_token"])
    except Exception as error:  # tokenizers raises Exception itself
        raise OV2VSSError(
            f"the tokenizer in {folder} cannot be read ({error})", "give the model's published files"
        ) from None
    number = tokenizer.token_to_id(padding)
    if number is None:
        raise OV2VSSError(f"{file} has no token {padding!r} to pad with", "give the model's published files")
    punctuation = "[" + "".join(f"\\{c}" for c in string.punctuation if c != "_") + "]"
    clean = [Replace("_", " "), Replace(Regex(punctuation), ""), Lowercase(), Replace(Regex(r"\s+"), " "), Strip()]
    tokenizer.normalizer = Sequence([*clean, *([tokenizer.normalizer] if tokenizer.normalizer else [])])
    tokenizer.enable_truncation(context_length)
    tokenizer.enable_padding(length=context_length, pad_id=number, pad_token=padding)
    return tokenizer


def _content(token: Any) -> str:
    """A special token is a text, or an object that holds it."""
    return str(token["content"] if isinstance(token, dict) else token)


class SiglipText(TextEncoder):
    """The text tower of a SigLIP network, frozen. Texts are as long as the context, always.

    Args:
        network: open_clip's.
        folder: with the tokenizer (:func:`find_tokenizer`).

    Raises:
        OV2VSSError: another kind of text tower, or another tokenizer than its own.
    """

    name = "siglip"

    def __init__(self, network: nn.Module, folder: Path) -> None:
        super().__init__()
        text = network.text
        both_ways = getattr(text, "pool_type", "") == "last" and text.attn_mask is None and not text.use_pad_mask
        if not both_ways or text.cls_emb is not None or not isinstance(text.text_projection, nn.Linear):
            raise OV2VSSError("this text tower is not SigLIP's", "choose a model of open_clip such as ViT-B-16-SigLIP")
        self.token_embedding = text.token_embedding
        self.positional_embedding = text.positional_embedding
        self.transformer = text.transformer
        self.ln_final = text.ln_final
        self.text_projection = text.text_projection
        self.context_length = text.context_length
        self.tokenizer = siglip_tokenizer(folder, self.context_length)
        filling = self.tokenizer.padding
        assert filling is not None  # siglip_tokenizer has set it
        self.padding = int(filling["pad_id"])
        known, places = self.tokenizer.get_vocab_size(), self.token_embedding.num_embeddings
        if known > places:
            raise OV2VSSError(
                f"the tokenizer in {folder} has {known} tokens, and the text tower has {places}",
                "give the model's published files",
            )

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        # Padding takes part like any word: whatever number it came with, it is the trained one.
        tokens = tokens * attention_mask + self.padding * (1 - attention_mask)
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x = self.ln_final(self.transformer(x)[:, -1])
        return F.normalize(self.text_projection(x), dim=-1)

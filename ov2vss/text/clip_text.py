"""CLIP's text tower and its tokenizer."""

from __future__ import annotations

import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import NFC, Lowercase, Replace, Sequence, Strip
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreSequence
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from ov2vss.errors import OV2VSSError
from ov2vss.text.text_encoder import TextEncoder

START, END = "<start_of_text>", "<end_of_text>"
PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
LIGATURES = {
    **{"Ĳ": "IJ", "ĳ": "ij", "ŉ": "ʼn", "Ǳ": "DZ", "ǲ": "Dz", "ǳ": "dz", "Ǆ": "DŽ", "ǅ": "Dž", "ǆ": "dž"},
    **{"Ǉ": "LJ", "ǈ": "Lj", "ǉ": "lj", "Ǌ": "NJ", "ǋ": "Nj", "ǌ": "nj"},
    **{"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"},
}
FULL_WIDTH = range(0xFF01, 0xFF5F)
"""Full-width forms of ``!`` to ``~``."""


def clip_tokenizer(context_length: int) -> Tokenizer:
    """CLIP's byte-pair tokenizer for the ``tokenizers`` library, from the merges that open_clip carries.

    It pads with id 0 to the longest prompt of a batch and truncates to ``context_length`` with the end token kept.
    """
    original = SimpleTokenizer()
    tokenizer = Tokenizer(
        BPE(original.encoder, list(original.bpe_ranks), end_of_word_suffix="</w>", continuing_subword_prefix="")
    )
    tokenizer.normalizer = Sequence([*_repairs(), NFC(), Replace(Regex(r"\s+"), " "), Strip(), Lowercase()])
    tokenizer.pre_tokenizer = PreSequence(
        [Split(Regex(PIECES), "removed", invert=True), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.add_special_tokens([AddedToken(t, normalized=True, special=True) for t in (START, END)])
    tokenizer.post_processor = TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(t, original.encoder[t]) for t in (START, END)]
    )
    tokenizer.enable_truncation(context_length)
    tokenizer.enable_padding(pad_id=0, pad_token=original.decoder[0])
    return tokenizer


def _repairs() -> list[Replace]:
    """What the text repair in CLIP's own tokenizer does to typing: quotes, ligatures, full-width letters.

    It also undoes wrongly decoded text and HTML entities, which nobody types as a class name; that is left out.
    """
    pairs = {chr(c): chr(c - 0xFEE0) for c in FULL_WIDTH} | LIGATURES | {"\ufeff": ""}
    quotes = [Replace(Regex("[ʼ‘’‚‛]"), "'"), Replace(Regex("[“”„‟]"), '"')]
    return [Replace(found, instead) for found, instead in pairs.items()] + quotes


class ClipText(TextEncoder):
    """The text tower of a CLIP network, frozen.

    Attention is causal, so what follows the end token changes nothing: prompts are padded to the longest of the batch
    and not to the full context.
    """

    name = "clip"

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        text = getattr(clip, "text", clip)
        pool = getattr(clip, "text_pool_type", getattr(text, "pool_type", None))
        if pool not in ("argmax", "eos") or getattr(text, "cls_emb", None) is not None or clip.context_length is None:
            raise OV2VSSError(
                "this CLIP's text tower is not a causal transformer read at its end token",
                "choose a model of open_clip such as ViT-B-16",
            )
        self.token_embedding = text.token_embedding
        self.positional_embedding = text.positional_embedding
        self.transformer = text.transformer
        self.ln_final = text.ln_final
        self.text_projection = text.text_projection
        self.register_buffer("attn_mask", text.attn_mask, persistent=False)
        self.context_length = clip.context_length
        self.tokenizer = clip_tokenizer(self.context_length)
        if self.tokenizer.get_vocab_size() != self.token_embedding.num_embeddings:
            raise OV2VSSError(
                f"this CLIP has {self.token_embedding.num_embeddings} tokens, and CLIP's tokenizer has "
                f"{self.tokenizer.get_vocab_size()}",
                "choose a model of open_clip with CLIP's own tokenizer",
            )

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        length = tokens.shape[1]
        x = self.token_embedding(tokens) + self.positional_embedding[:length]
        x = self.transformer(x, attn_mask=self.attn_mask[:length, :length])
        # The end token is the last real one: a weight of 1 there, found without ArgMax or gather.
        end = attention_mask - F.pad(attention_mask[:, 1:], (0, 1))
        x = self.ln_final((x * end.unsqueeze(-1).to(x.dtype)).sum(1))
        if isinstance(self.text_projection, nn.Linear):
            x = self.text_projection(x)
        elif self.text_projection is not None:
            x = x @ self.text_projection
        return F.normalize(x, dim=-1)

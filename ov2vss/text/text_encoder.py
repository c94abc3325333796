"""What a text encoder is.

An encoder is a torch module ``(tokens int64 [B, L], attention_mask int64 [B, L]) -> [B, D]`` of unit vectors, and a
Hugging Face ``tokenizers`` tokenizer that is saved into the bundle as it is. The frozen weights are not part of a
checkpoint: its configuration names the encoder and :meth:`TextEncoder.identity` is checked when it is loaded.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from ov2vss.identity import weights_sha256

ENCODE_BATCH = 256


class TextEncoder(nn.Module):
    """Base: a frozen module, its ``tokenizer`` and its ``context_length``."""

    name: str
    tokenizer: Tokenizer
    context_length: int

    def identity(self) -> str:
        """sha256 over the weights and the tokenizer: what a checkpoint records and an export embeds."""
        return weights_sha256(self, self.tokenizer.to_str().encode())

    @torch.no_grad()
    def encode(self, texts: list[str]) -> Tensor:
        """Unit embeddings ``[len(texts), D]``, float32, on the processor; computed where the weights are."""
        device = next(self.parameters()).device
        rows = []
        for start in range(0, len(texts), ENCODE_BATCH):
            encodings = self.tokenizer.encode_batch(texts[start : start + ENCODE_BATCH])
            tokens = torch.tensor([e.ids for e in encodings], device=device)
            mask = torch.tensor([e.attention_mask for e in encodings], device=device)
            rows.append(self(tokens, mask).float().cpu())
        return torch.cat(rows)

"""Which weights are these?"""

from __future__ import annotations

import hashlib

from torch import nn


def weights_sha256(module: nn.Module, prefix: bytes = b"") -> str:
    """sha256 over ``prefix`` and the names and values of a module's ``state_dict``, in the order of the names."""
    digest = hashlib.sha256(prefix)
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()

"""Data-set labels: raw mask ids, void, seen and unseen classes, and how they map to training and evaluation ids."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.errors import OV2VSSError

VOID = 255
"""Label of pixels that are neither trained on nor counted."""
PROTOCOLS = ("all", "seen", "unseen")


def label_table(classes: int, keep: list[int] | None = None) -> npt.NDArray[np.uint8]:
    """Look-up table ``[256]`` from raw mask ids to labels, VSPW convention.

    Raw 0 and 255 are void and raw ``k`` in 1..classes is class ``k - 1``; ids above are void. With ``keep`` the classes
    that it lists become 0..len(keep)-1 in its order and all others void.

    >>> label_table(124)[[0, 1, 80, 81, 124, 255]].tolist()
    [255, 0, 79, 80, 123, 255]
    """
    if not 0 < classes < VOID:
        raise OV2VSSError(f"{classes} classes cannot be stored in 8-bit masks", "use between 1 and 254 classes")
    table = np.full(256, VOID, np.uint8)
    table[1 : classes + 1] = np.arange(classes, dtype=np.uint8)
    if keep is not None:
        chosen = np.full(256, VOID, np.uint8)
        for index, k in enumerate(keep):
            chosen[k] = index
        table = np.where(table == VOID, VOID, chosen[table]).astype(np.uint8)
    return table


def protocol_classes(protocol: str, classes: int, unseen: list[int]) -> list[int]:
    """Class indices that a protocol evaluates: ``all``, ``seen`` or ``unseen``."""
    if protocol == "all":
        return list(range(classes))
    chosen = [k for k in range(classes) if (k in set(unseen)) == (protocol == "unseen")]
    if not chosen:
        raise OV2VSSError(f"protocol {protocol!r} leaves no class", "use --protocol all, or list unseen classes")
    return chosen

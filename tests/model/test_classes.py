"""Classes are independent: their order, number and company change no other class's logit."""

import torch
import torch.nn.functional as F

from ov2vss.model import OV2VSS


def logits(model: OV2VSS, text: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(3)
    frames = torch.randint(0, 256, (1, 5, 3, 96, 128), dtype=torch.uint8)
    return model(frames[:, :4], frames[:, 4], text).logits


def test_permuting_adding_and_removing_classes(model: OV2VSS) -> None:
    text = F.normalize(torch.randn(7, model.config.embed_dim, generator=torch.Generator().manual_seed(1)), dim=-1)
    whole = logits(model, text)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    assert (logits(model, text[order]) - whole[:, order]).abs().max() < 1e-5
    assert (logits(model, text[:3]) - whole[:, :3]).abs().max() < 1e-5
    assert (logits(model, torch.cat([text, -text])) - torch.cat([whole, logits(model, -text)], 1)).abs().max() < 1e-5
    assert (whole[:, 0] - whole[:, 1]).abs().max() > 1e-3


def test_batch_items_are_independent(model: OV2VSS) -> None:
    text = F.normalize(torch.randn(3, model.config.embed_dim, generator=torch.Generator().manual_seed(1)), dim=-1)
    frames = torch.randint(0, 256, (2, 5, 3, 96, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    both = model(frames[:, :4], frames[:, 4], text).logits
    for i in range(2):
        alone = model(frames[i : i + 1, :4], frames[i : i + 1, 4], text).logits
        assert (both[i : i + 1] - alone).abs().max() < 1e-4

"""The loss of pixels that are known in part."""

import numpy as np
import torch
import torch.nn.functional as F

from ov2vss.train.partial import partial_cross_entropy


def test_with_one_right_word_and_all_others_wrong_it_is_the_usual_cross_entropy() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3, 5)
    labels = torch.randint(0, 4, (2, 3, 5))
    tables = (2 * torch.eye(4) - 1).to(torch.int8).expand(2, 4, 4)
    weight = torch.rand(2, 3, 5)
    total, mass = partial_cross_entropy(logits, labels, weight, tables)
    expected = (F.cross_entropy(logits, labels, reduction="none") * weight).sum()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(mass, weight.sum())


def test_a_pixel_by_hand_two_right_words_one_wrong_and_one_of_which_nothing_is_known() -> None:
    logits = torch.tensor([1.0, 2.0, 0.5, 9.0]).view(1, 4, 1, 1).requires_grad_()
    tables = torch.tensor([[[1, 1, -1, 0]]], dtype=torch.int8)
    total, mass = partial_cross_entropy(
        logits, torch.zeros(1, 1, 1, dtype=torch.long), torch.full((1, 1, 1), 2.0), tables
    )
    e = np.exp([1.0, 2.0, 0.5])
    assert abs(total.item() - 2 * -np.log((e[0] + e[1]) / e.sum())) < 1e-5
    assert mass.item() == 2
    total.backward()
    assert logits.grad[0, 3].item() == 0, "an unknown word moved"
    assert logits.grad[0, 2].item() > 0 > logits.grad[0, 0].item()


def test_pixels_without_a_right_word_or_outside_of_the_picture_count_for_nothing() -> None:
    logits = torch.randn(1, 2, 1, 3)
    tables = torch.tensor([[[-1, -1], [1, 1], [1, -1]]], dtype=torch.int8)
    rows = torch.tensor([[[0, 1, -1]]])
    total, mass = partial_cross_entropy(logits, rows, torch.ones(1, 1, 3), tables)
    assert (total.item(), mass.item()) == (0, 0)

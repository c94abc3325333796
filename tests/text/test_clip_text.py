"""CLIP's tokenizer, text tower and prompt templates against open_clip's own."""

from __future__ import annotations

import numpy as np
import open_clip
import torch

from ov2vss.clip import build_clip
from ov2vss.model.config import ModelConfig
from ov2vss.templates import imagenet_templates
from ov2vss.text.clip_text import ClipText, clip_tokenizer
from ov2vss.train.vocabulary import TrainingVocabulary
from ov2vss_runtime.bundle.vocabulary import Vocabulary
from tests.conftest import shuffled


def awkward_strings() -> list[str]:
    """Over 500 strings: case, accents, scripts, emoji, punctuation, spaces, digits, long and empty ones."""
    words = """
        road Car TRUCK café naïve Ångström straße ÉCOLE 日本語 汽车 русский ТЕКСТ αβγ مرحبا हिन्दी 한국어 ไทย əŋ
        traffic-sign table_or_desk billboard_or_Bulletin_Board it's we'll I'VE don't o'clock rock'n'roll 3rd 1234
        5.7 50% $5 №5 ½ ² Ⅳ C++ a&b #tag @user (note) [x] {y} «q» — … “curly” ‘quotes’ l’eau ﬁre ﬂow ＦＵＬＬ！
        😀 a😀b 👨‍👩‍👧 🇩🇪 <b> a<b!c? ... !!! ''' "x" 's 'S
    """.split()  # noqa: SIM905
    words += ["zero\u200bwidth", "soft\u00adhyphen", "nbsp\u00a0x", "e\u0301", "tab\tx", "new\nline"]
    strings = ["", " ", "\n", "x" * 400, " ".join(["word"] * 120), "!" * 200, "é" * 150, *words]
    strings += [f"a photo of a {w}." for w in words] + [w.upper() for w in words] + [f" {w}  {w[::-1]} " for w in words]
    rng = np.random.default_rng(0)
    plain = [chr(c) for c in range(32, 127)]
    strings += ["".join(rng.choice(plain, rng.integers(1, 60))) for _ in range(200)]
    # One script a string: a mixture looks like wrongly decoded text, which open_clip's tokenizer repairs.
    for first, last in (
        (0x100, 0x180),
        (0x1C4, 0x250),
        (0x391, 0x3A2),
        (0x3B1, 0x3C2),
        (0x410, 0x450),
        (0xAC00, 0xAE00),
    ):
        letters = [chr(c) for c in range(first, last)]
        strings += [" ".join(rng.choice(letters, rng.integers(1, 8))) for _ in range(25)]
    # open_clip's tokenizer also turns HTML entities into characters; a vocabulary has none.
    return [s for s in strings if "&" not in s or ";" not in s]


def test_tokenizer_equals_open_clips_own() -> None:
    mine, original = clip_tokenizer(77), open_clip.tokenizer.SimpleTokenizer()
    strings = awkward_strings()
    assert len(strings) >= 500
    tokens = original(strings).tolist()
    end = original.eot_token_id
    wrong = []
    for string, expected in zip(strings, tokens, strict=True):
        expected = expected[: expected.index(end) + 1]
        if mine.encode(string).ids != expected:
            wrong.append(string)
    assert not wrong
    assert mine.encode("<end_of_text>").ids == original(["<end_of_text>"])[0, :3].tolist()


def test_text_tower_equals_open_clip(small_clip: str) -> None:
    """Also for padded prompts of different lengths, which open_clip pads to 77 and this one to the longest."""
    network = shuffled(build_clip(small_clip, ""))
    encoder = ClipText(network).eval()
    prompts = ["", "car", "a photo of a billboard_or_Bulletin_Board in the rain.", " ".join(["word"] * 120)]
    for group in (prompts[:2], prompts[:3], prompts):
        with torch.no_grad():
            expected = network.encode_text(open_clip.tokenize(group), normalize=True)
        assert (encoder.encode(group) - expected).norm() <= 1e-6 * expected.norm()


def test_eighty_templates_are_averaged_and_normalised_again(small_clip: str) -> None:
    network = shuffled(build_clip(small_clip, ""))
    assert len(imagenet_templates()) == len(set(imagenet_templates())) == 80
    config = ModelConfig(templates=("imagenet80",), embed_dim=64)
    assert config.prompts == imagenet_templates()
    names = ["road", "trash_can", "Mobile_phone"]
    words = TrainingVocabulary(ClipText(network), Vocabulary.from_lines(names, "test"), config)
    expected = open_clip.build_zero_shot_classifier(
        network, open_clip.tokenizer.SimpleTokenizer(), names, open_clip.OPENAI_IMAGENET_TEMPLATES
    ).T
    got = words.draw(np.random.default_rng(0))
    assert torch.allclose(torch.nn.functional.normalize(got, dim=-1), got, atol=1e-6)
    assert torch.allclose(got, expected, atol=1e-5)

"""Named lists of prompt templates."""

from __future__ import annotations


def imagenet_templates() -> tuple[str, ...]:
    """The 80 prompts that CLIP was evaluated with on ImageNet, as open_clip lists them."""
    import open_clip

    return tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)

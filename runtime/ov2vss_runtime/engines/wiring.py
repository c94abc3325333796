"""How the graphs of a bundle are connected: by the names of their tensors, as the manifest lists them.

A graph asks for its inputs by name. They come from what is there when it runs: the frame, what the backbone gave for
this frame (or for the distant frame, where the manifest says so), the state, what the step gave, and the words.
"""

from __future__ import annotations

from dataclasses import dataclass

from ov2vss_runtime.bundle.bundle import DECODER_PARTS, Manifest
from ov2vss_runtime.errors import BundleError


@dataclass(frozen=True)
class Wiring:
    """Names of the tensors of one variant.

    Attributes:
        frame: input of the backbone.
        features: outputs of the backbone.
        distant: those of them that the step takes from the distant frame.
        step: inputs of the step that come from the frame itself; None if the bundle has no step.
        state: input and output of the step that carry the state; None without one.
        decoder: inputs of the decoder beside the words.
        words: input of the decoder that takes the class embeddings.
        logits: output of the decoder.
        refinement: inputs of the decoder's first part beside the words, and its output; None without the two parts.
        head: inputs of the decoder's second part beside that output.
        grid: height and width of the logits.
        tokens, mask: inputs of the text graph; the mask is None where the encoder needs none.
        embeddings: output of the text graph.
    """

    frame: str
    features: tuple[str, ...]
    distant: tuple[str, ...]
    step: tuple[str, ...] | None
    state: tuple[str, str] | None
    decoder: tuple[str, ...]
    words: str
    logits: str
    refinement: tuple[tuple[str, ...], str] | None
    head: tuple[str, ...]
    grid: tuple[int, int]
    tokens: str
    mask: str | None
    embeddings: str

    @classmethod
    def of(cls, manifest: Manifest, variant: str) -> Wiring:
        """Connect a variant.

        Raises:
            BundleError: a graph asks for what no earlier graph gives; the message names both.
        """
        graphs = manifest.variants[variant].graphs
        wants = {graph: tuple(t.name for t in info.inputs) for graph, info in graphs.items()}
        gives = {graph: tuple(t.name for t in info.outputs) for graph, info in graphs.items()}

        def refuse(graph: str, reason: str) -> BundleError:
            return BundleError(
                f"bundle {manifest.name}: graph {graph} of {variant} {reason}", "export the bundle again"
            )

        def one(graph: str, names: tuple[str, ...], what: str) -> str:
            if len(names) != 1:
                raise refuse(graph, f"has {', '.join(names) or 'nothing'} as {what}, where one is expected")
            return names[0]

        frame = one("backbone", wants["backbone"], "input")
        features = gives["backbone"]
        distant: tuple[str, ...] = ()
        step: tuple[str, ...] | None = None
        state = (manifest.state.input, manifest.state.output) if manifest.state is not None else None
        given = list(features)
        if "stcf_step" in graphs:
            distant = tuple(n for n in wants["stcf_step"] if n in manifest.distant and n in features)
            step = tuple(n for n in wants["stcf_step"] if n not in distant and (state is None or n != state[0]))
            if missing := [n for n in step if n not in features]:
                raise refuse("stcf_step", f"asks for {missing[0]}, which neither the backbone nor the state gives")
            if state is not None and (state[0] not in wants["stcf_step"] or state[1] not in gives["stcf_step"]):
                raise refuse("stcf_step", f"does not carry the state {state[0]} -> {state[1]}")
            given += [n for n in gives["stcf_step"] if state is None or n != state[1]]
        elif state is not None:
            raise refuse("stcf_step", "is missing, but the manifest has a state")
        words = one("decoder", tuple(n for n in wants["decoder"] if n not in given), "inputs that no other graph gives")
        refinement = None
        head: tuple[str, ...] = ()
        if all(part in graphs for part in DECODER_PARTS):
            first, second = DECODER_PARTS
            refined = one(first, gives[first], "output")
            refinement = (tuple(n for n in wants[first] if n != words), refined)
            head = tuple(n for n in wants[second] if n != refined)
            for part, names in ((first, refinement[0]), (second, head)):
                if missing := [n for n in names if n not in given]:
                    raise refuse(part, f"asks for {missing[0]}, which no other graph gives")
        logits = one("decoder", gives["decoder"], "output")
        shape = graphs["decoder"].outputs[0].shape
        if len(shape) != 3 or not all(isinstance(axis, int) for axis in shape[1:]):
            raise refuse("decoder", f"gives {logits} of shape {shape}; [N, h, w] with fixed h and w is expected")
        tokens = wants["text"][0] if len(wants["text"]) == 1 else "tokens"
        mask = one("text", tuple(n for n in wants["text"] if n != tokens), "mask") if len(wants["text"]) > 1 else None
        return cls(
            frame,
            features,
            distant,
            step,
            state,
            tuple(n for n in wants["decoder"] if n != words),
            words,
            logits,
            refinement,
            head,
            (int(shape[1]), int(shape[2])),
            tokens,
            mask,
            one("text", gives["text"], "output"),
        )

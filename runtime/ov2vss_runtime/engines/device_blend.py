"""Logits that stay on the device: made there, moved and blended with the past there, and labelled there.

For ONNX Runtime's GPU providers; the graphs are ``propagation.onnx`` and ``label_map.onnx`` beside this file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ov2vss_runtime.engines.engine import FrameFeatures

Plane = npt.NDArray[np.float32]


def sampling_grid(places: Plane) -> Plane:
    """Places ``[h, w, 2]`` (x, y) in cells -> ``[1, h, w, 2]`` as GridSample counts them: -1 to 1 between the centres
    of the first and the last cell."""
    h, w = places.shape[:2]
    last = np.array([max(w - 1, 1), max(h - 1, 1)], np.float32)
    return np.ascontiguousarray((2 * places / last - 1)[None], np.float32)


class DeviceBlend:
    """What :class:`ov2vss_runtime.engines.onnxruntime.OrtEngine` has beside :meth:`labels` where ``can.device_blend``.

    It needs of its class: ``_session``, ``_uploaded``, ``run_session``, ``upload``, ``given``, ``wiring``,
    ``_blank_of`` and where arrays lie.
    """

    _ort: Any
    _device: str
    _number: int

    def device_logits(self, features: FrameFeatures, guidance: Any, embeddings: Plane) -> Any:
        """Logits ``[N, h, w]`` of a frame, an array of the device; the same as :meth:`decode`."""
        own: Any = self
        decoder = own._session("decoder")
        shared = own.given(own.wiring.decoder, features, guidance)
        shape = [len(embeddings), *own.wiring.grid]
        logits = self._ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, self._device, self._number)
        row = 4 * shape[1] * shape[2]
        for part, words in own._uploaded(embeddings):
            binding = decoder.io_binding()
            for name, value in shared.items():
                binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_input(own.wiring.words, words)
            count = part.stop - part.start
            place = logits.data_ptr() + part.start * row
            binding.bind_output(own.wiring.logits, self._device, self._number, np.float32, [count, *shape[1:]], place)
            decoder.run_with_iobinding(binding)
        return logits

    def device_propagate(
        self, past: Any, present: Any | None, places: Plane, share: Plane | None, lean: float, sure: float
    ) -> Any:
        """The past at ``places`` ``[h, w, 2]`` (x, y, in cells), blended with ``present`` by ``share`` ``[h, w]``;
        alone where there is no present. :func:`ov2vss_runtime.stream.propagation.propagate`, up to rounding."""
        own: Any = self
        feed = {
            "past": past,
            "present": past if present is None else present,
            "grid": own.upload(sampling_grid(places)),
            "share": own.upload(np.zeros(places.shape[:2], np.float32) if share is None else share),
            "lean": own.upload(np.array(lean, np.float32)),
            "steep": own.upload(np.array(1 / sure, np.float32)),
        }
        return own.run_session(own._session("propagation"), feed)["moved" if present is None else "blended"]

    def device_labels(self, logits: Any, size: tuple[int, int]) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """The label map of ``size`` (H, W) of logits of the device; nothing but it comes down."""
        own: Any = self
        merge = own._session("label_map")
        best, labels = own._blank_of(size)
        bytes_only = logits.shape()[0] <= 254
        binding = merge.io_binding()
        for name, value in (("logits", logits), ("best_in", best), ("labels_in", labels)):
            binding.bind_ortvalue_input(name, value)
        binding.bind_cpu_input("size", np.asarray(size, np.int64))
        binding.bind_cpu_input("offset", np.asarray(0, np.int64))
        binding.bind_output("labels_byte" if bytes_only else "labels", "cpu", 0)
        merge.run_with_iobinding(binding)
        found = binding.get_outputs()[0].numpy()
        return found if bytes_only else found.astype(np.uint16)

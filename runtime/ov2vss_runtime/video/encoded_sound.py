"""Sound that mp4 does not hold, decoded and encoded as AAC."""

from __future__ import annotations

import contextlib
import itertools

import av
from av.container import OutputContainer
from av.error import FFmpegError

RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Samples a second that AAC has and every player takes."""
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
"""Channel layouts by their number of channels; others become stereo."""
BITS = 80_000
"""Of each channel, a second."""
SAMPLES = 1024
"""That a packet of AAC holds."""


class EncodedTrack:
    """Packets of any codec in, AAC out; gaps become silence and damaged packets are left out.

    Args:
        output: container that is written.
        stream: of the source.

    Raises:
        FFmpegError, ValueError: the encoder does not take it.
    """

    def __init__(self, output: OutputContainer, stream: av.AudioStream) -> None:
        context = stream.codec_context
        if not context.sample_rate:
            raise ValueError("its sample rate is not known")
        self._output = output
        self._rate = min(RATES, key=lambda rate: (rate < min(context.sample_rate, RATES[-1]), rate))
        channels = context.layout.nb_channels
        self._layout = LAYOUTS.get(channels, "stereo")
        self._stream = output.add_stream("aac", rate=self._rate, layout=self._layout)
        self._stream.bit_rate = BITS * self._stream.codec_context.layout.nb_channels
        self._graph: av.filter.Graph | None = None
        self._kind: object = None
        self._base = stream.time_base

    def take(self, packet: av.Packet) -> None:
        try:
            frames = packet.decode()
        except FFmpegError:
            return
        for frame in frames:
            self._convert(frame)  # type: ignore[arg-type]

    def _convert(self, frame: av.AudioFrame) -> None:
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            self._drain()
            self._graph, self._kind = self._resampler(frame), kind
        assert self._graph is not None
        self._graph.push(frame)
        self._encode_converted()

    def _resampler(self, frame: av.AudioFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        source = graph.add_abuffer(
            sample_rate=frame.sample_rate, format=frame.format.name, layout=frame.layout.name, time_base=frame.time_base
        )
        first = ":first_pts=0" if self._kind is None else ""
        steps = [
            source,
            graph.add("aresample", f"{self._rate}:async=1:min_hard_comp=0.1{first}"),
            graph.add("aformat", f"sample_fmts=fltp:sample_rates={self._rate}:channel_layouts={self._layout}"),
            graph.add("abuffersink"),
        ]
        for before, after in itertools.pairwise(steps):
            before.link_to(after)
        graph.configure()
        graph.set_audio_frame_size(SAMPLES)
        return graph

    def _encode_converted(self) -> None:
        assert self._graph is not None
        while True:
            try:
                frame = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            for packet in self._stream.encode(frame):  # type: ignore[arg-type]
                self._output.mux(packet)

    def _drain(self) -> None:
        if self._graph is not None:
            with contextlib.suppress(FFmpegError):
                self._graph.push(None)
            self._encode_converted()
            self._graph = None

    def finish(self) -> None:
        self._drain()
        for packet in self._stream.encode(None):
            self._output.mux(packet)

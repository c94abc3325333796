"""The TensorRT engine on a stand-in for the GPU: memory is the processor's, a plan is run by ONNX Runtime.

What is tested is all that the engine itself does: addresses, shapes, chunks, states that are handed on, CUDA graphs.
The names that it calls are checked against the real libraries. Nothing here shows that a plan runs on a GPU.
"""

import ctypes
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from ov2vss_runtime.bundle.bundle import GRAPHS, Bundle
from ov2vss_runtime.engines import cuda as cuda_memory
from ov2vss_runtime.engines import plans
from ov2vss_runtime.engines.tensorrt import TensorRtEngine
from ov2vss_runtime.errors import BackendError
from ov2vss_runtime.stream.segmenter import Segmenter
from tests.conftest import moving_frames


class FakeCuda:
    """Addresses of ordinary memory; captured work runs when its graph is launched, not before."""

    stream = 7

    def __init__(self) -> None:
        self.memory, self.sizes, self.recording, self.launches = [], {}, None, 0
        self.uploaded = self.downloaded = 0

    def allocate(self, size: int) -> int:
        self.memory.append((ctypes.c_ubyte * size)())
        address = ctypes.addressof(self.memory[-1])
        ctypes.memset(address, 0xAB, size)  # nobody may rely on zeros
        return address

    allocate_host = allocate

    def upload(self, target: int, source: int, size: int) -> None:
        ctypes.memmove(target, source, size)
        self.uploaded += size

    def download(self, target: int, source: int, size: int) -> None:
        ctypes.memmove(target, source, size)
        self.downloaded += size

    def clear(self, target: int, size: int) -> None:
        ctypes.memset(target, 0, size)

    def synchronize(self) -> None: ...

    def capture(self, work):
        self.recording = recorded = []
        work()
        self.recording = None

        def launch() -> None:
            self.launches += 1
            for job in recorded:
                job()

        return launch


class FakeContext:
    def __init__(self, session, cuda: FakeCuda) -> None:
        self.session, self.cuda, self.shapes, self.addresses = session, cuda, {}, {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == FakeCuda.stream
        shapes, addresses = dict(self.shapes), dict(self.addresses)

        def job() -> None:
            feed = {}
            for info in self.session.get_inputs():
                dtype = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}.get(info.type, np.float32)
                size = int(np.prod(shapes[info.name])) * np.dtype(dtype).itemsize
                block = (ctypes.c_ubyte * size).from_address(addresses[info.name])
                feed[info.name] = np.frombuffer(block, dtype).reshape(shapes[info.name])
            names = [o.name for o in self.session.get_outputs()]
            for name, value in zip(names, self.session.run(names, feed), strict=True):
                ctypes.memmove(addresses[name], np.ascontiguousarray(value).ctypes.data, value.nbytes)

        if self.cuda.recording is None:
            job()
        else:
            self.cuda.recording.append(job)
        return True


@pytest.fixture
def cuda(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    gpu = FakeCuda()

    class Runtime:
        def __init__(self, logger: object) -> None: ...

        def deserialize_cuda_engine(self, plan: bytes):
            session = onnxruntime.InferenceSession(plan, providers=["CPUExecutionProvider"])
            return SimpleNamespace(create_execution_context=lambda: FakeContext(session, gpu))

    class Logger:
        ERROR = 0

        def __init__(self, level: int) -> None: ...

    trt = SimpleNamespace(__version__="0", Runtime=Runtime, Logger=Logger)
    opened = Bundle.open(bundle)
    monkeypatch.setattr(plans, "import_tensorrt", lambda library: trt)
    monkeypatch.setattr(plans, "local_capability", lambda: "SM89")
    monkeypatch.setattr(plans, "ensure_plans", lambda *args: {g: (opened.graph_file("fp32", g), False) for g in GRAPHS})
    return gpu


def test_streams_equal_onnxruntime(bundle: Path, cuda: FakeCuda) -> None:
    """Two interleaved streams, more classes than a chunk, states and contexts that outlive many frames."""
    frames, words = moving_frames(24, (128, 192)), [f"thing {k}" for k in range(75)]
    segmenter = Segmenter(TensorRtEngine(Bundle.open(bundle), "fp32", cuda=cuda))
    reference = Segmenter.load(bundle)
    streams = [(s.stream(None, words, gap=2), s.stream(None, words, gap=3)) for s in (segmenter, reference)]
    for one, two in zip(frames, frames[::-1], strict=True):
        for index, frame in enumerate((one, two)):
            have, want = (pair[index].logits(frame) for pair in streams)
            assert np.abs(have - want).max() < 1e-5 * np.abs(want).max()
    assert cuda.launches > 40, "no CUDA graph was launched"


def test_only_frames_go_up_and_logits_come_down(bundle: Path, cuda: FakeCuda) -> None:
    engine = TensorRtEngine(Bundle.open(bundle), "fp32", cuda=cuda)
    stream = Segmenter(engine).stream(None, "road; car; sky")
    frames = moving_frames(40, (128, 192))
    for frame in frames[:20]:
        logits = stream.logits(frame)
    blocks, up, down = (engine._device.blocks, engine._host.blocks), cuda.uploaded, cuda.downloaded
    for frame in frames[20:]:
        logits = stream.logits(frame)
    assert (engine._device.blocks, engine._host.blocks) == blocks, "memory grows"
    assert cuda.uploaded - up == 20 * frames[0].nbytes
    assert cuda.downloaded - down == 20 * logits.nbytes


def test_text_in_pieces_of_the_profile(bundle: Path, cuda: FakeCuda) -> None:
    engine = TensorRtEngine(Bundle.open(bundle), "fp32", cuda=cuda)
    texts = [f"a photo of thing {k}" for k in range(100)]
    assert np.allclose(engine.encode_text(texts), Segmenter.load(bundle).engine.encode_text(texts), atol=1e-6)


def test_host_arrays_keep_their_memory_as_long_as_a_view_lives() -> None:
    gpu = FakeCuda()
    pool = cuda_memory.Pool(gpu.allocate)
    view = cuda_memory.host_array(pool, (4, 3), np.float32)[1:]
    view[...] = 5
    other = cuda_memory.host_array(pool, (4, 3), np.float32)
    other[...] = 6
    assert (view == 5).all()
    assert pool.blocks == 2
    del view, other
    cuda_memory.host_array(pool, (4, 3), np.float32)
    assert pool.blocks == 2


def test_the_calls_exist_in_the_real_libraries() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    for owner, names in {
        trt.IExecutionContext: ("set_input_shape", "set_tensor_address", "execute_async_v3"),
        trt.Runtime: ("deserialize_cuda_engine",),
        trt.ICudaEngine: ("create_execution_context",),
    }.items():
        assert all(hasattr(owner, name) for name in names)
    runtime = pytest.importorskip("cuda.bindings.runtime")
    calls = re.findall(r'_call\(\s*"(\w+)"|runtime\.(cuda\w+)', inspect.getsource(cuda_memory))
    assert len(calls) > 12
    for name in map("".join, calls):
        assert hasattr(runtime, name), name
    assert hasattr(runtime.cudaStreamCaptureMode, "cudaStreamCaptureModeRelaxed")
    if runtime.cudaGetDeviceCount()[0] != runtime.cudaError_t.cudaSuccess:
        with pytest.raises(BackendError, match=r"cudaGetDeviceCount failed: cudaError.*nvidia-smi"):
            cuda_memory.Cuda()


def test_without_a_gpu_it_says_so(bundle: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    try:
        plans.local_capability()
    except BackendError:
        with pytest.raises(BackendError, match=r"cuda|NVIDIA GPU"):
            Segmenter.load(bundle, "tensorrt-rtx")

"""The TensorRT engine on a stand-in for the GPU (see fake_gpu.py), which does nothing before somebody waits.

What is tested is all that the engine itself does: addresses, shapes, chunks, states that are handed on, CUDA graphs,
memory. The names that it calls are checked against the real libraries. Nothing here shows that a plan runs on a GPU.
"""

import gc
import inspect
import re
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ov2vss_runtime.bundle.bundle import GRAPHS, Bundle
from ov2vss_runtime.engines import cuda as cuda_module
from ov2vss_runtime.engines import plans
from ov2vss_runtime.engines import tensorrt as tensorrt_module
from ov2vss_runtime.engines.backends import status
from ov2vss_runtime.engines.cuda import Memory
from ov2vss_runtime.engines.tensorrt import TensorRtEngine
from ov2vss_runtime.errors import BackendError
from ov2vss_runtime.stream.segmenter import Segmenter
from tests.conftest import moving_frames
from tests.runtime.engines.fake_gpu import FakeCuda, FakeTensorRt


@pytest.fixture
def cuda(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    gpu = FakeCuda()
    gpu.package = FakeTensorRt(gpu)
    opened = Bundle.open(bundle)
    monkeypatch.setattr(plans, "import_tensorrt", lambda library: gpu.package)
    monkeypatch.setattr(tensorrt_module, "gpu_capability", lambda device: "SM89")

    monkeypatch.setattr(plans, "ensure_plans", lambda *args: {g: (opened.graph_file("fp32", g), False) for g in GRAPHS})
    return gpu


def engine_on(bundle: Path, cuda: FakeCuda) -> TensorRtEngine:
    return TensorRtEngine(Bundle.open(bundle), "fp32", cuda=cuda)


def test_streams_equal_onnxruntime(bundle: Path, cuda: FakeCuda) -> None:
    """Two interleaved streams, more classes than a chunk, states and contexts that outlive many frames."""
    frames, words = moving_frames(24, (128, 192)), [f"thing {k}" for k in range(75)]
    segmenter = Segmenter(engine_on(bundle, cuda))
    reference = Segmenter.load(bundle)
    streams = [(s.stream(None, words, gap=2), s.stream(None, words, gap=3)) for s in (segmenter, reference)]
    for one, two in zip(frames, frames[::-1], strict=True):
        for index, frame in enumerate((one, two)):
            have, want = (pair[index].logits(frame) for pair in streams)
            assert np.abs(have - want).max() < 1e-5 * np.abs(want).max()


def test_frames_without_labels_do_not_overtake_one_another(bundle: Path, cuda: FakeCuda) -> None:
    """advance() never waits for the GPU: the next frame must not be written over one that is still on its way up."""
    frames = moving_frames(9, (128, 192))
    found = []
    for segmenter in (Segmenter(engine_on(bundle, cuda)), Segmenter.load(bundle)):
        stream = segmenter.stream(None, "road; car; sky", gap=2)
        for frame in frames[:8]:
            stream.advance(frame)
        found.append(stream.logits(frames[8]))
    assert np.abs(found[0] - found[1]).max() < 1e-5 * np.abs(found[1]).max()


def test_a_state_that_moves_to_another_stream_is_read_before_it_is_given_back(bundle: Path, cuda: FakeCuda) -> None:
    frames = moving_frames(6, (128, 192))
    segmenter, reference = Segmenter(engine_on(bundle, cuda)), Segmenter.load(bundle)
    found = []
    for maker in (segmenter, reference):
        first, second = (maker.stream(None, "road; car; sky", gap=1) for _ in range(2))
        held = [first.engine.backbone(frame) for frame in (np.zeros((*first.engine.size, 3), np.uint8),) * 3]
        for frame in frames[:3]:
            first.advance(frame)
        del held
        second.load(first.save())
        del first
        gc.collect()
        found.append(second.logits(frames[3]))
    assert np.abs(found[0] - found[1]).max() < 1e-5 * np.abs(found[1]).max()


@pytest.mark.parametrize("together", [1, 4])
def test_every_frame_after_the_first_two_launches_recorded_graphs(bundle: Path, cuda: FakeCuda, together: int) -> None:
    """However many streams there are: two recordings a stream, and two launches a frame."""
    segmenter = Segmenter(engine_on(bundle, cuda))
    streams = [segmenter.stream(None, "road; car; sky", gap=3) for _ in range(together)]
    frames = moving_frames(12, (128, 192))
    kept = []
    for number, frame in enumerate(frames):
        if number == 3:
            captures, launches = cuda.captures, cuda.launches
        features = [stream.engine.backbone(stream_frame(stream, frame)) for stream in streams] if number == 0 else []
        kept.append(features)
        for stream in streams:
            stream.logits(frame)
        kept.clear()
    assert cuda.captures == captures, "graphs are recorded again and again"
    assert cuda.launches - launches == 2 * together * (len(frames) - 3)


def stream_frame(stream: object, frame: np.ndarray) -> np.ndarray:
    height, width = stream.engine.size
    return np.ascontiguousarray(frame[:height, :width])


def test_only_frames_go_up_and_logits_come_down(bundle: Path, cuda: FakeCuda) -> None:
    stream = Segmenter(engine_on(bundle, cuda)).stream(None, "road; car; sky")
    frames = moving_frames(40, (128, 192))
    for frame in frames[:20]:
        logits = stream.logits(frame)
    memory, up, down = (cuda.allocated_bytes, cuda.host_blocks), cuda.uploaded, cuda.downloaded
    for frame in frames[20:]:
        logits = stream.logits(frame)
    assert (cuda.allocated_bytes, cuda.host_blocks) == memory, "memory grows"
    assert cuda.uploaded - up == 20 * frames[0].nbytes
    assert cuda.downloaded - down == 20 * logits.nbytes


def test_memory_does_not_grow_with_word_lists(bundle: Path, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every list has a length of its own, so that no block of an earlier one fits exactly."""
    monkeypatch.setattr(cuda_module, "KEPT_BYTES", 2**20)
    stream = Segmenter(engine_on(bundle, cuda)).stream(None, "road; car; sky")
    frame = moving_frames(1, (128, 192))[0]
    for count in range(2, 32, 2):
        stream.set_vocabulary([f"thing {k}" for k in range(count)])
        stream.logits(frame)
        gc.collect()
    assert stream.engine._memory._host_bytes <= 2**20
    in_use = sum(cuda.sizes.values()) - sum(size * len(free) for size, free in cuda.free_blocks.items())
    stream.logits(frame)
    stream.engine.close()
    stream.engine._memory.collect()
    for queue in list(cuda.queues):
        cuda.synchronize(queue)
    assert in_use < 64 * 2**20


def test_closing_frees_graphs_and_memory(bundle: Path, cuda: FakeCuda) -> None:
    engine = engine_on(bundle, cuda)
    stream = Segmenter(engine).stream(None, "road; car; sky")
    for frame in moving_frames(6, (128, 192)):
        stream.logits(frame)
    assert cuda.captures > 0
    engine.close()
    assert cuda.closed_graphs == cuda.captures
    assert not engine._memory._gone


def test_another_thread_may_start_a_stream_while_one_is_recorded(
    bundle: Path, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clearing a new state and giving memory back stay out of the recording."""
    engine = engine_on(bundle, cuda)
    segmenter = Segmenter(engine)
    original, errors = cuda.capture, []

    def capture(work, stream):
        def with_company() -> None:
            work()
            other = threading.Thread(target=attempt)
            other.start()
            other.join(20)

        return original(with_company, stream)

    def attempt() -> None:
        try:
            engine.initial_state()
        except BaseException as error:
            errors.append(error)

    monkeypatch.setattr(cuda, "capture", capture)
    frames = moving_frames(6, (128, 192))
    have = segmenter.stream(None, "road; car; sky")
    want = Segmenter.load(bundle).stream(None, "road; car; sky")
    for frame in frames:
        one, two = have.logits(frame), want.logits(frame)
        assert np.abs(one - two).max() < 1e-5 * np.abs(two).max()
    assert errors == []


def test_text_in_pieces_of_the_profile(bundle: Path, cuda: FakeCuda) -> None:
    engine = engine_on(bundle, cuda)
    texts = [f"a photo of thing {k}" for k in range(100)]
    assert np.allclose(engine.encode_text(texts), Segmenter.load(bundle).engine.encode_text(texts), atol=1e-6)


def test_the_profile_holds_the_longest_legal_prompt() -> None:
    """200 characters in the longest template are up to 202 tokens and their two marks."""
    assert plans.PROFILES["text"]["L"][2] >= 202


def test_refusals_of_tensorrt_are_errors_with_their_cause(bundle: Path, cuda: FakeCuda) -> None:
    engine = engine_on(bundle, cuda)
    with pytest.raises(BackendError, match="takes no class_embeddings of shape 2x2|has no tensor"):
        tensorrt_module.set_shape(
            SimpleNamespace(set_input_shape=lambda *a: False), "decoder", "class_embeddings", (2, 2)
        )
    with pytest.raises(BackendError, match="has no tensor nothing"):
        tensorrt_module.set_address(engine._text, "text", "nothing", 0)
    cuda.package.refuse_contexts = True
    with pytest.raises(BackendError, match=r"no execution context for .*memory"):
        engine._context("backbone")


def test_host_arrays_keep_their_memory_as_long_as_a_view_lives() -> None:
    gpu = FakeCuda()
    memory = Memory(gpu)
    view = memory.host((4, 3), np.float32)[1:]
    view[...] = 5
    other = memory.host((4, 3), np.float32)
    other[...] = 6
    assert (view == 5).all()
    assert gpu.host_blocks == 2
    del view, other
    memory.host((4, 3), np.float32)
    assert gpu.host_blocks == 2


def test_the_first_error_of_a_recording_is_the_one_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Runtime:
        cudaError_t = SimpleNamespace(cudaSuccess=0, cudaErrorMemoryAllocation=2)
        cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

        def __getattr__(self, name: str):
            def call(*args: object):
                calls.append(name)
                failed = SimpleNamespace(name="cudaErrorStreamCaptureInvalidated")
                return (failed,) if name == "cudaStreamEndCapture" else (0,)

            return call

    gpu = object.__new__(cuda_module.Cuda)
    gpu._runtime, gpu.device, gpu._thread = Runtime(), 0, threading.local()

    def work() -> None:
        raise BackendError("TensorRT failed in backbone", "see its messages")

    with pytest.raises(BackendError, match="TensorRT failed in backbone"):
        gpu.capture(work, 7)
    assert "cudaStreamEndCapture" in calls, "the stream stays in recording"


def test_out_of_memory_is_told_as_that() -> None:
    kinds = SimpleNamespace(cudaSuccess=0, cudaErrorMemoryAllocation=2)
    gpu = object.__new__(cuda_module.Cuda)
    gpu._runtime = SimpleNamespace(cudaError_t=kinds, cudaSetDevice=lambda d: (0,), cudaMallocAsync=lambda *a: (2,))
    gpu.device, gpu._thread = 0, threading.local()
    with pytest.raises(BackendError, match="no memory left"):
        gpu.allocate(2**40, 1)


def test_kernels_of_tensorrt_rtx_are_compiled_once(tmp_path: Path) -> None:
    """What it compiled on the card is kept on disk, by graph and card, and read at the next start."""
    read = []

    class Cache:
        def deserialize(self, data: bytes) -> bool:
            read.append(data)
            return data == b"kernels"

        def serialize(self) -> bytes:
            return b"kernels"

    class Config:
        cuda_graph_strategy = None

        def create_runtime_cache(self) -> Cache:
            return Cache()

        def set_runtime_cache(self, cache: Cache) -> bool:
            return True

    made = []
    plan = SimpleNamespace(create_runtime_config=Config, create_execution_context=lambda config: made.append(config))
    trt = SimpleNamespace(CudaGraphStrategy=SimpleNamespace(WHOLE_GRAPH_CAPTURE=1))
    for start in range(2):
        kernels = tensorrt_module.KernelCache(tmp_path, "tensorrt-rtx", "SM89", {"backbone": "ab" * 32})
        kernels.context(trt, plan, "backbone")
        kernels.context(trt, plan, "backbone")
        assert read == [b"kernels"] * start
        kernels.save()
    assert made[0].cuda_graph_strategy == 1, "it records its own CUDA graphs"
    assert made[0] is made[1], "one cache for all lanes"
    assert [file.name for file in tmp_path.iterdir()] == ["ab" * 8 + "-SM89.bin"]


def test_tensorrt_rtx_says_no_on_a_card_that_it_does_not_build_for(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.setattr("ov2vss_runtime.engines.backends.gpu_capability", lambda device=0: "SM90")
    assert re.match(r"no: .*SM90", status("tensorrt-rtx"))
    monkeypatch.setattr("ov2vss_runtime.engines.backends.gpu_capability", lambda device=0: "SM89")
    assert status("tensorrt-rtx").startswith("yes")


def test_the_calls_exist_in_the_real_libraries() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    for owner, names in {
        trt.IExecutionContext: ("set_input_shape", "set_tensor_address", "execute_async_v3"),
        trt.Runtime: ("deserialize_cuda_engine",),
        trt.ICudaEngine: ("create_execution_context", "create_runtime_config"),
        trt.IRuntimeConfig: ("create_runtime_cache", "set_runtime_cache", "cuda_graph_strategy"),
        trt.IRuntimeCache: ("serialize", "deserialize"),
        trt.CudaGraphStrategy: ("WHOLE_GRAPH_CAPTURE",),
    }.items():
        assert all(hasattr(owner, name) for name in names)
    runtime = pytest.importorskip("cuda.bindings.runtime")
    calls = re.findall(r'_call\(\s*"(\w+)"|runtime\.(cuda\w+)', inspect.getsource(cuda_module))
    assert len(calls) > 20
    for name in map("".join, calls):
        assert hasattr(runtime, name), name
    assert hasattr(runtime.cudaStreamCaptureMode, "cudaStreamCaptureModeThreadLocal")
    for kind in ("cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost", "cudaMemcpyDeviceToDevice"):
        assert hasattr(runtime.cudaMemcpyKind, kind)
    if runtime.cudaGetDeviceCount()[0] != runtime.cudaError_t.cudaSuccess:
        with pytest.raises(BackendError, match=r"cudaGetDeviceCount failed: cudaError.*nvidia-smi"):
            cuda_module.Cuda()


def test_without_a_gpu_it_says_so(bundle: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    try:
        cuda_module.gpu_capability()
    except BackendError:
        with pytest.raises(BackendError, match=r"cuda|NVIDIA GPU"):
            Segmenter.load(bundle, "tensorrt-rtx")


def test_the_card_is_asked_for_through_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA_VISIBLE_DEVICES then holds for it as for everything else."""

    class Driver:
        def cuInit(self, flags: int) -> int:
            return 0

        def cuDeviceGet(self, device, ordinal: int) -> int:
            device._obj.value = 100 + ordinal
            return 0 if ordinal < 2 else 101

        def cuDeviceGetAttribute(self, value, kind: int, device) -> int:
            value._obj.value = {75: 9, 76: 0}[kind] if device.value == 101 else {75: 8, 76: 9}[kind]
            return 0

    monkeypatch.setattr(cuda_module.ctypes, "CDLL", lambda name: Driver())
    assert [cuda_module.gpu_capability(k) for k in (0, 1)] == ["SM89", "SM90"]
    with pytest.raises(BackendError, match="there is no GPU 2"):
        cuda_module.gpu_capability(2)

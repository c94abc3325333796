"""Every graph parses and builds with TensorRT-RTX, ahead of time and without a GPU. Running the plans needs one."""

import json
import logging
import shutil
from pathlib import Path

import pytest

from ov2vss_runtime.bundle.bundle import DECODER_PARTS, GRAPHS, Bundle, builtin_bundles
from ov2vss_runtime.bundle.made import with_variant
from ov2vss_runtime.engines import plans
from ov2vss_runtime.engines.providers import OWN_GRAPHS
from ov2vss_runtime.errors import BackendError
from tests.conftest import run_program

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed (Linux x86-64 only)")


@pytest.mark.parametrize("variant", ["fp32", "fp16", "int8-tensorrt"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_tiny_graphs_build(bundle: Path, graph: str, variant: str) -> None:
    plan = plans.build_plan(Bundle.open(bundle), variant, graph, "tensorrt-rtx", "SM89")
    assert len(plan) > 50_000


@pytest.mark.parametrize("graph", DECODER_PARTS)
def test_the_decoders_parts_build(bundle: Path, graph: str) -> None:
    assert len(plans.build_plan(Bundle.open(bundle), "fp32", graph, "tensorrt-rtx", "SM89")) > 50_000


@pytest.fixture(scope="module")
def made_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


def test_the_program_makes_what_a_bundle_leaves_out(made_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(made_in))
    args = ("--bundle", "street-lite", "--engine", "tensorrt-rtx", "--compute", "SM89", "--precision", "fp16", "--json")
    done = run_program("ov2vss-export", *args)
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout.splitlines()[-1])["plans"]
    assert {(p["graph"], p["precision"]) for p in built} == {(g, "fp16") for g in GRAPHS}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_street_lite_graphs_build(graph: str, precision: str, made_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half precision and TensorRT's int8 are made of what the bundle holds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(made_in))
    opened = with_variant(Bundle.open(builtin_bundles()["street-lite"]), precision, "tensorrt")
    variant = opened.variant(precision, "tensorrt")
    assert len(plans.build_plan(opened, variant, graph, "tensorrt-rtx", "SM89")) > 100_000


def test_the_graph_that_moves_and_blends_logits_builds() -> None:
    """It belongs to no bundle: any number of words, on the grid of the built-in bundle's logits."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(OWN_GRAPHS["propagation"].read_bytes()), parser.get_error(0)
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    grids = {"grid": (1, 44, 80, 2), "share": (44, 80)}
    for name in ("past", "present", *grids):
        shapes = [grids[name]] * 3 if name in grids else [(n, 44, 80) for n in (1, 32, 128)]
        profile.set_shape(name, *shapes)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    assert plan.nbytes > 5_000


def test_plans_are_kept_by_their_key(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second call builds nothing; another graph, another file or another key is explained and built again. They lie
    in the user's cache folder: those that a bundle brings along are never looked at."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = Path(shutil.copytree(bundle, tmp_path / "b"))
    done = run_program("ov2vss-export", "--bundle", copy, "--engine", "tensorrt-rtx", "--compute", "SM89", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert {p["graph"]: p["built"] for p in report["plans"]} == dict.fromkeys(GRAPHS, True)
    opened = Bundle.open(copy)  # plans do not disturb the bundle
    assert not (copy / "plans").exists()
    kept = tmp_path / "cache/ov2vss/plans" / opened.manifest.name
    stored = {g: plans.plan_file(kept, plans.plan_key(opened, "fp32", g, "tensorrt-rtx", "SM89")) for g in GRAPHS}
    assert all(Path(p["file"]) == stored[p["graph"]] for p in report["plans"])
    with caplog.at_level(logging.WARNING):
        again = plans.ensure_plans(opened, "fp32", "tensorrt-rtx", "SM89")
    assert [built for _, built in again.values()] == [False] * 4
    assert not caplog.records
    shutil.copytree(kept, copy / "plans")
    elsewhere = plans.ensure_plans(opened, "fp32", "tensorrt-rtx", "SM89", tmp_path / "named")
    assert all(built and path.is_relative_to(tmp_path / "named") for path, built in elsewhere.values())

    key_file = stored["decoder"].with_suffix(".json")
    key = json.loads(key_file.read_text())
    key["key"]["version"] = "0.9"
    key_file.write_text(json.dumps(key))
    stored["text"].write_bytes(b"not a plan")
    stored["backbone"].with_suffix(".json").write_text("{")
    with caplog.at_level(logging.WARNING):
        again = plans.ensure_plans(opened, "fp32", "tensorrt-rtx", "SM89")
    assert {g: built for g, (_, built) in again.items()} == {
        "text": True,
        "backbone": True,
        "stcf_step": False,
        "decoder": True,
    }
    told = [r.getMessage() for r in caplog.records]
    assert any("decoder.plan was built for version 0.9 instead of" in m for m in told)
    assert any("text.plan is missing or not the file that was built" in m for m in told)
    assert any("backbone.plan: its key cannot be read" in m for m in told)
    assert len(stored["text"].read_bytes()) > 50_000


def test_what_cannot_be_built_is_said(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="does not build for SM12.*SM89"):
        plans.ensure_plans(Bundle.open(bundle), "fp32", "tensorrt-rtx", "SM12", tmp_path)
    assert not list(tmp_path.iterdir())
    for args, message in [
        (("--engine", "tensorrt-rtx"), "--compute"),
        (("--engine", "tensorrt", "--compute", "SM89"), "tensorrt"),
    ]:
        done = run_program("ov2vss-export", "--bundle", bundle, *args)
        assert done.returncode in (1, 2)
        assert message in done.stderr

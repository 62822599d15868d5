"""Both compilers through one class: TensorRT by a scripted stand-in for its module, TensorRT-RTX itself."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.helper import make_node as node

from glimmer_export.exporter.config.targets import read_target
from glimmer_export.exporter.engines import compiler as compilers
from glimmer_export.exporter.engines.compiler import open_compiler
from glimmer_export.runtime.backends.cuda import Gpu
from glimmer_export.runtime.contract import BackendError, EngineError, EngineKey, MissingExtraError, ShapeRange
from tests.engines.ahead_of_time import CAPABILITIES, compiler

T4 = Gpu("Tesla T4", "7.5", integrated=False)
ORIN = Gpu("Orin", "8.7", integrated=False)
H200 = Gpu("NVIDIA H200", "9.0", integrated=False)
PROFILES = [{"x": ShapeRange((1, 4), (2, 4), (8, 4))}]


class FakeTensorRT(ModuleType):
    """Stands in for the module `tensorrt` of a version, whose API it has as far as it is used; keeps what was asked."""

    def __init__(self, version: str, *, parses: bool = True, builds: bool = True, old_cache: bool = False) -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        asked = self.asked = SimpleNamespace(flags=None, profiles=[], cache=[], workspace=None, parsed=None)

        class ILogger:
            INTERNAL_ERROR, ERROR, WARNING = range(3)

        class Cache:
            def __init__(self, content: bytes) -> None:
                self.content = content

            def serialize(self) -> bytes:
                return self.content + b"+timed"

        class Config:
            cache: Cache

            def set_memory_pool_limit(self, pool: str, size: int) -> None:
                asked.workspace = (pool, size)

            def add_optimization_profile(self, profile: dict[str, tuple[int, ...]]) -> int:
                asked.profiles.append(profile)
                return len(asked.profiles) - 1

            def create_timing_cache(self, content: bytes) -> Cache:
                return Cache(content)

            def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
                assert not ignore_mismatch
                if old_cache and cache.content:
                    return False
                self.cache = cache
                return True

            def get_timing_cache(self) -> Cache:
                return self.cache

        class Shapes(dict):
            def set_shape(self, name, least, best, most) -> None:
                self[name] = (least, best, most)

        class Builder:
            def __init__(self, log) -> None:
                self.log = log

            def create_network(self, flags: int) -> object:
                asked.flags = flags
                return object()

            def create_builder_config(self) -> Config:
                return Config()

            def create_optimization_profile(self) -> Shapes:
                return Shapes()

            def build_serialized_network(self, network, config) -> bytes | None:
                self.log.log(ILogger.WARNING, "a warning")
                if not builds:
                    self.log.log(ILogger.ERROR, "no tactic for\n  the node MatMul_3")
                return b"engine" if builds else None

        class OnnxParser:
            num_errors = 1

            def __init__(self, network, log) -> None:
                pass

            def parse_from_file(self, path: str) -> bool:
                asked.parsed = path
                return parses

            def get_error(self, index: int) -> SimpleNamespace:
                return SimpleNamespace(
                    node_operator=lambda: "BitShift", node_name=lambda: "shift", desc=lambda: "not supported"
                )

        self.ILogger, self.Builder, self.OnnxParser = ILogger, Builder, OnnxParser
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        typing = {"STRONGLY_TYPED": 1} if int(version.partition(".")[0]) < 11 else {}
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**typing)


@pytest.fixture
def install(monkeypatch):
    """Put a stand-in in TensorRT's place, on a machine with that GPU."""

    def put(fake: FakeTensorRT, device: Gpu | None) -> FakeTensorRT:
        monkeypatch.setitem(sys.modules, "tensorrt", fake)
        monkeypatch.setattr(compilers, "find_device", lambda: device)
        return fake

    return put


def tensorrt(target: str):
    return open_compiler("tensorrt", target, read_target(target).tensorrt)


@pytest.mark.parametrize(("version", "flags"), [("10.3.0.26", 2), ("10.14.1.48", 2), ("11.4.0.106", 0)])
def test_tensorrt_builds_a_strongly_typed_network_for_the_device(install, tmp_path, version, flags):
    fake = install(FakeTensorRT(version), T4)
    found = tensorrt("t4")
    assert found.key == EngineKey("tensorrt", version, "7.5", "Tesla T4")
    assert not found.stand_in
    assert found.compile(tmp_path / "graph.onnx", PROFILES * 2, tmp_path / "timing.cache") == b"engine"
    assert fake.asked.flags == flags
    assert fake.asked.profiles == [{"x": ((1, 4), (2, 4), (8, 4))}] * 2
    assert fake.asked.workspace == ("workspace", 4096 << 20)
    assert fake.asked.parsed == str(tmp_path / "graph.onnx")


def test_the_timing_cache_is_read_and_written_back(install, tmp_path):
    install(FakeTensorRT("10.3.0.26"), ORIN)
    for kept in (b"+timed", b"+timed+timed"):
        tensorrt("jetson-orin-nano").compile(tmp_path / "graph.onnx", PROFILES, tmp_path / "timing.cache")
        assert (tmp_path / "timing.cache").read_bytes() == kept


def test_a_timing_cache_that_nobody_wrote_is_not_read(install, tmp_path, monkeypatch):
    install(FakeTensorRT("10.3.0.26"), ORIN)
    monkeypatch.setattr(compilers, "MAX_TIMINGS_BYTES", 100)
    (tmp_path / "timing.cache").write_bytes(bytes(101))
    tensorrt("jetson-orin-nano").compile(tmp_path / "graph.onnx", PROFILES, tmp_path / "timing.cache")
    assert (tmp_path / "timing.cache").read_bytes() == b"+timed"


def test_a_timing_cache_of_another_device_is_begun_anew(install, tmp_path):
    install(FakeTensorRT("10.3.0.26", old_cache=True), ORIN)
    (tmp_path / "timing.cache").write_bytes(b"of a T4")
    tensorrt("jetson-orin-agx").compile(tmp_path / "graph.onnx", PROFILES, tmp_path / "timing.cache")
    assert (tmp_path / "timing.cache").read_bytes() == b"+timed"


def test_what_the_parser_refuses_is_said(install, tmp_path):
    install(FakeTensorRT("10.3.0.26", parses=False), T4)
    with pytest.raises(EngineError, match=r"parser of tensorrt 10\.3\.0\.26 reads, found BitShift shift: not"):
        tensorrt("t4").compile(tmp_path / "graph.onnx", PROFILES, tmp_path / "timing.cache")


def test_what_the_builder_refuses_is_said_in_one_line(install, tmp_path):
    install(FakeTensorRT("10.3.0.26", builds=False), T4)
    with pytest.raises(EngineError, match="found no tactic for the node MatMul_3;") as error:
        tensorrt("t4").compile(tmp_path / "graph.onnx", PROFILES, tmp_path / "timing.cache")
    assert "a warning" not in str(error.value)
    assert not (tmp_path / "timing.cache").exists()


@pytest.mark.parametrize(
    ("device", "found"), [(None, "found none"), (ORIN, r"found Orin of 8\.7"), (H200, r"found NVIDIA H200 of 9\.0")]
)
def test_tensorrt_needs_a_gpu_of_the_targets_capability(install, device, found):
    install(FakeTensorRT("10.3.0.26"), device)
    with pytest.raises(BackendError, match=f"capability 7.5, to build and time on, {found}; .*--compiler tensorrt-rtx"):
        tensorrt("t4")


@pytest.mark.parametrize(
    ("name", "install"),
    [("tensorrt", r"glimmer-export\[gpu-cu12\].*JetPack"), ("tensorrt-rtx", r"glimmer-export\[rtx\]")],
)
def test_a_compiler_that_is_not_installed(monkeypatch, name, install):
    monkeypatch.setitem(sys.modules, name.replace("-", "_"), None)
    with pytest.raises(MissingExtraError, match=install):
        open_compiler(name, "t4", read_target("t4").tensorrt)


@pytest.mark.parametrize(
    ("target", "device", "capability", "for_device", "stand_in", "named"),
    [
        ("t4", None, "7.5", None, False, "SM75"),
        ("t4", T4, "7.5", None, False, "SM75"),
        ("jetson-orin-agx", None, "8.6", None, True, "SM86"),
        ("jetson-orin-nano", T4, "8.6", None, True, "SM86"),
        ("h200", None, "8.0", None, True, "SM80"),
        ("h200", T4, "8.0", None, True, "SM80"),
        ("h200", H200, "9.0", "NVIDIA H200", False, "CURRENT"),
    ],
)
def test_what_tensorrt_rtx_builds_for(monkeypatch, target, device, capability, for_device, stand_in, named):
    monkeypatch.setattr(compilers, "find_device", lambda: device)
    found = open_compiler("tensorrt-rtx", target, read_target(target).tensorrt)
    assert (found.key.compute_capability, found.key.device) == (capability, for_device)
    assert found.stand_in == stand_in
    assert found.capabilities == (named,)
    assert hasattr(found.module.ComputeCapability, named)


def product(directory: Path, dtype: type, kind: str = "MatMul") -> Path:
    weight = np.random.default_rng(0).standard_normal((4, 6)).astype(dtype)
    number = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [node(kind, ["x", "w"], ["y"], "product")], "graph",
        [helper.make_tensor_value_info("x", number, ["batch", 4])],
        [helper.make_tensor_value_info("y", number, ["batch", 6])], [numpy_helper.from_array(weight, "w")],
    )
    path = directory / "product.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_tensorrt_rtx_compiles_for_all_capabilities_at_once(tmp_path):
    engine = compiler(*CAPABILITIES).compile(product(tmp_path, np.float16), PROFILES, tmp_path / "timing.cache")
    assert engine.nbytes > 1000
    assert not (tmp_path / "timing.cache").exists()


def test_a_capability_that_is_refused_is_named_with_those_that_are_offered(tmp_path, monkeypatch):
    asked = compiler("SM75")
    monkeypatch.setattr(asked.module.IBuilderConfig, "set_compute_capability", lambda config, capability, place: False)
    with pytest.raises(BackendError, match=r"SM75: .*offers: CURRENT, SM120, .*, found one that it refuses here"):
        asked.compile(product(tmp_path, np.float16), PROFILES, tmp_path / "timing.cache")


def test_tensorrt_rtx_knows_no_sm90_and_says_what_it_knows(tmp_path):
    offered = "CURRENT, SM120, SM121, SM75, SM80, SM86, SM89"
    with pytest.raises(BackendError, match=rf"SM90: .*offers: {offered}, found none"):
        compiler("SM90").compile(product(tmp_path, np.float16), PROFILES, tmp_path / "timing.cache")


def test_tensorrt_rtx_builds_engines_that_can_be_captured(tmp_path, monkeypatch):
    """Which need a run to take no memory of its own."""
    module, flags = compiler("SM75").module, []
    build = module.Builder.build_serialized_network

    def building(builder, network, config):
        flags.append(config.get_flag(module.BuilderFlag.REQUIRE_USER_ALLOCATION))
        return build(builder, network, config)

    monkeypatch.setattr(module.Builder, "build_serialized_network", building)
    compiler("SM75").compile(product(tmp_path, np.float16), PROFILES, tmp_path / "timing.cache")
    assert flags == [True]


def test_tensorrt_rtx_says_why_it_refuses(tmp_path):
    """What the rule `fp32-product` rests on."""
    path = product(tmp_path, np.float32)
    with pytest.raises(EngineError, match="FP32 GEMM is not supported"):
        compiler("SM75").compile(path, PROFILES, tmp_path / "timing.cache")
    assert compiler("SM86").compile(path, PROFILES, tmp_path / "timing.cache").nbytes


def test_tensorrt_rtx_says_what_it_cannot_parse(tmp_path):
    path = product(tmp_path, np.float16, kind="Det")
    with pytest.raises(EngineError, match=r"graph product: .* the parser of tensorrt_rtx .* found .*Det"):
        compiler("SM75").compile(path, PROFILES, tmp_path / "timing.cache")
    (tmp_path / "product.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match="the parser of tensorrt_rtx"):
        compiler("SM75").compile(path, PROFILES, tmp_path / "timing.cache")


def test_profiles_that_do_not_fit_the_graph(tmp_path):
    profiles = [{"x": ShapeRange((1, 5), (2, 5), (8, 5))}]
    with pytest.raises(EngineError, match="graph product"):
        compiler("SM75").compile(product(tmp_path, np.float16), profiles, tmp_path / "timing.cache")

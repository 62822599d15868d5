"""The libraries of ONNX Runtime's providers for GPUs, with providers that the system's loader opens or refuses."""

from __future__ import annotations

import platform
import re
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from glimmer_export.runtime.backends import cuda_libraries
from glimmer_export.runtime.backends.cuda_libraries import MissingLibrary, find_missing
from glimmer_export.runtime.backends.onnxruntime_gpu import OnnxRuntimeDeviceBackend
from glimmer_export.runtime.backends.tensorrt import library
from glimmer_export.runtime.contract import BackendError, BundleError, read_manifest

BUNDLE = Path(__file__).parents[2] / "golden" / "bundle"
MACHINES = {"x86_64": 62, "aarch64": 183}
CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
needs_elf = pytest.mark.skipif(platform.machine() not in MACHINES, reason="no ELF of this machine is made here")


def shared_library(*needed: str) -> bytes:
    """A library for this machine's loader, with nothing in it but the names of those that it needs."""
    names, offsets = b"\0", []
    for name in needed:
        offsets.append(len(names))
        names += name.encode() + b"\0"
    base, entries = 64 + 2 * 56, len(needed) + 6
    strings = base + 16 * entries
    symbols = strings + len(names) + -len(names) % 8
    hashes = symbols + 24
    end = hashes + 16
    dynamic = [(1, offset) for offset in offsets]
    dynamic += [(4, hashes), (5, strings), (6, symbols), (10, len(names)), (11, 24), (0, 0)]
    machine = MACHINES[platform.machine()]
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, machine, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 6, 0, 0, 0, end, end, 0x10000)
    where = struct.pack("<IIQQQQQQ", 2, 6, base, base, base, 16 * entries, 16 * entries, 8)
    table = b"".join(struct.pack("<QQ", *entry) for entry in dynamic)
    strings_and_symbols = names.ljust(symbols - strings, b"\0") + bytes(24)
    return header + load + where + table + strings_and_symbols + struct.pack("<4I", 1, 1, 0, 0)


def package(folder: Path, built_for: str, **providers: tuple[str, ...]) -> SimpleNamespace:
    """An ONNX Runtime with providers that need these libraries, as it lies in site-packages."""
    (folder / "capi").mkdir(parents=True)
    for name, needed in providers.items():
        (folder / "capi" / f"libonnxruntime_providers_{name}.so").write_bytes(shared_library(*needed))
    return SimpleNamespace(__file__=str(folder / "__init__.py"), cuda_version=built_for, preload_dlls=lambda: None)


@pytest.mark.parametrize(
    ("cuda", "library", "fix"),
    [
        ("13", "libcublasLt.so.13", r'pip install "glimmer-export\[gpu-cu13\]"$'),
        ("12", "libcudnn.so.9", r'pip install "glimmer-export\[gpu-cu12\]"$'),
        ("13", "libcuda.so.1", "NVIDIA's driver: CUDA 12 needs 525 or newer, CUDA 13 needs 580"),
        ("13", "libnvinfer.so.10", r'TensorRT 10 alone: pip install "tensorrt-cu13>=10,<11", or choose another'),
        ("12", "libnvonnxparser.so.10", r'TensorRT 10 alone: pip install "tensorrt-cu12>=10,<11"'),
    ],
)
def test_how_a_library_is_installed(cuda, library, fix):
    assert re.search(fix, MissingLibrary(library, cuda).fix)


@needs_elf
def test_the_loader_says_which_is_missing(tmp_path):
    onnxruntime = package(tmp_path, "13.0", cuda=("libc.so.6", "libcublasLt.so.913"), tensorrt=("libc.so.6",))
    missing = find_missing(onnxruntime, CUDA)
    assert missing.name == "libcublasLt.so.913"
    assert "[gpu-cu13]" in missing.fix
    assert find_missing(onnxruntime, TENSORRT) is None
    assert find_missing(package(tmp_path / "other", "13.0"), CUDA) is None
    assert find_missing(onnxruntime, "CPUExecutionProvider") is None


@needs_elf
def test_a_backend_that_does_not_start_names_it(tmp_path, graph, stand_in):
    stand_in(package(tmp_path, "12.8", cuda=("libcufft.so.911",)))
    with pytest.raises(BackendError) as raised:
        OnnxRuntimeDeviceBackend().load(*graph)
    assert raised.value.found == "no library libcufft.so.911"
    assert raised.value.fix.endswith('pip install "glimmer-export[gpu-cu12]"')


@needs_elf
def test_a_provider_that_refuses_is_no_fault_of_the_graph(tmp_path, graph, stand_in, monkeypatch, capsys):
    """As ONNX Runtime's TensorRT provider does, and the CUDA provider without a GPU; a damaged graph stays one."""
    stand_in(package(tmp_path, "12.8", cuda=()))
    opened = onnxruntime.InferenceSession

    def refuse(graph, sess_options, providers, **options):
        if providers == [CUDA]:
            raise RuntimeError(f"/src/cuda_call.cc:122 {'T' * 300} CUDA failure 100: no CUDA-capable device ; GPU=0")
        return opened(graph, sess_options=sess_options, providers=providers, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    backend = OnnxRuntimeDeviceBackend()
    with pytest.raises(BackendError, match=r"to start, found CUDA failure 100: no CUDA-capable device; .*nvidia-smi"):
        backend.load(*graph)
    (tmp_path / "graph.onnx").write_bytes(b"none")
    with pytest.raises(BundleError, match="that ONNX Runtime can load"):
        backend.load(tmp_path / "graph.onnx", graph[1])
    assert capsys.readouterr().out == ""


def test_libraries_are_laid_ready_before_the_first_session_and_in_silence(stand_in, capsys, monkeypatch):
    loaded = []

    def preload_dlls():
        sys.stdout.write("Failed to load libcublasLt.so.13")
        loaded.append("cuda")

    monkeypatch.setattr(cuda_libraries.importlib, "import_module", loaded.append)
    stand_in(SimpleNamespace(preload_dlls=preload_dlls))
    OnnxRuntimeDeviceBackend()
    assert loaded == ["cuda"]
    OnnxRuntimeDeviceBackend(TENSORRT)
    assert loaded == ["cuda", "cuda", "tensorrt"]
    OnnxRuntimeDeviceBackend("CPUExecutionProvider", "cpu")
    assert loaded == ["cuda", "cuda", "tensorrt"]
    assert capsys.readouterr().out == ""


def test_ways_out_are_closed(graph, monkeypatch):
    """ONNX Runtime's fallback prints where answers go, and runs on the CPU what was to run on a GPU."""
    seen, opened = [], onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *graph, **options: seen.append(opened(*graph, **options)) or seen[-1]
    )
    OnnxRuntimeDeviceBackend("CPUExecutionProvider", "cpu").load(*graph)
    assert [session._enable_fallback for session in seen] == [False]


def test_a_tensorrt_without_its_libraries_names_one_and_the_extras(monkeypatch):
    def refuse(name):
        raise OSError(f"libnv{name[-2:]}.so.910: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(library.importlib, "import_module", refuse)
    with pytest.raises(BackendError, match=r"found libnvrt.so.910: .*again, whole: pip install .*gpu-cu13.*gpu-cu12"):
        library.Library("tensorrt")


@pytest.fixture
def graph():
    return BUNDLE / "graphs" / "memory_encoder.onnx", read_manifest(BUNDLE).io()["memory_encoder"]


@pytest.fixture
def stand_in(monkeypatch):
    """Lets ONNX Runtime have the providers for GPUs, none of which starts, and what of the package is given."""
    opened = onnxruntime.InferenceSession

    def on_the_cpu(graph, sess_options, providers, **options):
        return opened(graph, sess_options=sess_options, providers=["CPUExecutionProvider"], **options)

    def replace(package: SimpleNamespace) -> None:
        providers = [TENSORRT, CUDA, "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
        monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
        for name, value in vars(package).items():
            monkeypatch.setattr(onnxruntime, name, value, raising=False)

    return replace

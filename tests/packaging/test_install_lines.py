"""Every install line of the documents installs something, and what it installs for a GPU has all its libraries.

The libraries are those of wheel_libraries.json: the wheels are gigabytes, `record_libraries` reads them.
"""

from __future__ import annotations

import json
import re
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.packaging.install_lines import FROM_NVIDIA, LINES, ROOT, InstallLine, pinned, resolve
from tests.packaging.record_libraries import RECORD, wheel_of

LIBRARIES = json.loads(RECORD.read_text(encoding="utf-8"))
DRIVER = {"libcuda.so.1"}
TENSORRT = re.compile(r"libnv(infer|onnxparser)\w*\.so\.(?P<major>\d+)")
GPU_LINES = [line for line in LINES if any("-cu" in file for file in line.constraints)]
OF_TORCH = re.compile(r"(nvidia|cuda)-|triton$")
"""What torch pins itself."""
AGAIN = "run `python -m tests.packaging.record_libraries`"
REFUSED = {"gpu-cu13": {"libnvinfer.so.10", "libnvonnxparser.so.10"}}
"""ONNX Runtime's TensorRT provider takes TensorRT 10; the README says so."""


@pytest.fixture(scope="session")
def resolved(tmp_path_factory):
    """What each line installs, resolved side by side."""
    folder = tmp_path_factory.mktemp("uv")
    with ThreadPoolExecutor(4) as pool:
        futures: dict[InstallLine, Future] = {
            line: pool.submit(resolve, line, folder / f"{number}.toml") for number, line in enumerate(LINES)
        }
    return lambda line: futures[line].result()


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_line_of_the_documents_can_be_installed(resolved, line):
    found = resolved(line)
    assert {"numpy", "safetensors", "tokenizers"} <= found.keys()
    onnxruntimes = {"onnxruntime", "onnxruntime-gpu"} & found.keys()
    assert len(onnxruntimes) <= 1, "both fill the same folder"
    if line.constraints[0] == "constraints.txt":
        exact = set().union(*(pinned(ROOT / file) for file in line.constraints))
        assert {name for name in found.keys() - exact if "torch" not in found or not OF_TORCH.match(name)} == set()


@pytest.mark.parametrize("line", GPU_LINES, ids=str)
def test_what_the_wheels_need_comes_with_them(resolved, line):
    """But for the driver, and for TensorRT's own, which no other index than NVIDIA's has."""
    found, (extra,) = resolved(line), {"gpu-cu12", "gpu-cu13"} & {*line.extras}
    wheels = {name: wheel_of(line, name, found[name], [*LIBRARIES]) for name in ours(line, found)}
    assert [name for name, wheel in wheels.items() if wheel is None] == [], AGAIN
    needed = {library for wheel in wheels.values() for needs in LIBRARIES[wheel].values() for library in needs}
    provided = DRIVER.union(*(LIBRARIES[wheel] for wheel in wheels.values()))
    of_tensorrt = {library for library in needed if TENSORRT.match(library)}
    assert needed - provided - of_tensorrt == set()
    served = {found[name].partition(".")[0] for name in FROM_NVIDIA if name in found}
    refused = {library for library in of_tensorrt if TENSORRT.match(library)["major"] not in served}
    assert refused == (REFUSED.get(extra, set()) if "onnxruntime-gpu" in found else set())


def test_the_provider_for_cuda_has_its_libraries_on_every_server(resolved):
    """Were onnxruntime-gpu's own extras left out, or the wheel of another line of CUDA taken, this would say so."""
    seen = set()
    for line in GPU_LINES:
        found = resolved(line)
        if "onnxruntime-gpu" in found:
            wheels = [wheel_of(line, name, found[name], [*LIBRARIES]) for name in ours(line, found)]
            provided = {name: needs for wheel in wheels for name, needs in LIBRARIES[wheel].items()}
            needed = provided["libonnxruntime_providers_cuda.so"]
            assert {*needed} - DRIVER <= provided.keys()
            seen |= {library for library in needed if library.startswith("libcublasLt.so")}
    assert seen == {"libcublasLt.so.12", "libcublasLt.so.13"}


@pytest.mark.parametrize("name", FROM_NVIDIA)
def test_tensorrts_own_libraries(name):
    wheels = [wheel for wheel in LIBRARIES if wheel.startswith(name.replace("-", "_"))]
    if not wheels:
        pytest.skip(f"{name} was not to be had: it comes from NVIDIA's own index, which was not reached")
    assert all(any(TENSORRT.match(library) for library in LIBRARIES[wheel]) for wheel in wheels)


def ours(line: InstallLine, found: dict[str, str]) -> list[str]:
    """The packages of a line of CUDA that have wheels to be read."""
    (file,) = (file for file in line.constraints if "-cu" in file)
    absent = {*FROM_NVIDIA, *(name.removesuffix("-libs") for name in FROM_NVIDIA)}
    return sorted(pinned(ROOT / file) & found.keys() - absent)

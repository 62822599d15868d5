"""The shared libraries that ONNX Runtime's providers for GPUs load: laid ready beforehand, named where missing.

The extras `gpu-cu12` and `gpu-cu13` install CUDA and cuDNN as Python packages, in folders in which the system's loader
does not look. A library that the process has loaded already is found by its name.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import re
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Any

__all__ = ["INSTALL_GPU", "MissingLibrary", "find_missing", "preload"]

INSTALL_GPU = 'pip install "glimmer-export[gpu-cu13]", or "glimmer-export[gpu-cu12]" if the driver is older than 580'
PROVIDER_FILES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "tensorrt"}
TENSORRT = re.compile(r"libnv(?:infer|onnxparser)\w*\.so\.(?P<major>\d+)")
DRIVER = "libcuda.so.1"


class MissingLibrary:
    """A library that a provider needs and the loader does not find: its name, and how to install it."""

    def __init__(self, name: str, cuda: str) -> None:
        """`cuda` is the major version of CUDA that this ONNX Runtime was built for."""
        self.name = name
        if name == DRIVER:
            self.fix = "install NVIDIA's driver: CUDA 12 needs 525 or newer, CUDA 13 needs 580 or newer"
        elif (tensorrt := TENSORRT.match(name)) is None:
            self.fix = f'install what this ONNX Runtime needs: pip install "glimmer-export[gpu-cu{cuda}]"'
        else:
            major = int(tensorrt["major"])
            self.fix = (
                f"this ONNX Runtime takes TensorRT {major} alone: "
                f'pip install "tensorrt-cu{cuda}>={major},<{major + 1}", or choose another backend'
            )


def preload(onnxruntime: Any, provider: str) -> None:
    """Load the libraries of a provider that are installed as Python packages; what is missing is left to be missed.

    Must come before the first session of the process that asks for the provider.
    """
    if provider not in PROVIDER_FILES:
        return
    with redirect_stdout(io.StringIO()):  # it prints what it does not find, where our answers go
        onnxruntime.preload_dlls()
    if PROVIDER_FILES[provider] == "tensorrt":
        with suppress(ImportError, OSError):  # its module loads its libraries
            importlib.import_module("tensorrt")


def find_missing(onnxruntime: Any, provider: str) -> MissingLibrary | None:
    """The library for want of which a provider did not start, None if that was not the reason.

    Only after ONNX Runtime has tried: a provider that is loaded by another ends the process when it is used.
    """
    if provider not in PROVIDER_FILES:
        return None
    file = Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{PROVIDER_FILES[provider]}.so"
    try:
        ctypes.CDLL(str(file))
    except OSError as reason:
        name, _, rest = str(reason).partition(":")
        if "cannot open shared object file" in rest and name != str(file):
            return MissingLibrary(name, str(getattr(onnxruntime, "cuda_version", "")).partition(".")[0] or "12")
    return None

"""The GPU of this machine, asked of the CUDA runtime."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Device", "find_device"]


@dataclass(frozen=True)
class Device:
    """A GPU's name and compute capability, such as "7.5"."""

    name: str
    compute_capability: str


def find_device() -> Device | None:
    """The first GPU; None where there is none, or neither a driver nor the package cuda-python to ask."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        return None
    error, count = runtime.cudaGetDeviceCount()
    if error != runtime.cudaError_t.cudaSuccess or not count:
        return None
    error, properties = runtime.cudaGetDeviceProperties(0)
    if error != runtime.cudaError_t.cudaSuccess:
        return None
    name = properties.name.decode() if isinstance(properties.name, bytes) else properties.name
    return Device(name, f"{properties.major}.{properties.minor}")

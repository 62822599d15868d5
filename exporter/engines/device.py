"""The GPU of this machine."""

from __future__ import annotations

from glimmer_export.runtime.backends.cuda import Cuda, Gpu
from glimmer_export.runtime.contract import BackendError

__all__ = ["find_device"]


def find_device() -> Gpu | None:
    """The first GPU; None where there is none, or neither a driver nor the package cuda-python to ask."""
    try:
        return Cuda().gpu
    except BackendError:
        return None

"""Backends by name: what may run a candidate's graphs."""

from __future__ import annotations

from collections.abc import Callable

from calibration.rounding import RoundingBackend
from runtime.backends import Backend, OnnxRuntimeBackend
from runtime.contract import OptionError

__all__ = ["BACKENDS", "backend_from_name"]

BACKENDS: dict[str, Callable[[int | None], Backend]] = {
    OnnxRuntimeBackend.name: OnnxRuntimeBackend, RoundingBackend.name: RoundingBackend,
}
"""What makes each, given the number of threads of one graph run."""


def backend_from_name(name: str, threads: int | None) -> Backend:
    """A backend by its name; raises OptionError for an unknown one, BackendError where it cannot run here."""
    if name not in BACKENDS:
        raise OptionError(f"backend {name!r}", expected=f"one of {', '.join(BACKENDS)}", found="none of that name",
                          fix="choose one of these")  # fmt: skip
    return BACKENDS[name](threads)

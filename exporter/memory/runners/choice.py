"""A runner by its name and options."""

from __future__ import annotations

from glimmer_export.exporter.memory.runners.job import LocalRunner, Runner
from glimmer_export.exporter.memory.runners.ray_runner import RayRunner
from glimmer_export.runtime.contract import OptionError

__all__ = ["choose_runner"]


def choose_runner(name: str, *, ray_address: str | None, ray_actors: int | None) -> Runner:
    """The runner `local` or `ray`; raises OptionError for options of Ray without it."""
    if name == "ray":
        return RayRunner(ray_address, ray_actors)
    for option, value in (("--ray-address", ray_address), ("--ray-actors", ray_actors)):
        if value is not None:
            raise OptionError(f"option {option}", expected="--runner ray beside it", found=name, fix="add it")
    return LocalRunner()

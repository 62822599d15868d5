"""Runners by name, and options that do not fit."""

from __future__ import annotations

import pytest

from glimmer_export.exporter.memory.runners import LocalRunner, RayRunner, choose_runner
from glimmer_export.runtime.contract import OptionError


def test_by_name():
    assert type(choose_runner("local", ray_address=None, ray_actors=None)) is LocalRunner
    assert choose_runner("ray", ray_address="auto", ray_actors=3) == RayRunner("auto", 3)
    assert choose_runner("ray", ray_address="head.example:6379", ray_actors=None).address == "head.example:6379"


@pytest.mark.parametrize(
    ("address", "actors", "option"), [("auto", None, "--ray-address"), (None, 2, "--ray-actors")]
)
def test_options_of_ray_need_ray(address, actors, option):
    with pytest.raises(OptionError, match=f"option {option}: expected --runner ray beside it, found local"):
        choose_runner("local", ray_address=address, ray_actors=actors)


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "", "head:", "head:6379/x"])
def test_addresses_that_ray_data_cannot_use(address):
    with pytest.raises(OptionError, match="expected host:port, or auto"):
        RayRunner(address)

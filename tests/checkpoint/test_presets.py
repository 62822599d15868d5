"""The sizes of T5 v1.1."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest

from glimmer_export.exporter.checkpoint import ModelOptions
from glimmer_export.exporter.checkpoint.options import config_from_options
from glimmer_export.exporter.checkpoint.t5_shape import preset
from glimmer_export.exporter.checkpoint.weights import weight_shapes
from glimmer_export.exporter.config import read
from glimmer_export.exporter.config.read import config_names
from glimmer_export.exporter.config.yaml_file import configs_directory
from glimmer_export.runtime.contract import OptionError

# Parameters of google/t5-v1_1-*, as the published checkpoints have them.
PARAMETERS = {
    "small": 76_961_152, "base": 247_577_856, "large": 783_150_080, "xl": 2_849_757_184, "xxl": 11_135_332_352
}


def test_known_sizes() -> None:
    assert set(config_names("size")) == set(PARAMETERS)


@pytest.mark.parametrize("size", PARAMETERS)
def test_a_fid_has_the_parameters_of_the_published_t5(size: str) -> None:
    config = config_from_options(ModelOptions("fid"), preset(size), subject=size)
    assert sum(map(prod, weight_shapes(config).values())) == PARAMETERS[size]


def test_the_papers_base_size() -> None:
    config = config_from_options(ModelOptions("glimmer"), preset("base"), subject="base")
    assert (config.num_memory_layers, config.num_stage_a_layers, config.num_stage_b_layers) == (8, 1, 3)
    assert (config.question_length, config.passage_length) == (48, 304)
    assert (config.num_retrieved, config.num_selected) == (25, 5)
    assert config_from_options(ModelOptions("lumen"), preset("base"), subject="base").passage_length == 208


def test_deep_memory_encoder() -> None:
    options = ModelOptions("lumen", memory_layers=32)
    config = config_from_options(options, preset("base"), subject="base")
    assert (config.num_memory_layers, config.num_live_layers, config.num_decoder_layers) == (32, 4, 12)


def test_fewer_retrieved_than_five_are_all_selected() -> None:
    options = ModelOptions("glimmer", num_retrieved=3)
    assert config_from_options(options, preset("small"), subject="small").num_selected == 3


@pytest.mark.parametrize("name", ["huge", "../models/base", "", "Base"])
def test_unknown_size(name: str) -> None:
    with pytest.raises(OptionError, match="one of base, large, small, xl, xxl, or a YAML file, found none"):
        preset(name)


@pytest.mark.parametrize(
    ("text", "found"),
    [("d_model: [", "YAML mapping"), ("- a", "found a list"), ("d_model: 4", "vocab_size: Field required"),
     ("heads: 4", "heads: Extra inputs are not permitted"), ("d_kv: '64'", "d_kv: Input should be a valid integer")],
)
def test_a_damaged_preset(text: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "odd.yaml").write_text(text)
    monkeypatch.setattr(read, "configs_directory", lambda: tmp_path)
    with pytest.raises(OptionError, match=found):
        preset("odd")


def test_configs_are_found_in_the_source_tree() -> None:
    assert (configs_directory() / "models" / "base.yaml").is_file()

"""optimum's `main_export` writes our graphs: a bundle's inputs and outputs, and what the torch stages give."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoConfig, AutoModel

from glimmer_export.exporter.bundle import FormOptions, choose_forms
from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.graphs.check import compare_outputs, run_stage
from glimmer_export.exporter.graphs.samples import Sizes, sample_inputs
from glimmer_export.exporter.stages import model_from_checkpoint, stage_from_model
from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.runtime.contract import CODECS, OptionError, codec_of, graph_io
from tests.exported import make_checkpoint
from tests.optimum_line import ABSENT

onnx_configs, submodels = (
    getattr(pytest.importorskip("glimmer_export.exporter.huggingface.optimum_export", reason=ABSENT), name)
    for name in ("onnx_configs", "submodels")
)

# torch deprecates the exporter that optimum uses. What it warns of beside that, such as a size that it freezes, fails.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SIZES = (
    Sizes(1, passages=1, selected=1, question=1, passage=1, encoder_tokens=1, prefix=1, cache_length=1),
    Sizes(3, passages=5, selected=3, question=4, passage=11, encoder_tokens=37, prefix=2, cache_length=6, positions=4),
)
"""None of the sizes that are traced at."""


@pytest.mark.parametrize(("variant", "forms"), [
    ("glimmer", FormOptions(codecs=("fp16",))),
    pytest.param("glimmer", FormOptions(codecs=tuple(CODECS)), marks=pytest.mark.slow),
    pytest.param("glimmer, every option", FormOptions(cross_attention="cached"), marks=pytest.mark.slow),
    pytest.param("lumen", FormOptions(cross_attention="cached"), marks=pytest.mark.slow),
    pytest.param("memory_fid", FormOptions(cross_attention="absorbed"), marks=pytest.mark.slow),
    pytest.param("memory_fid", FormOptions(cross_attention="cached"), marks=pytest.mark.slow),
    pytest.param("fid", FormOptions(), marks=pytest.mark.slow),
])  # fmt: skip
def test_the_graphs_are_a_bundles(tmp_path: Path, monkeypatch, variant, forms):
    from optimum.exporters.onnx import main_export

    monkeypatch.setattr(socket.socket, "connect", pytest.fail)
    directory = make_checkpoint(tmp_path / "checkpoint", variant)
    config = AutoConfig.from_pretrained(directory)
    main_export(
        str(directory), tmp_path / "onnx", task="text2text-generation", library_name="transformers",
        local_files_only=True, custom_onnx_configs=onnx_configs(config, forms),
        fn_get_submodels=partial(submodels, forms=forms),
    )
    model = model_from_checkpoint(read_checkpoint(directory))
    shape, chosen = model.config.shape, choose_forms(model.config, forms)
    graphs = graph_io(shape, chosen)
    assert {path.stem for path in (tmp_path / "onnx").glob("*.onnx")} == set(graphs)
    for name, io in graphs.items():
        path = tmp_path / "onnx" / f"{name}.onnx"
        assert declared(path) == (described(io.inputs), described(io.outputs))
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for seed, sizes in enumerate(SIZES):
            inputs = sample_inputs(io, shape, sizes, seed=seed + 1)
            outputs = session.run(None, inputs)
            found = dict(zip((tensor.name for tensor in io.outputs), outputs, strict=True))
            reference = run_stage(stage_from_model(model, name, chosen), io, inputs, codec_of(name))
            compare_outputs(name, found, reference, TOLERANCES["fp32"])


def described(tensors) -> list[tuple[str, tuple[int | str, ...]]]:
    return [(tensor.name, tensor.dims) for tensor in tensors]


def declared(path: Path) -> tuple[list[tuple[str, tuple[int | str, ...]]], ...]:
    """Names and dimensions of a file's inputs and outputs."""
    graph = onnx.load(path).graph
    return tuple(
        [(value.name, tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim))
         for value in values]
        for values in (graph.input, graph.output)
    )


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "checkpoint", "glimmer")


def test_another_dtype_is_refused(checkpoint):
    model = AutoModel.from_pretrained(checkpoint, dtype=torch.float16)
    with pytest.raises(OptionError, match=r"expected fp32.*found torch\.float16"):
        submodels(model)


def test_forms_that_do_not_fit_are_refused(tmp_path):
    directory = make_checkpoint(tmp_path / "lumen", "lumen")
    with pytest.raises(OptionError, match="a lumen ranks nothing"):
        onnx_configs(AutoConfig.from_pretrained(directory), FormOptions(stage_a="lazy"))


def test_optimum_takes_our_models_alone_for_transformers(checkpoint):
    from optimum.exporters.tasks import TasksManager

    assert TasksManager.infer_library_from_model(AutoModel.from_pretrained(checkpoint)) == "transformers"
    with pytest.raises(ValueError, match="could not be automatically inferred"):
        TasksManager.infer_library_from_model(torch.nn.Linear(1, 1))

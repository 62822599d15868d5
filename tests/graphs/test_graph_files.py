"""What is written in the graph files: the contract's I/O, standard operators, and nothing of the machine."""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from glimmer_export.exporter.graphs.write import WEIGHTS, WEIGHTS_DIGEST
from glimmer_export.runtime.contract import MANIFEST
from tests.bundle_factory import tree
from tests.exported import VARIANTS, Exported, make_checkpoint

ROOT = Path(__file__).resolve().parents[2]
OPSET = 20
# What TensorRT 10.3 cannot parse, or takes in a form that ONNX Runtime refuses; and whatever draws random numbers.
REFUSED = {
    "Attention", "RMSNormalization", "RotaryEmbedding", "MatMulInteger", "ConvInteger", "DynamicQuantizeLinear",
    "GatherND", "BitShift", "NonZero", "Loop", "Scan", "SequenceAt", "RandomNormal", "RandomUniform", "Dropout",
}
DTYPES = {"float32": onnx.TensorProto.FLOAT, "float16": onnx.TensorProto.FLOAT16, "int32": onnx.TensorProto.INT32}
INTEGERS = {"input_ids", "decoder_input_ids", "step", "selected", "next_token"}


def models(exported: Exported) -> dict[str, onnx.ModelProto]:
    return {name: onnx.load(exported.graph(name)) for name in exported.io}


def described(value: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
    tensor = value.type.tensor_type
    dims = [dim.dim_param if dim.HasField("dim_param") else dim.dim_value for dim in tensor.shape.dim]
    return value.name, tensor.elem_type, dims


@pytest.mark.parametrize("variant", VARIANTS)
def test_inputs_and_outputs_are_the_contracts(exported, variant):
    source = exported(variant)
    names = {path.name for path in (source.bundle / "graphs").iterdir()}
    assert names == {WEIGHTS, *(f"{name}.onnx" for name in source.io)}
    for name, model in models(source).items():
        io = source.io[name]
        for values, tensors in ((model.graph.input, io.inputs), (model.graph.output, io.outputs)):
            expected = [(tensor.name, DTYPES[tensor.dtype], list(tensor.dims)) for tensor in tensors]
            assert [described(value) for value in values] == expected, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_ids_masks_indices_and_steps_are_int32(exported, variant):
    for model in models(exported(variant)).values():
        for value in (*model.graph.input, *model.graph.output):
            is_integer = value.name in INTEGERS or value.name.endswith("mask")
            assert (value.type.tensor_type.elem_type == onnx.TensorProto.INT32) == is_integer, value.name


@pytest.mark.parametrize("variant", VARIANTS)
def test_standard_operators_of_opset_20_alone(exported, variant):
    for name, model in models(exported(variant)).items():
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)], name
        assert not model.functions, name
        assert {node.domain for node in model.graph.node} == {""}, name
        assert not {node.op_type for node in model.graph.node} & REFUSED, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_nodes_and_weights_are_named_by_their_modules(exported, variant):
    for name, model in models(exported(variant)).items():
        nodes = [node.name for node in model.graph.node]
        assert all(nodes), name
        assert len(set(nodes)) == len(nodes), name
    step = models(exported(variant))["decoder_step"].graph
    assert "decoder.block.0.layer.0.SelfAttention.o/MatMul" in {node.name for node in step.node}
    assert "decoder.block.0.layer.0.SelfAttention.o.weight" in {weight.name for weight in step.initializer}
    assert "decoder.block.0.layer.0.SelfAttention.k+v+q/MatMul" in {node.name for node in step.node}
    assert "decoder.block.0.layer.0.SelfAttention.k+v+q.weight" in {weight.name for weight in step.initializer}


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_of_the_machine_is_in_the_bytes(exported, variant):
    source = exported(variant)
    words = [str(source.directory), str(ROOT), sys.prefix, str(Path.home()), "site-packages", ".py", "pkg."]
    # Shorter names stand in random weights by chance.
    words += [name for name in (getpass.getuser(), os.environ.get("USER", ""), socket.gethostname()) if len(name) > 4]
    for name in source.io:
        content = source.graph(name).read_bytes()
        assert [word for word in words if word.encode() in content] == [], name
        model = onnx.load_from_string(content)
        assert (model.producer_name, model.producer_version, model.doc_string) == ("glimmer-export", "", "")
        assert [item.key for item in model.metadata_props] == [WEIGHTS_DIGEST], name
        for item in (model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
            assert not item.doc_string, name
            assert not getattr(item, "metadata_props", None), name


@pytest.fixture(scope="module")
def exported_again(glimmer: Exported, tmp_path_factory) -> tuple[Path, dict]:
    """The same checkpoint by the command, in another process, from another folder, over something that was there."""
    directory = tmp_path_factory.mktemp("elsewhere") / "deep" / "folder"
    directory.mkdir(parents=True)
    make_checkpoint(directory / "other name", "glimmer")
    (directory / "out").mkdir()
    for name in (MANIFEST, "old.txt"):
        (directory / "out" / name).write_text("from before", encoding="utf-8")
    command = [sys.executable, "-c", "from glimmer_export.exporter.cli import main; main()"]
    done = subprocess.run(
        [*command, "export", "other name", "-o", "out", "--overwrite", "--json", "--stage-a", "full",
         "--cross-attention", "cached", "--codecs", "fp16"], cwd=directory,
        env={**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": str(ROOT), "USER": "somebody-else"},
        capture_output=True, text=True, check=False,
    )
    assert done.returncode == 0, done.stderr
    return directory, json.loads(done.stdout)


def test_exporting_again_elsewhere_gives_the_same_bytes(glimmer, exported_again):
    directory, _ = exported_again
    assert tree(directory / "out") == tree(glimmer.bundle)
    assert (directory / "out" / MANIFEST).read_bytes() == (glimmer.bundle / MANIFEST).read_bytes()


def test_overwrite_replaces_and_leaves_nothing_beside(exported_again):
    directory, _ = exported_again
    assert not (directory / "out" / "old.txt").exists()
    assert {path.name for path in directory.iterdir()} == {"other name", "other name.tokenizer.json", "out"}


def test_export_reports_every_graph(glimmer, exported_again):
    _, report = exported_again
    assert report["bundle"] == "out"
    assert list(report["graphs"]) == list(glimmer.io)
    assert report["bytes"] == sum(path.stat().st_size for path in (glimmer.bundle / "graphs").iterdir())
    for graph in glimmer.graphs:
        entry = report["graphs"][graph.name]
        assert entry["parameters"] == graph.num_parameters > 0
        assert entry["bytes"] == graph.written.num_bytes > glimmer.graph(graph.name).stat().st_size
        assert 0 <= entry["max_abs_err"] < 1e-3
        assert entry["seconds"] > 0

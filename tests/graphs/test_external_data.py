"""The weights of all graphs lie in one file: what they share once, found again by its content."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from glimmer_export.exporter.graphs.write import (
    ALIGNMENT,
    EXTERNAL_BYTES,
    WEIGHTS,
    WEIGHTS_DIGEST,
    weights_file,
    write_graph,
)
from glimmer_export.runtime.contract import file_digest, read_manifest
from tests.bundle_factory import tree
from tests.exported import Exported, write_alone

Place = tuple[int, int]


def places(path: Path) -> dict[str, Place]:
    """Offset and length of every weight of a graph that lies outside, by its name."""
    found = {}
    for weight in onnx.load(path, load_external_data=False).graph.initializer:
        if weight.data_location == onnx.TensorProto.EXTERNAL:
            entry = {pair.key: pair.value for pair in weight.external_data}
            assert entry["location"] == WEIGHTS
            found[weight.name] = (int(entry["offset"]), int(entry["length"]))
    return found


def place_of(source: Exported, graph: str, weight: str) -> Place:
    (found,) = (place for name, place in places(source.graph(graph)).items() if weight in name)
    return found


@pytest.mark.parametrize("variant", ["glimmer, codecs", "glimmer, every option", "lumen"])
def test_no_content_is_in_the_file_twice(exported, variant):
    source = exported(variant)
    content = (source.bundle / "graphs" / WEIGHTS).read_bytes()
    every = sorted({place for name in source.io for place in places(source.graph(name)).values()})
    digests = [hashlib.sha256(content[offset : offset + length]).hexdigest() for offset, length in every]
    assert len(set(digests)) == len(digests)
    assert all(offset % ALIGNMENT == 0 and length >= EXTERNAL_BYTES for offset, length in every)
    assert all(first[0] + first[1] <= second[0] for first, second in pairwise(every))
    assert every[-1][0] + every[-1][1] == len(content)


def test_the_embedding_is_shared(exported):
    source = exported("glimmer, every option")
    graphs = ("memory_encoder", "question_encoder", "decoder_step")
    assert len({place_of(source, name, "shared.") for name in graphs}) == 1


def test_lazy_stage_a_and_stage_b_share_a_layer(exported):
    source = exported("glimmer, exact algebra")
    for weight in ("block.0.layer.1.DenseReluDense.wi_0", "block.0.layer.1.DenseReluDense.wo"):
        assert place_of(source, "live_stage_a", weight) == place_of(source, "live_stage_b", weight)


def test_the_graphs_of_all_codecs_share_their_weights(exported):
    source = exported("glimmer, codecs")
    weights = [
        {name: place for name, place in places(source.graph(graph)).items() if not name.startswith("codec/")}
        for graph in source.io if graph.startswith("live_stage_b")
    ]
    assert len(weights) == 8
    assert weights[0]
    assert all(other == weights[0] for other in weights)


def test_the_manifest_counts_the_weights(exported):
    source = exported("glimmer, codecs")
    manifest = read_manifest(source.bundle)
    assert manifest.weights is not None
    assert manifest.weights.sha256 == file_digest(source.bundle / "graphs" / WEIGHTS)
    every: set[Place] = set()
    for name, graph in manifest.graphs.items():
        own = set(places(source.graph(name)).values())
        assert graph.weight_bytes == sum(length for _, length in own)
        assert graph.num_bytes == graph.weight_bytes + source.graph(name).stat().st_size
        every |= own
    assert sum(length for _, length in every) < sum(graph.weight_bytes for graph in manifest.graphs.values()) / 2
    paths = [file.path for file in manifest.graph_files()]
    assert sorted(paths) == sorted({f"graphs/{path.name}" for path in (source.bundle / "graphs").iterdir()})


def graph_of(weight: np.ndarray) -> ir.Model:
    value = ir.Value(name="weight", const_value=ir.tensor(weight, name="weight"))
    node = ir.node("Identity", [value])
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=[value], opset_imports={"": 20}, name="graph")
    return ir.Model(graph, ir_version=10)


def test_the_digest_of_a_graph_covers_its_weights(tmp_path):
    """Engines and tables of ranges know a graph by the digest of its own file."""
    weight = np.arange(1024, dtype=np.float32)
    changed = weight.copy()
    changed[7] += 1
    paths = [write_alone(graph_of(values), tmp_path / str(place), "graph")
             for place, values in enumerate((weight, weight, changed))]  # fmt: skip
    digests = [file_digest(path) for path in paths]
    assert digests[0] == digests[1] != digests[2]
    assert tree(tmp_path / "0") == tree(tmp_path / "1")
    notes = [{item.key: item.value for item in onnx.load(path).metadata_props} for path in paths]
    assert notes[0][WEIGHTS_DIGEST] != notes[2][WEIGHTS_DIGEST]


def test_shapes_and_names_may_differ_and_small_tensors_stay(tmp_path):
    weight = np.arange(1024, dtype=np.float32)
    with weights_file(tmp_path) as weights:
        first = write_graph(graph_of(weight), "first", weights)
        size = weights.entry(tmp_path).bytes
        write_graph(graph_of(weight.reshape(32, 32)), "second", weights)
        small = write_graph(graph_of(weight[: EXTERNAL_BYTES // 4 - 1]), "small", weights)
        assert weights.entry(tmp_path).bytes == size == first.weight_bytes
        assert small.weight_bytes == 0
    assert places(small.path) == {}
    assert places(tmp_path / "second.onnx") == places(first.path)
    (found,) = onnx.load(tmp_path / "second.onnx").graph.initializer
    assert (onnx.numpy_helper.to_array(found) == weight.reshape(32, 32)).all()

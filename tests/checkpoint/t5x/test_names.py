"""What a T5X tree must hold, under which names and in which shapes; what is missing, left over or unknown is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from glimmer_export.exporter.checkpoint.t5x import Conversion, T5xArrays, convert_t5x, read_name_map
from glimmer_export.exporter.checkpoint.t5x.name_map import layer_path
from glimmer_export.runtime.contract import CheckpointError, OptionError
from tests.checkpoint.golden.known import DIRECTORY, GOLDEN, KNOWN, known_weights
from tests.checkpoint.t5x_trees import read_tree, write_tree

Arrays = dict[str, np.ndarray]
QUERY = "encoder/layers_1/attention/query/kernel"
BIAS = "encoder/relpos_bias/rel_embedding"
INLINE = DIRECTORY / "t5x_inline"
LUMEN = DIRECTORY / "orbax_zarr3"


def read(directory: Path, model: str = "fid", allow: tuple[str, ...] = (), **names: str | None) -> Conversion:
    return convert_t5x(directory, KNOWN[model], {key.replace("__", "."): path for key, path in names.items()},
                       allow_unused=allow)


def refused(directory: Path, model: str = "fid", allow: tuple[str, ...] = (), **names: str | None) -> str:
    with pytest.raises(CheckpointError) as caught:
        read(directory, model, allow, **names)
    return str(caught.value)


def changed(tmp_path: Path, change: Callable[[Arrays], object]) -> Path:
    arrays = read_tree(INLINE)
    change(arrays)
    return write_tree(tmp_path / "step", arrays)


def assert_known(conversion: Conversion, model: str = "fid") -> None:
    expected = known_weights(model)
    assert conversion.tensors.keys() == expected.keys()
    assert all(torch.equal(conversion.tensors[name], tensor) for name, tensor in expected.items())


# Names.


def test_all_that_is_missing_is_listed_with_where_it_was_looked_for(tmp_path: Path) -> None:
    def drop(arrays: Arrays) -> None:
        for name in [QUERY, BIAS, "encoder/layers_0/attention/query/kernel", "decoder/logits_dense/kernel"]:
            del arrays[name]

    message = refused(changed(tmp_path, drop))
    assert (
        "no live_encoder.block.*.layer.0.SelfAttention.q.weight (as encoder/layers_*/attention/query/kernel) (x2); "
        "no live_encoder.block.*.layer.0.SelfAttention.relative_attention_bias.weight (as "
        "encoder/relpos_bias/rel_embedding); no lm_head.weight (as decoder/logits_dense/kernel)"
    ) in message
    assert "unused" not in message


def test_all_that_is_left_over_is_listed(tmp_path: Path) -> None:
    extra = {f"encoder/layers_{layer}/adapter/kernel": np.ones((3, 4), np.float32) for layer in range(3)}
    extra["other"] = np.arange(5.0, dtype=np.float32)
    step = changed(tmp_path, lambda arrays: arrays.update(extra))
    assert "found unused encoder/layers_*/adapter/kernel (x3), other; " in refused(step)
    assert "found unused other; " in refused(step, allow=("*/adapter/*",))
    found = read(step, allow=("*/adapter/*", "other"))
    assert found.unused == (*(f"encoder/layers_{layer}/adapter/kernel" for layer in range(3)), "other")
    assert_known(found)


def test_missing_and_left_over_are_listed_together() -> None:
    """A tree whose names are not those of the map says both: the one is the other's place."""
    message = refused(LUMEN, "lumen", memory_encoder="passage_encoder")
    assert "no memory_encoder.block.*.layer.0.SelfAttention.q.weight (as passage_encoder/layers_*/attention/" in message
    assert "unused memory_encoder/encoder/attention/key/kernel" in message


def test_more_layers_than_the_config(tmp_path: Path) -> None:
    config = KNOWN["fid"].model_copy(update={"num_stage_b_layers": 2})
    with pytest.raises(CheckpointError, match=r"unused encoder/layers_\*/attention/key/kernel, encoder/layers_\*/att"):
        convert_t5x(INLINE, config, {})


def test_fewer_layers_than_the_config() -> None:
    config = KNOWN["fid"].model_copy(update={"num_decoder_layers": 4})
    with pytest.raises(CheckpointError, match=r"no decoder.block.\*.layer.0.SelfAttention.q.weight .* \(x2\)"):
        convert_t5x(INLINE, config, {})


def test_a_tied_model_has_no_projection() -> None:
    config = KNOWN["fid"].model_copy(update={"tie_word_embeddings": True})
    with pytest.raises(CheckpointError, match="found unused decoder/logits_dense/kernel; "):
        convert_t5x(INLINE, config, {})


# Shapes.


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        (QUERY, (12, 16), r"\[12, 12\] or \[12, 3, 4\], for live_encoder.block.1.layer.0.SelfAttention.q.weight"),
        (QUERY, (12, 4, 3), r"\[12, 12\] or \[12, 3, 4\]"),
        ("encoder/layers_1/attention/out/kernel", (12, 3, 4), r"\[12, 12\] or \[3, 4, 12\]"),
        ("decoder/layers_0/mlp/wi_0/kernel", (20, 12), r"\[12, 20\]"),
        ("decoder/layers_0/mlp/wo/kernel", (12, 20), r"\[20, 12\]"),
        ("token_embedder/embedding", (12, 40), r"\[40, 12\], for shared.weight"),
        ("decoder/logits_dense/kernel", (40, 12), r"\[12, 40\], for lm_head.weight"),
        ("encoder/encoder_norm/scale", (1, 12), r"\[12\], for live_encoder.final_layer_norm.weight"),
        (BIAS, (8, 3), r"\[3, 8\] or \[3, 3, 8\]"),
    ],
)
def test_a_wrong_shape(tmp_path: Path, name: str, shape: tuple[int, ...], expected: str) -> None:
    array = np.linspace(1, 2, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    message = refused(changed(tmp_path, lambda arrays: arrays.update({name: array})))
    assert re.search(f"{name}: expected shape {expected}.* found {re.escape(str(list(shape)))}", message), message


def test_a_head_size_that_the_tables_contradict() -> None:
    """Kernels of 12 columns are 3 heads of 4 or 6 of 2; the tables of the relative bias tell."""
    config = KNOWN["fid"].model_copy(update={"num_heads": 6, "d_kv": 2})
    with pytest.raises(CheckpointError, match=r"rel_embedding: expected shape \[6, 8\] or .* found \[3, 8\]"):
        convert_t5x(INLINE, config, {})


def test_multi_query_attention_is_a_wrong_shape(tmp_path: Path) -> None:
    array = np.linspace(1, 2, 48, dtype=np.float32).reshape(12, 4)
    step = changed(tmp_path, lambda arrays: arrays.update({"decoder/layers_0/self_attention/key/kernel": array}))
    assert "self_attention/key/kernel: expected shape [12, 12] or [12, 3, 4]" in refused(step)


# The relative bias: one table for a stack, or one a layer.


def stacked_bias(arrays: Arrays, scale: float) -> None:
    table = arrays[BIAS]
    arrays[BIAS] = np.stack([table, table * scale, table], axis=1).astype(np.float32)


def separate_bias(arrays: Arrays, scale: float) -> None:
    table = arrays.pop(BIAS)
    for layer in range(3):
        factor = np.float32(scale if layer == 2 else 1)
        arrays[f"encoder/layers_{layer}/relpos_bias/rel_embedding"] = table * factor


@pytest.mark.parametrize("layout", [stacked_bias, separate_bias])
def test_tables_of_all_layers_become_one_where_they_agree(tmp_path: Path, layout: Callable[..., None]) -> None:
    assert_known(read(changed(tmp_path, lambda arrays: layout(arrays, 1))))


@pytest.mark.parametrize("layout", [stacked_bias, separate_bias])
def test_tables_that_differ(tmp_path: Path, layout: Callable[..., None]) -> None:
    message = refused(changed(tmp_path, lambda arrays: layout(arrays, 1.25)))
    assert "rel_embedding: expected the same relative bias in every layer, found layers that differ" in message


def test_a_table_that_one_layer_lacks(tmp_path: Path) -> None:
    def drop(arrays: Arrays) -> None:
        separate_bias(arrays, 1)
        del arrays["encoder/layers_1/relpos_bias/rel_embedding"]

    assert "(as encoder/layers_*/relpos_bias/rel_embedding)" in refused(changed(tmp_path, drop))


# FiDO.


def test_sparse_cross_attention(tmp_path: Path) -> None:
    def thin_out(arrays: Arrays) -> None:
        for name in [name for name in arrays if name.startswith("decoder/layers_0/") and "cross" in name]:
            del arrays[name]
        for name in [name for name in arrays if name.startswith("decoder/layers_0/encoder_decoder")]:
            del arrays[name]

    assert refused(changed(tmp_path, thin_out)).endswith(
        "expected cross-attention in all 2 decoder layers, found in 1; FiDO's sparse cross-attention is not supported"
    )


def scan(arrays: Arrays, root: str, count: int) -> None:
    layers = {name.partition("/layers_0/")[2] for name in arrays if name.startswith(f"{root}/layers_0/")}
    for below in layers:
        parts = [arrays.pop(name) for i in range(count) if (name := f"{root}/layers_{i}/{below}") in arrays]
        arrays[f"{root}/{root}/{below}"] = np.stack(parts, axis=1)


def test_sparse_cross_attention_in_stacked_layers(tmp_path: Path) -> None:
    def thin_out(arrays: Arrays) -> None:
        for name in [name for name in arrays if name.startswith("decoder/layers_1/encoder_decoder")]:
            del arrays[name]
        scan(arrays, "decoder", 2)

    assert "FiDO's sparse cross-attention is not supported" in refused(changed(tmp_path, thin_out))


def test_stacked_layers_without_an_axis_for_heads(tmp_path: Path) -> None:
    def stack(arrays: Arrays) -> None:
        scan(arrays, "decoder", 2)
        scan(arrays, "encoder", 3)

    assert_known(read(changed(tmp_path, stack)))


def test_stacked_layers_of_another_depth(tmp_path: Path) -> None:
    step = changed(tmp_path, lambda arrays: scan(arrays, "encoder", 2))
    message = refused(step, allow=("encoder/layers_2/*",))
    assert "expected shape [12, 3, 12] or [12, 3, 3, 4]" in message
    assert "found [12, 2, 12]" in message


# The map.


def test_one_encoder_cut_by_depth(tmp_path: Path) -> None:
    """A LUMEN that T5X keeps as one encoder: `{i+2}` begins the live layers behind the memory's two."""
    weights = known_weights("lumen")
    live = {name: tensor for name, tensor in weights.items() if name.startswith("live_encoder")}
    tree = convert_back(weights, "memory_encoder", 0) | convert_back(live, "live_encoder", 2)
    arrays = {f"encoder/{name}": array for name, array in tree.items()}
    arrays["encoder/relpos_bias/rel_embedding"] = arrays.pop("encoder/live_bias")
    arrays["memory_bias"] = arrays.pop("encoder/memory_bias")
    decoder = {name: array for name, array in lumen_tree().items() if not name.startswith(("memory_", "live_"))}
    step = write_tree(tmp_path / "step", arrays | decoder)
    names = {
        "memory_encoder__block": "encoder/layers_{i}", "memory_encoder__relative_attention_bias": "memory_bias",
        "live_encoder": "encoder", "live_encoder__block": "encoder/layers_{i+2}",
    }
    assert_known(read(step, "lumen", **names), "lumen")


def convert_back(weights: dict[str, torch.Tensor], stack: str, first: int) -> dict[str, np.ndarray]:
    """A stack's tensors under T5X's names."""
    attention = {"q": "query", "k": "key", "v": "value", "o": "out"}
    arrays = {}
    for name, tensor in weights.items():
        match name.split("."):
            case [owner, "block", _, "layer", _, "SelfAttention", "relative_attention_bias", _] if owner == stack:
                arrays[f"{stack.removesuffix('_encoder')}_bias"] = tensor.T.contiguous().numpy()
            case [owner, "block", index, "layer", _, "SelfAttention", projection, _] if owner == stack:
                below = f"attention/{attention[projection]}/kernel"
                arrays[f"layers_{int(index) + first}/{below}"] = tensor.T.contiguous().numpy()
            case [owner, "block", index, "layer", _, "DenseReluDense", projection, _] if owner == stack:
                arrays[f"layers_{int(index) + first}/mlp/{projection}/kernel"] = tensor.T.contiguous().numpy()
            case [owner, "block", index, "layer", place, "layer_norm", _] if owner == stack:
                below = ("pre_attention_layer_norm", "pre_mlp_layer_norm")[int(place)]
                arrays[f"layers_{int(index) + first}/{below}/scale"] = tensor.numpy()
            case [owner, "final_layer_norm", _] if owner == stack:
                arrays["encoder_norm/scale"] = tensor.numpy()
    return arrays


def lumen_tree() -> dict[str, np.ndarray]:
    arrays = T5xArrays(LUMEN)
    return {name: arrays.tensor(name).numpy() for name in arrays.shapes()}


def test_a_score_without_a_bias(tmp_path: Path) -> None:
    golden = DIRECTORY / "t5x_zarr"
    passages = "passage_encoder"
    assert "unused score/bias" in refused(golden, "glimmer", memory_encoder=passages, score__bias=None)
    found = read(golden, "glimmer", ("score/bias",), memory_encoder=passages, score__bias=None)
    assert found.tensors["score.bias"].tolist() == [0.0]
    expected = known_weights(*GOLDEN["t5x_zarr"])["score.weight"]
    assert torch.equal(found.tensors["score.weight"], expected)


def test_one_array_may_be_read_twice(tmp_path: Path) -> None:
    """Parts that share weights in training are tensors of their own here."""
    names = {"question_encoder": "passage_encoder", "memory_encoder": "passage_encoder"}
    found = read(DIRECTORY / "t5x_zarr", "glimmer", ("question_encoder/*",), **names).tensors
    first, second = (found[f"{stack}.final_layer_norm.weight"] for stack in ("question_encoder", "memory_encoder"))
    assert torch.equal(first, second)
    assert first.data_ptr() != second.data_ptr()


def test_a_separate_reranker_is_a_stack_of_its_own(tmp_path: Path) -> None:
    """Under its own name, or where the map says: here the first live layer and its table, as a reranker begins."""
    golden = DIRECTORY / "t5x_zarr"
    config = KNOWN["glimmer"].model_copy(update={"separate_reranker": True, "num_stage_b_layers": 2})
    names = {"memory_encoder": "passage_encoder"}
    with pytest.raises(CheckpointError, match=r"no reranker\.block\.\*\.\S+ \(as reranker/layers_\*/attention/query"):
        convert_t5x(golden, config, names)
    found = convert_t5x(golden, config, {**names, "reranker": "live_encoder"}).tensors
    ranking = [name for name in found if name.startswith("reranker.")]
    assert {name.split(".")[2] for name in ranking} == {"0"}
    assert all(torch.equal(found[name], found[name.replace("reranker", "live_encoder")]) for name in ranking)


def test_a_map_is_read(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("memory_encoder: passage_encoder\nlive_encoder.block: enc/layers_{i+4}\nscore.bias: null\n")
    assert read_name_map(path) == {
        "memory_encoder": "passage_encoder", "live_encoder.block": "enc/layers_{i+4}", "score.bias": None,
    }
    assert layer_path("enc/layers_{i+4}/x_{i}", 7) == "enc/layers_11/x_7"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("[1, 2]", "expected a YAML mapping .* found list"),
        ("", "expected a YAML mapping .* found NoneType"),
        ("a: [", "expected a YAML mapping"),
        ("\xff", "expected a YAML mapping"),
        ("memory: x", "expected prefixes of shared, memory_encoder, .* found 'memory'"),
        ("1: x", "found 1"),
        ("memory_encoder.blocks: x", "found 'memory_encoder.blocks'"),
        ("memory_encoder: 3", "map.yaml, memory_encoder: expected names with slashes between them, found 3"),
        ("memory_encoder: null", "found None"),
        ("score.weight: null", "found None"),
        ("memory_encoder: ''", "found ''"),
        ("memory_encoder: /a", "found '/a'"),
        ("memory_encoder: a//b", "found 'a//b'"),
        ("memory_encoder: a{i}", "found 'a{i}'"),
        ("memory_encoder.block: a{j}", "with {i} or {i\\+4} for the layer, found 'a{j}'"),
        ("memory_encoder.block: a{i-1}", "found 'a{i-1}'"),
        ("memory_encoder.block: a{i.x}", "found"),
    ],
)
def test_a_bad_map(tmp_path: Path, content: str, match: str) -> None:
    path = tmp_path / "map.yaml"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(OptionError, match=match):
        read_name_map(path)


def test_no_map(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"map\.yaml: expected a YAML mapping"):
        read_name_map(tmp_path / "map.yaml")

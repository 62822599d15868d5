"""The largest batch of a profile: no larger than its tensors fit, the same in every graph that runs on questions."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from glimmer_export.exporter.checkpoint.config import parse_config
from glimmer_export.exporter.checkpoint.options import ModelOptions, config_from_options
from glimmer_export.exporter.checkpoint.t5_shape import preset
from glimmer_export.exporter.config.targets import Profile
from glimmer_export.exporter.demo.world import CHECKPOINT
from glimmer_export.exporter.engines.profiles import batch_bounds, graph_profiles
from glimmer_export.runtime.contract import ARCHITECTURES, EngineError, ModelShape
from glimmer_export.runtime.contract.graph_io import CROSS_ATTENTION_FORMS
from tests.engines.manifests import GPUS, manifest_of

T4 = GPUS["t4"]
TEXTS = "memory_encoder"


def shape_of(config) -> ModelShape:
    return ModelShape(**{name: getattr(config, name) for name in ModelShape.field_names()})


def base(architecture: str) -> ModelShape:
    return shape_of(config_from_options(ModelOptions(architecture), preset("base"), subject="base"))


def tiny(architecture: str = "lumen") -> ModelShape:
    changes = {
        "vocab_size": 50, "d_model": 8, "d_kv": 4, "d_ff": 16, "num_heads": 2, "num_decoder_layers": 3,
        "question_length": 4, "passage_length": 6, "num_retrieved": 5, "max_new_tokens": 3,
    }  # fmt: skip
    return replace(base(architecture), **changes, num_selected=2 if ARCHITECTURES[architecture].selects else None)


def largest(manifest, graph: str, gpu) -> list[int]:
    """The greatest batch of each profile that is left."""
    return [next(iter(profile.values())).max[0] for profile in graph_profiles(manifest, graph, gpu)]


def gpu(workspace_mib: int = 1, memory_gb: float = 1.0, batches=((1, 1, 1), (2, 4, 8))):
    profiles = tuple(Profile(batch=batch, texts=batch, text="passage") for batch in batches)
    return T4.model_copy(update={"workspace_mib": workspace_mib, "memory_gb": memory_gb, "profiles": profiles})


def cached_bytes(shape: ModelShape) -> int:
    """Of one question of `lumen`, cached: states in, and K and V of every layer out, in FP32."""
    tokens = shape.num_retrieved * (shape.question_length + shape.passage_length)
    return 4 * tokens * (shape.d_model + 2 * shape.num_decoder_layers * shape.num_heads * shape.d_kv)


@pytest.mark.parametrize("cross_attention", CROSS_ATTENTION_FORMS)
@pytest.mark.parametrize("target", GPUS)
def test_demo_and_base_size_keep_the_batches_of_every_target(target, cross_attention):
    demo = shape_of(parse_config(json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8")), subject="demo"))
    asked = {rows: [getattr(profile, rows)[2] for profile in GPUS[target].profiles] for rows in ("batch", "texts")}
    for shape in (demo, base("glimmer")):
        for stage_a in ("lazy", "full"):
            manifest = manifest_of(shape, cross_attention, stage_a, graph_bytes=200_000_000)
            for name in manifest.graphs:
                assert largest(manifest, name, GPUS[target]) == asked["texts" if name == TEXTS else "batch"], name


@pytest.mark.parametrize(("fp16_boundaries", "most"), [(False, 8), (True, 16)])
def test_lumens_cache_bounds_the_batch_of_a_t4(fp16_boundaries, most):
    manifest = manifest_of(base("lumen"), "cached", fp16_boundaries=fp16_boundaries)
    one = (2 if fp16_boundaries else 4) * 25 * 256 * 768 * (1 + 2 * 12)
    bound = batch_bounds(manifest, T4, "cross_kv")[1]
    assert (bound.rows, bound.graph, bound.row_bytes) == ("questions", "cross_kv", one)
    assert (bound.limit, bound.limit_bytes, bound.asked) == ("workspace_mib", 4 << 30, 16)
    assert bound.most == min((4 << 30) // one, 16) == most
    for name in manifest.graphs:
        assert largest(manifest, name, T4) == ([1, 64] if name == TEXTS else [1, most]), name
    shapes = graph_profiles(manifest, "cross_kv", T4)[1]["encoder_hidden_states"]
    assert [dims[0] for dims in (shapes.min, shapes.opt, shapes.max)] == [2, 8, most]


@pytest.mark.parametrize("most", [7, 4, 2])
def test_memory_beside_the_weights_bounds_every_graph_alike(most):
    shape = tiny()
    manifest = manifest_of(shape, "cached", graph_bytes=1_000_000)
    weights = 1_000_000 * len(manifest.graphs)
    one = cached_bytes(shape)
    target = gpu(memory_gb=(weights + most * one + one / 2) / 0.9e9)
    for name in manifest.graphs:
        if name == TEXTS:
            continue
        bound = batch_bounds(manifest, target, name)[1]
        assert (bound.row_bytes, bound.most, bound.limit) == (one, most, "memory_gb")
        assert bound.limit_bytes // one == most
        sizes = next(iter(graph_profiles(manifest, name, target)[1].values()))
        assert (sizes.min[0], sizes.opt[0], sizes.max[0]) == (2, min(4, most), most)


def test_a_small_workspace_bounds_the_batch():
    shape = replace(tiny(), num_retrieved=50, num_decoder_layers=12)
    one = cached_bytes(shape)
    target = gpu(workspace_mib=1)
    assert 1 < (1 << 20) // one < 8
    manifest = manifest_of(shape, "cached")
    assert largest(manifest, "decoder_step", target) == [1, (1 << 20) // one]
    assert largest(manifest, "decoder_step", gpu(workspace_mib=4)) == [1, 8]


def test_a_profile_whose_least_batch_does_not_fit_is_left_out():
    shape = tiny()
    manifest, one = manifest_of(shape, "cached"), cached_bytes(shape)
    target = gpu(memory_gb=1.5 * one / 0.9e9)
    assert [bound.most for bound in batch_bounds(manifest, target, "live_stage_b")] == [1, 1]
    for name in manifest.graphs:
        assert len(graph_profiles(manifest, name, target)) == (2 if name == TEXTS else 1)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ({"memory_gb": 1e-5}, r"9,000 bytes, which memory_gb allows, found 11,200 bytes .* batch, of 1 questions"),
        ({"memory_gb": 2e-5, "batches": ((2, 4, 8),)}, r"18,000 bytes.*found 22,400 bytes .* batch, of 2 questions"),
        ({"memory_gb": 0.001, "weights": 10**9}, r"0 bytes, which memory_gb allows"),
    ],
)
def test_a_smallest_batch_that_does_not_fit_is_an_error(target, said):
    manifest = manifest_of(tiny(), "cached", graph_bytes=target.pop("weights", 0))
    with pytest.raises(EngineError, match=f"graph cross_kv: expected tensors of at most {said}"):
        graph_profiles(manifest, "decoder_step", gpu(**target))


@pytest.mark.parametrize(("precision", "element"), [("fp16", 2), ("int8-fp16", 2), ("fp32", 4), ("int8", 4)])
def test_encoder_layers_take_their_hidden_tensors(precision, element):
    shape = tiny("glimmer")
    layer = 2 * 4 * shape.d_model + 3 * element * shape.d_ff
    read = shape.num_retrieved * (shape.question_length + shape.passage_length)
    memory = shape.num_retrieved * (2 * shape.passage_length * shape.d_model + 4 + 4 * shape.passage_length)
    question = 4 * shape.question_length * (shape.d_model + 1)
    full = manifest_of(shape, "absorbed", precision=precision)
    bound = batch_bounds(full, T4, "live_stage_a")[0]
    states = 4 * read * shape.d_model + 4 * shape.num_retrieved
    assert (bound.graph, bound.row_bytes) == ("live_stage_a", question + memory + states + read * layer)
    # A lazy layer takes no hidden tensors for tokens that nobody scores, but leaves the layer to stage B.
    lazy = manifest_of(replace(shape, num_stage_a_layers=1, num_stage_b_layers=1), "absorbed", "lazy")
    bound = batch_bounds(lazy, T4, "live_stage_a")[0]
    assert bound.graph == "live_stage_b"
    texts = batch_bounds(full, T4, TEXTS)[0]
    tokens = max(shape.question_length, shape.passage_length)
    assert (texts.rows, texts.row_bytes) == ("texts", tokens * (8 + 4 * shape.d_model + layer))

"""Optimization profiles: every input of every graph has sizes, in order, that belong together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glimmer_export.exporter.config.targets import Profile
from glimmer_export.exporter.engines.profiles import dim_sizes, graph_profiles
from glimmer_export.runtime.contract import ARCHITECTURES, ModelShape
from glimmer_export.runtime.contract.graph_io import CROSS_ATTENTION_FORMS
from tests.engines.manifests import GPUS, manifest_of

SHAPE = ModelShape(
    architecture="glimmer", vocab_size=50, d_model=8, d_kv=4, d_ff=16, num_heads=2, feed_forward_proj="relu",
    num_memory_layers=1, num_stage_a_layers=1, num_stage_b_layers=1, num_decoder_layers=1,
    separate_question_encoder=True, question_length=48, passage_length=304, question_template="{question}",
    passage_template="{text}", num_retrieved=25, num_selected=5, max_new_tokens=32, pad_token_id=0, eos_token_id=1,
    decoder_start_token_id=0,
)
SIZE = st.integers(1, 400)


def shape_of(architecture: str, **changes: int) -> ModelShape:
    selected = 5 if ARCHITECTURES[architecture].selects else None
    return replace(SHAPE, architecture=architecture, num_selected=selected, **changes)


@st.composite
def ranges(draw):
    numbers = sorted(draw(st.lists(SIZE, min_size=3, max_size=3)))
    return tuple(draw(st.sampled_from([number, "model"])) for number in numbers)


PROFILES = st.builds(
    Profile, batch=ranges(), texts=ranges(), text=st.sampled_from(["question", "passage"]), passages=ranges(),
    selected=ranges(), question_tokens=ranges(), passage_tokens=ranges(),
    positions=st.sampled_from([(1, 1, 1), (1, 5, 9)]),
)
SHAPES = st.builds(
    shape_of, st.sampled_from(list(ARCHITECTURES)), question_length=SIZE, passage_length=SIZE, num_retrieved=SIZE,
    max_new_tokens=SIZE,
)


@settings(deadline=None)
@given(SHAPES, PROFILES, st.sampled_from(["memory_encoder", "live_stage_b", "decoder_step"]))
def test_sizes_are_in_order_and_belong_together(shape, profile, graph):
    sizes = dim_sizes(shape, profile, graph)
    assert all(0 < size.min <= size.opt <= size.max for size in sizes.values())
    assert sizes["cache_length"] == (shape.cache_length,) * 3
    if graph == "memory_encoder":
        assert sizes["tokens"].max == max(sizes["question"].max, sizes["passage"].max)
        return
    for place in range(3):
        assert sizes["tokens"][place] == sizes["question"][place] + sizes["passage"][place]
        read = sizes["tokens" if shape.architecture != "memory_fid" else "passage"][place]
        assert sizes["encoder_tokens"][place] == sizes["selected"][place] * read


def profiles_of(architecture: str, cross_attention: str, gpu, **changes: int):
    manifest = manifest_of(shape_of(architecture, **changes), cross_attention)
    return {name: graph_profiles(manifest, name, gpu) for name in manifest.graphs}, manifest.graphs


@pytest.mark.parametrize("cross_attention", CROSS_ATTENTION_FORMS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("target", GPUS)
def test_every_input_of_every_graph_has_its_shapes(target, architecture, cross_attention):
    found, graphs = profiles_of(architecture, cross_attention, GPUS[target])
    for name, graph in graphs.items():
        for profile in found[name]:
            assert list(profile) == [tensor.name for tensor in graph.inputs]
            for tensor in graph.inputs:
                dims = profile[tensor.name]
                assert len(dims.min) == len(dims.opt) == len(dims.max) == len(tensor.dims)
                for low, middle, high, dim in zip(dims.min, dims.opt, dims.max, tensor.dims, strict=True):
                    assert low <= middle <= high
                    if isinstance(dim, int):
                        assert low == high == dim


def test_profiles_by_hand():
    found, _ = profiles_of("glimmer", "absorbed", GPUS["t4"])
    one, many = found["live_stage_b"]
    assert (one["selected"].min, one["selected"].opt, one["selected"].max) == ((1, 1), (1, 5), (1, 5))
    assert (many["selected"].min, many["selected"].opt, many["selected"].max) == ((2, 1), (8, 5), (16, 5))
    assert (one["rerank_states"].min, one["rerank_states"].max) == ((1, 1, 2, 8), (1, 25, 352, 8))
    question, passages = found["memory_encoder"]
    assert (question["input_ids"].min, question["input_ids"].opt, question["input_ids"].max) == (
        (1, 1), (1, 48), (1, 304),
    )
    assert (passages["input_ids"].min, passages["input_ids"].opt, passages["input_ids"].max) == (
        (2, 1), (16, 304), (64, 304),
    )
    step = found["decoder_step"][0]
    assert step["encoder_hidden_states"].opt == (1, 5 * 352, 8)
    assert step["past_key_values.0.decoder.key"].min == step["past_key_values.0.decoder.key"].max == (1, 2, 32, 4)


def test_the_decoder_of_memory_fid_reads_the_question_first():
    found, _ = profiles_of("memory_fid", "cached", GPUS["t4"])
    prefill = found["decoder_prefill"][0]
    assert (prefill["decoder_input_ids"].min, prefill["decoder_input_ids"].max) == ((1, 1), (1, 49))
    assert found["decoder_step"][0]["decoder_input_ids"].max == (1, 1)
    assert prefill["encoder_attention_mask"].max == (1, 25 * 304)


def test_a_question_longer_than_a_passage_fits_its_encoder():
    found, _ = profiles_of("glimmer", "absorbed", GPUS["t4"], question_length=64, passage_length=40)
    assert all(profile["input_ids"].max[1] == 64 for profile in found["memory_encoder"])

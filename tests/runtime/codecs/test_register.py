"""A codec that somebody else brings, by one call: stores in it, graphs that decode it, answers from it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from glimmer_export.exporter import memory, stages
from glimmer_export.exporter.bundle import FormOptions, export_bundle
from glimmer_export.exporter.memory import build_store, convert_store, verify_store
from glimmer_export.exporter.memory.codec_fit import fit_codec
from glimmer_export.exporter.memory.runners import RayRunner
from glimmer_export.exporter.stages import CodecDecoder
from glimmer_export.runtime import Session
from glimmer_export.runtime.codec_file import open_codec
from glimmer_export.runtime.codecs import (
    CODECS,
    Array,
    CodecArrayError,
    CodecFormat,
    CodecLayout,
    CodecTensor,
    codec_layout,
    register_codec,
    registry,
)
from glimmer_export.runtime.codecs.contract import token_scale
from glimmer_export.runtime.contract import (
    CROSS_ATTENTION_FORMS,
    MANIFEST,
    BundleError,
    ExportError,
    OptionError,
    StoreError,
    read_manifest,
    read_store_manifest,
)
from tests.bundle_factory import rewrite
from tests.exported import QUESTIONS
from tests.reference_answers import assert_same_answer, reference_answer

LEVELS = 256


def layout(d_model: int) -> CodecLayout:
    codes, scale = CodecTensor("memory", "uint8", (d_model,)), CodecTensor("memory_scale", "float32", ())
    return CodecLayout("levels", (codes, scale), arrays=(CodecTensor("memory_levels", "float32", (LEVELS,)),))


@dataclass(frozen=True)
class Levels:
    """A value is the nearest of 256 that a sample has as often, times its token's peak."""

    layout: CodecLayout
    arrays: Mapping[str, Array]

    def __post_init__(self) -> None:
        if (np.diff(self.arrays["memory_levels"]) < 0).any():
            raise CodecArrayError("memory_levels", expected="levels that rise", found="some that fall")

    def encode(self, memory: Array) -> dict[str, Array]:
        scale, levels = token_scale(np.abs(memory).max(-1)), self.arrays["memory_levels"]
        codes = np.searchsorted((levels[1:] + levels[:-1]) / 2, memory / scale[:, None])
        return {"memory": codes.astype(np.uint8), "memory_scale": scale}

    def decode(self, tensors: Mapping[str, Array]) -> Array:
        return self.arrays["memory_levels"].take(tensors["memory"]) * tensors["memory_scale"][..., None]


def graph_decode(_, values):
    codes = values["memory"].float().int()
    return values["memory_levels"].index_select(0, codes.flatten()).reshape(codes.shape)


def fit(_: CodecLayout, rows: Array) -> dict[str, Array]:
    evened = rows / token_scale(np.abs(rows).max(-1))[:, None]
    return {"memory_levels": np.quantile(evened, np.linspace(0, 1, LEVELS)).astype(np.float32)}


CODEC = CodecFormat("levels", layout, Levels, graph_decode=graph_decode, fit=fit)


@pytest.fixture
def register():
    """Register codecs for one test."""
    before = dict(registry._registered)
    yield register_codec
    registry._registered.clear()
    registry._registered.update(before)


def test_a_store_a_bundle_and_answers_in_a_codec_from_elsewhere(exported, register, tmp_path):
    """Exporting takes some seconds: every graph is traced, and held against torch."""
    register(CODEC)
    source = exported("memory_fid")
    forms = FormOptions(cross_attention="cached", codecs=("levels",))
    export_bundle(source.checkpoint, tmp_path / "bundle", forms)
    assert read_manifest(tmp_path / "bundle").codecs == ("levels",)
    summary = build_store(tmp_path / "bundle", source.corpus, tmp_path / "store", threads=1)
    assert summary.codec == "levels"
    assert summary.codec_snr.fitted_db > 20
    assert not verify_store(tmp_path / "store").damaged
    convert_store(source.store, tmp_path / "converted", "levels")
    with Session.open(tmp_path / "bundle", tmp_path / "store", threads=1) as session:
        for question in QUESTIONS[:3]:
            answer = session.answer(question)
            ids = [item.passage.id for item in answer.passages]
            assert_same_answer(answer, reference_answer(source, question, ids, store=session.store))
    with Session.open(tmp_path / "bundle", tmp_path / "converted", threads=1) as session:
        assert session.answer(QUESTIONS[0]).token_ids
        assert session.codec.layout.name == "levels"


@pytest.fixture(scope="module")
def named_elsewhere(exported, tmp_path_factory):
    """A store and a bundle that name a codec which a module of that name would have."""
    source, folder = exported("memory_fid"), tmp_path_factory.mktemp("named")
    store, bundle = shutil.copytree(source.store, folder / "store"), shutil.copytree(source.bundle, folder / "bundle")
    rewrite(store / MANIFEST, codec="elsewhere")
    rewrite(bundle / MANIFEST, codecs=["elsewhere"])
    (folder / "elsewhere.py").write_text("raise SystemExit('imported')")
    return SimpleNamespace(store=store, bundle=bundle, folder=folder, source=source)


def test_what_names_a_codec_that_is_not_registered_is_refused_and_nothing_imported(named_elsewhere, monkeypatch):
    monkeypatch.syspath_prepend(str(named_elsewhere.folder))
    known = ", ".join(CODECS)
    with pytest.raises(StoreError, match=rf"codec: expected one of {known}, found 'elsewhere'.*register_codec"):
        read_store_manifest(named_elsewhere.store)
    with pytest.raises(BundleError, match=rf"expected codecs of {known}, found elsewhere.*register_codec"):
        Session.open(named_elsewhere.bundle, named_elsewhere.store)
    source, new = named_elsewhere.source, named_elsewhere.folder / "new"
    with pytest.raises(OptionError, match=f"one of {known}"):
        export_bundle(source.checkpoint, new, FormOptions(codecs=("elsewhere",)))
    with pytest.raises(OptionError, match=f"'elsewhere' is not registered; there are {known}"):
        convert_store(source.store, new, "elsewhere")
    assert "elsewhere" not in sys.modules


def test_what_is_registered_is_told_among_the_others(named_elsewhere, register):
    known = ", ".join(CODECS)
    register(CODEC)
    with pytest.raises(StoreError, match=f"one of {known}, levels"):
        read_store_manifest(named_elsewhere.store)


def test_a_name_is_registered_once(register):
    register(CODEC)
    register(CODEC)
    with pytest.raises(ValueError, match="another codec 'levels' is registered"):
        register(replace(CODEC, fit=None))
    with pytest.raises(ValueError, match="another codec 'int8' is registered"):
        register(replace(CODEC, name="int8"))


@pytest.mark.parametrize("name", ["", "8bit", "Levels", "a.b", "a/b", "a b", "a,b", *CROSS_ATTENTION_FORMS])
def test_a_name_is_one_that_graphs_and_files_can_have(register, name):
    with pytest.raises(ValueError, match="lower-case"):
        register(replace(CODEC, name=name))


@pytest.mark.parametrize(
    "tensors",
    [
        [], [("memory", "uint8", (4,))], [("memory_scale", "float32", ())],
        [("memory", "uint8", (4,)), ("memory_scale", "float16", ())],
        [("memory", "uint8", (4,)), ("memory_scale", "float32", (1,))],
        [("memory", "uint8", (4,)), ("memory", "uint8", (4,)), ("memory_scale", "float32", ())],
        [("memory", "float64", (4,)), ("memory_scale", "float32", ())],
        [("memory", "uint8", (4,)), ("memory_scale", "float32", ()), ("scores", "float32", ())],
        [("memory", "uint8", (4,)), ("memory_scale", "float32", ()), ("memory_mask", "uint8", ())],
    ],
)
def test_a_layout_that_graphs_could_not_take_is_refused(tensors):
    with pytest.raises(ValueError, match="memory"):
        CodecLayout("levels", tuple(CodecTensor(*tensor) for tensor in tensors))


def test_arrays_that_the_codec_refuses_are_named(register):
    register(CODEC)
    with pytest.raises(StoreError, match="store s, array memory_levels: expected levels that rise, found some that"):
        open_codec("levels", 8, {"memory_levels": np.linspace(1, 0, LEVELS, dtype=np.float32)}, subject="store s")


def test_what_the_build_side_lacks_is_named(register):
    register(replace(CODEC, graph_decode=None, fit=None))
    with pytest.raises(ExportError, match=r"codec levels.*without `graph_decode`"):
        CodecDecoder("levels", 8)
    with pytest.raises(OptionError, match=r"codec levels.*without `fit`"):
        fit_codec("levels", 8, [])


def test_rays_workers_would_not_have_it(register):
    pytest.importorskip("ray")
    register(CODEC)
    job = SimpleNamespace(plan=SimpleNamespace(codec="levels"))
    with pytest.raises(OptionError, match="codec levels: expected one of glimmer-export's own"):
        next(RayRunner().run(job, [0], advance=print))


@pytest.mark.parametrize("codec", CODECS)
def test_our_own_are_three_modules_of_one_name(codec):
    """One that has no arrays is not fitted."""
    module = CODECS[codec].module
    assert find_spec(f"{stages.__name__}.codecs.{module}")
    assert bool(find_spec(f"{memory.__name__}.codecs.{module}")) == bool(codec_layout(codec, 64).arrays)


def test_the_largest_comes_first():
    assert list(CODECS)[:2] == ["fp16", "int8"]
    assert list(CODECS) == sorted(CODECS, key=lambda name: -codec_layout(name, 768).bytes_per_token)

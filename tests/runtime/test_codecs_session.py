"""Answers from a store in each codec: those of the torch model from the memory that the codec gives back."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from glimmer_export.exporter.memory import build_store, convert_store
from glimmer_export.exporter.memory.convert import Reencoding
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.contract import CODEC_ARRAYS, CODECS, MANIFEST, OptionError, StoreError, file_digest
from glimmer_export.runtime.store import MemoryStore, Passage
from tests.bundle_factory import rewrite, write_rows
from tests.exported import CORPUS, QUESTIONS
from tests.reference_answers import assert_same_answer, reference_answer

VARIANTS = ("glimmer, codecs", pytest.param("lumen, codecs", marks=pytest.mark.slow))
FITTED = [codec for codec in CODECS if codec != "fp16"]


@pytest.fixture(scope="module")
def stores(exported, tmp_path_factory):
    """A variant's store in a codec, built when first asked for."""
    made = {}

    def get(variant, codec):
        if (variant, codec) not in made:
            folder, source = tmp_path_factory.mktemp("store"), exported(variant)
            corpus = write_rows(folder / "corpus.jsonl", CORPUS)
            build_store(source.bundle, corpus, folder / "store", codec=codec, passages_per_shard=16, threads=1)
            made[variant, codec] = folder / "store"
        return made[variant, codec]

    return get


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_are_those_from_what_the_codec_gives_back(exported, stores, variant, codec):
    source = exported(variant)
    with Session.open(source.bundle, stores(variant, codec), threads=1) as session:
        assert session.codec.layout.name == codec
        for question in QUESTIONS[:4]:
            answer = session.answer(question)
            ids = [item.passage.id for item in answer.passages]
            assert_same_answer(answer, reference_answer(source, question, ids, store=session.store))
        together = session.answer_many(QUESTIONS)
        assert [answer.token_ids for answer in together[:4]] == [
            session.answer(question).token_ids for question in QUESTIONS[:4]
        ]


@pytest.mark.parametrize("codec", FITTED)
def test_given_texts_go_through_the_stores_codec(exported, stores, codec):
    source = exported("glimmer, codecs")
    rows = CORPUS[:5]
    with Session.open(source.bundle, stores("glimmer, codecs", codec), threads=1) as session:
        by_id = session.answer(QUESTIONS[0], passages=[row["id"] for row in rows])
        texts = [Passage(None, row["title"], row["text"]) for row in rows]
        by_text = session.answer(QUESTIONS[0], passages=texts)
    assert by_text.token_ids == by_id.token_ids
    # Encoded in another batch, a value may round to the code beside.
    np.testing.assert_allclose(by_text.scores, by_id.scores, atol=0.05)


def test_without_a_store_texts_are_in_fp16(exported):
    source = exported("glimmer, codecs")
    with Session.open(source.bundle, threads=1) as session:
        assert session.codec.layout.name == "fp16"


def test_without_a_store_a_bundle_needs_fp16(exported, tmp_path):
    bundle = shutil.copytree(exported("glimmer, codecs").bundle, tmp_path / "bundle")
    keep_codecs(bundle, ["int8"])
    with pytest.raises(OptionError, match=r"a store, whose arrays the codecs .* need, int8"):
        Session.open(bundle, threads=1)


def test_a_store_whose_codec_no_graph_decodes_is_refused(exported, stores, tmp_path):
    bundle = shutil.copytree(exported("glimmer, codecs").bundle, tmp_path / "bundle")
    keep_codecs(bundle, ["fp16", "int8"])
    with Session.open(bundle, stores("glimmer, codecs", "int8"), threads=1):
        pass
    with pytest.raises(StoreError, match=r"decodes, fp16, int8, found int4; export .*--codecs int4"):
        Session.open(bundle, stores("glimmer, codecs", "int4"), threads=1)


def test_only_the_graphs_of_the_stores_codec_are_loaded(exported, stores):
    source, loaded = exported("glimmer, codecs"), []

    class Backend(OnnxRuntimeBackend):
        def load(self, path, io):
            loaded.append(path.stem)
            return super().load(path, io)

    with Session.open(source.bundle, stores("glimmer, codecs", "int8"), backend=Backend(1)):
        assert loaded == ["memory_encoder", "live_stage_a.int8", "live_stage_b.int8", "decoder_step"]


@pytest.mark.parametrize(("codecs", "codec"), [(["int8"], "int8"), (["fp16", "int8"], "fp16")])
def test_a_store_is_built_in_the_only_codec_that_is_decoded_or_in_fp16(exported, tmp_path, codecs, codec):
    bundle = shutil.copytree(exported("glimmer, codecs").bundle, tmp_path / "bundle")
    keep_codecs(bundle, codecs)
    assert build_store(bundle, write_rows(tmp_path / "c.jsonl", CORPUS[:3]), tmp_path / "store").codec == codec


def keep_codecs(bundle, codecs):
    """Leave a bundle the graphs of these codecs alone."""
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    for name in list(manifest["graphs"]):
        stage, _, codec = name.partition(".")
        if stage.startswith("live_stage") and (codec or "fp16") not in codecs:
            del manifest["graphs"][name]
            (bundle / "graphs" / f"{name}.onnx").unlink()
    rewrite(bundle / MANIFEST, graphs=manifest["graphs"], codecs=codecs)


def changed(arrays, name, change):
    array = arrays[name].copy()
    change(array)
    return {**arrays, name: array}


def set_first(value):
    def change(array):
        array.flat[0] = value

    return change


@pytest.mark.parametrize(
    ("codec", "change", "message"),
    [
        ("int8", lambda arrays: {}, "bytes of arrays for the codec int8"),
        ("int8", lambda arrays: {"other": arrays["memory_channel_scale"]}, "the arrays memory_channel_scale"),
        ("int8", lambda arrays: changed(arrays, "memory_channel_scale", set_first(0)), "scales above 0"),
        ("int8", lambda arrays: changed(arrays, "memory_channel_scale", set_first(np.nan)), "finite values"),
        ("int8", lambda arrays: {"memory_channel_scale": arrays["memory_channel_scale"].view(np.int32)}, "float32"),
        ("int4", lambda arrays: changed(arrays, "memory_channel_order", set_first(-1)), "different places"),
        ("pq8x", lambda arrays: changed(arrays, "memory_codebook", set_first(np.inf)), "finite values"),
        ("pq8x", lambda arrays: {**arrays, "memory_codebook": arrays["memory_codebook"].swapaxes(0, 1)}, "float32"),
    ],
)
def test_damaged_arrays_are_named(exported, stores, tmp_path, codec, change, message):
    store = shutil.copytree(stores("glimmer, codecs", codec), tmp_path / "store")
    path = store / CODEC_ARRAYS
    arrays = {name: np.ascontiguousarray(array) for name, array in change(load_file(path)).items()}
    save_file(arrays, path)
    entry = {"path": CODEC_ARRAYS, "bytes": path.stat().st_size, "sha256": file_digest(path)}
    rewrite(store / MANIFEST, codec_arrays=entry)
    with pytest.raises(StoreError, match=message):
        Session.open(exported("glimmer, codecs").bundle, store, threads=1)


@pytest.mark.parametrize(
    "change",
    [
        {"codec_arrays": None},
        {"codec": "int3"},
        {"codec_arrays": {"path": "../codec.safetensors", "bytes": 1, "sha256": "0" * 64}},
        {"codec_arrays": {"path": CODEC_ARRAYS, "bytes": 1 << 50, "sha256": "0" * 64}},
    ],
)
def test_a_manifest_that_lies_about_its_codec_is_refused(exported, stores, tmp_path, change):
    store = shutil.copytree(stores("glimmer, codecs", "int8"), tmp_path / "store")
    rewrite(store / MANIFEST, **change)
    with pytest.raises(StoreError):
        Session.open(exported("glimmer, codecs").bundle, store, threads=1)


class TestConvert:
    @pytest.mark.parametrize("codec", FITTED)
    def test_a_converted_store_answers(self, exported, stores, tmp_path, codec):
        source = exported("glimmer, codecs")
        summary = convert_store(stores("glimmer, codecs", "fp16"), tmp_path / "store", codec)
        assert (summary.source_codec, summary.codec, summary.passages) == ("fp16", codec, len(CORPUS))
        with Session.open(source.bundle, tmp_path / "store", threads=1) as session:
            for question in QUESTIONS[:2]:
                answer = session.answer(question)
                ids = [item.passage.id for item in answer.passages]
                assert_same_answer(answer, reference_answer(source, question, ids, store=session.store))

    def test_everything_but_the_memory_is_the_sources(self, exported, stores, tmp_path):
        source, original = exported("glimmer, codecs"), stores("glimmer, codecs", "fp16")
        convert_store(original, tmp_path / "store", "int8")
        with (
            Session.open(source.bundle, original, threads=1) as old,
            Session.open(source.bundle, tmp_path / "store", threads=1) as new,
        ):
            ids = [row["id"] for row in CORPUS]
            assert new.store.numbers(ids) == old.store.numbers(ids)
            for number in range(len(CORPUS)):
                assert new.store.passage(number) == old.store.passage(number)
                assert np.array_equal(new.store.input_ids(number), old.store.input_ids(number))
                exact = old.codec.decode(old.store.memory(number).tensors)
                coded = new.codec.decode(new.store.memory(number).tensors)
                assert np.abs(coded - exact).max() < 0.02 * np.abs(exact).max()
            assert new.store.search("w1 w2", 9) == old.store.search("w1 w2", 9)

    def test_interrupted_it_goes_on_and_ends_with_the_same_bytes(self, stores, tmp_path, monkeypatch):
        original = stores("glimmer, codecs", "fp16")
        convert_store(original, tmp_path / "unbroken", "int4")
        converted = []

        def stop(*arguments):
            if len(converted) == 2:
                raise KeyboardInterrupt
            converted.append(arguments)
            return write(*arguments)

        write = Reencoding.write
        monkeypatch.setattr(Reencoding, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            convert_store(original, tmp_path / "store", "int4")
        assert not (tmp_path / "store").exists()
        monkeypatch.setattr(Reencoding, "write", write)
        assert convert_store(original, tmp_path / "store", "int4").resumed_shards == 2
        assert tree(tmp_path / "store") == tree(tmp_path / "unbroken")

    def test_a_store_without_memory_has_nothing_to_convert(self, exported, tmp_path):
        with pytest.raises(OptionError, match="a store with memory, found token ids alone"):
            convert_store(exported("fid").store, tmp_path / "store", "int8")
        assert not (tmp_path / "store").exists()

    def test_a_damaged_source_is_named(self, stores, tmp_path):
        store = shutil.copytree(stores("glimmer, codecs", "fp16"), tmp_path / "source")
        shard = store / "shards" / "00001.safetensors"
        shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
        with pytest.raises(StoreError, match=r"shards/00001.safetensors: expected SHA-256"):
            convert_store(store, tmp_path / "store", "int8")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_a_build_that_lost_its_arrays_begins_anew(exported, stores, tmp_path, monkeypatch):
    """Shards are written with the arrays: without them, what is there cannot be read."""
    source = exported("glimmer, codecs")
    corpus = write_rows(tmp_path / "corpus.jsonl", CORPUS)
    import glimmer_export.exporter.memory.runners.job as module

    encode, done = module.encode_shard, []

    def stop(store, index, *arguments, **keywords):
        if index == 2:
            raise KeyboardInterrupt
        done.append(index)
        return encode(store, index, *arguments, **keywords)

    settings = {"codec": "int8", "passages_per_shard": 16, "threads": 1}
    monkeypatch.setattr(module, "encode_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        build_store(source.bundle, corpus, tmp_path / "store", **settings)
    monkeypatch.setattr(module, "encode_shard", encode)
    (tmp_path / "store.partial" / "store" / CODEC_ARRAYS).write_bytes(b"damaged")
    assert build_store(source.bundle, corpus, tmp_path / "store", **settings).resumed_shards == 0
    assert tree(tmp_path / "store") == tree(stores("glimmer, codecs", "int8"))


def tree(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_memory_comes_from_the_store_as_codes(exported, stores):
    source = exported("glimmer, codecs")
    with Session.open(source.bundle, stores("glimmer, codecs", "int8"), threads=1) as session:
        store: MemoryStore = session.store
        memory = store.memory(3)
        assert memory.codes.dtype == np.uint8
        assert memory.codes.base is not None
        assert memory.tensors["memory_scale"].shape == (memory.num_tokens,)

"""Vectors: known neighbours are found, an encoder gives what torch gives, and a foreign or damaged index is refused."""

from __future__ import annotations

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx
import pytest

from glimmer_export.exporter.memory import append_passages, compact_store, delete_passages, index_store, verify_store
from glimmer_export.exporter.memory.generations import put_manifest
from glimmer_export.runtime.contract import (
    BackendError,
    FileEntry,
    MissingExtraError,
    OptionError,
    StoreError,
    read_store_manifest,
)
from glimmer_export.runtime.contract.vector_layout import EncoderSettings
from glimmer_export.runtime.retrieval.encoder import SentenceEncoder
from glimmer_export.runtime.retrieval.hits import fuse
from glimmer_export.runtime.store import MemoryStore
from tests.assert_close import assert_close
from tests.bundle_factory import rewrite, tree, write_rows
from tests.earlier_vectors import give_earlier_vectors
from tests.encoder_factory import DIMENSION, SETTINGS, give_sentence_embeddings, torch_embedding
from tests.runtime.conftest import NUM_PASSAGES

CIRCLE = np.stack([
    [np.cos(angle), np.sin(angle)] for angle in np.linspace(0, 2 * np.pi, NUM_PASSAGES, endpoint=False)
]).astype(np.float32)
"""Vectors of length 1 at equal angles: the neighbours of passage n are n - 1 and n + 1, as near as each other."""


@pytest.fixture(scope="module")
def circle_store(store_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("circle")
    store = shutil.copytree(store_path, folder / "store")
    np.save(folder / "circle.npy", CIRCLE)
    index_store(store, embeddings=folder / "circle.npy")
    return store


@pytest.fixture
def earlier_copy(encoded_copy):
    give_earlier_vectors(encoded_copy)
    return encoded_copy


def put_vectors(store, manifest, **changes):
    put_manifest(store, replace(manifest, vectors=replace(manifest.vectors, **changes)))


def found(hits):
    return [hit.number for hit in hits]


def test_the_nearest_come_first_and_ties_by_number(bundle, circle_store):
    with MemoryStore.open(circle_store, bundle) as store:
        hits = store.search_dense(CIRCLE[20], 5)
        assert found(hits) == [20, 19, 21, 18, 22]
        assert_close(np.array([hit.score for hit in hits]), CIRCLE[[20, 19, 21, 18, 22]] @ CIRCLE[20], "dense_score")
        assert found(store.search_dense(np.zeros(2), 4)) == [0, 1, 2, 3]
        assert found(store.search_dense(CIRCLE[0], 1000))[-1] == NUM_PASSAGES // 2
        assert store.search_dense(CIRCLE[0], 0) == []


def test_the_inner_product_counts_and_not_the_angle(bundle, store_copy, tmp_path):
    scaled = CIRCLE.copy()
    scaled[7] *= 100
    np.save(tmp_path / "x.npy", scaled)
    index_store(store_copy, embeddings=tmp_path / "x.npy")
    with MemoryStore.open(store_copy, bundle) as store:
        assert found(store.search_dense(CIRCLE[5], 2)) == [7, 5]


@pytest.mark.parametrize("vector", [np.zeros(3), np.zeros((1, 2)), np.array([np.nan, 1]), np.array([np.inf, 1])])
def test_a_vector_that_does_not_fit_is_named(bundle, circle_store, vector):
    with MemoryStore.open(circle_store, bundle) as store, pytest.raises(OptionError, match="a finite vector of 2"):
        store.search_dense(vector, 3)


def test_searching_leaves_the_store_as_it_is(bundle, circle_store):
    before = tree(circle_store)
    with MemoryStore.open(circle_store, bundle) as store, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: found(store.search_dense(CIRCLE[number], 1)), range(NUM_PASSAGES)))
    assert results == [[number] for number in range(NUM_PASSAGES)]
    assert tree(circle_store) == before


def test_a_store_without_vectors_says_how_to_make_them(bundle, store_path):
    with pytest.raises(StoreError, match="glimmer-export memory index"):
        MemoryStore.open(store_path, bundle, retrieval="dense")
    with MemoryStore.open(store_path, bundle) as store, pytest.raises(StoreError, match="an index of vectors"):
        store.search_dense(np.zeros(2), 1)


@pytest.mark.parametrize("retrieval", ["dense", "hybrid"])
def test_given_vectors_alone_encode_no_question(bundle, circle_store, retrieval):
    with pytest.raises(StoreError, match="a sentence encoder, to encode questions, found given vectors alone"):
        MemoryStore.open(circle_store, bundle, retrieval=retrieval)


def test_an_unknown_retrieval_is_named(bundle, store_path):
    with pytest.raises(OptionError, match="one of bm25, dense, hybrid"):
        MemoryStore.open(store_path, bundle, retrieval="magic")


def test_a_device_without_faiss_is_told_the_extra(bundle, encoded_store, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"glimmer-export\[dense\]"):
        MemoryStore.open(encoded_store, bundle, retrieval="dense")
    MemoryStore.open(encoded_store, bundle).close()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("normalise", [True, False])
def test_an_encoder_gives_torchs_vectors(encoder_path, pooling, normalise):
    settings = EncoderSettings(**{**SETTINGS, "pooling": pooling, "normalise": normalise})
    encoder = SentenceEncoder(encoder_path / "model.onnx", encoder_path / "tokenizer.json", settings)
    options = {"pooling": pooling, "normalise": normalise}
    assert_close(encoder.question("w3 w4"), torch_embedding("query w3 w4", **options), "fp32")
    passages = [("title7", "w1 w2"), ("", "w9"), ("title1", " ".join(["w5 w6"] * 20))]
    expected = [torch_embedding(f"passage {title} {text}", **options) for title, text in passages]
    assert_close(encoder.passages(passages), np.stack(expected), "fp32")


def test_a_graph_may_pool_by_itself(encoder_path, tmp_path):
    copy = shutil.copytree(encoder_path, tmp_path / "encoder")
    give_sentence_embeddings(copy)
    settings = EncoderSettings(**{**SETTINGS, "pooling": "graph"})
    encoder = SentenceEncoder(copy / "model.onnx", copy / "tokenizer.json", settings)
    assert_close(encoder.question("w3"), torch_embedding("query w3", pooling="cls"), "fp32")


def test_dense_retrieval_ranks_by_the_encoders_vectors(bundle, encoded_store):
    with MemoryStore.open(encoded_store, bundle, retrieval="dense") as store:
        passages = store.passages(range(NUM_PASSAGES))
        vectors = np.stack([torch_embedding(f"passage {passage.title} {passage.text}") for passage in passages])
        scores = vectors @ torch_embedding("query w3 w4")
        hits = store.search("w3 w4", NUM_PASSAGES)
        assert sorted(found(hits)) == list(range(NUM_PASSAGES))
        assert_close(np.array([hit.score for hit in hits]), scores[found(hits)], "dense_score")
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert store.search(" ", 3) == []
        assert len(store.search("\ud800 w3", 3)) == 3


def test_hybrid_retrieval_fuses_both(bundle, encoded_store):
    found_by = {}
    for retrieval in ("bm25", "dense", "hybrid"):
        with MemoryStore.open(encoded_store, bundle, retrieval=retrieval) as store:
            found_by[retrieval] = store.search("title9 w3 w4", 50)
    assert found_by["hybrid"] == fuse([found_by["bm25"], found_by["dense"]], 50)
    assert found(found_by["hybrid"]) not in (found(found_by["bm25"]), found(found_by["dense"]))


def assert_refused_when_damaged(store, bundle, path, damage):
    if damage == "absent":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    with pytest.raises(StoreError, match="glimmer-export memory index"):
        MemoryStore.open(store, bundle, retrieval="dense")
    MemoryStore.open(store, bundle).close()


@pytest.mark.parametrize(
    "name", ["vectors/00001-00000.npy", "encoders/00001/model.onnx", "encoders/00001/tokenizer.json"]
)
@pytest.mark.parametrize("damage", ["absent", "changed"])
def test_damaged_vectors_are_refused(bundle, encoded_copy, name, damage):
    assert_refused_when_damaged(encoded_copy, bundle, encoded_copy / name, damage)


@pytest.mark.parametrize(
    "name", ["embeddings.npy", "numbers.npy", "encoder/model.onnx", "encoder/tokenizer.json", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["absent", "changed"])
def test_damaged_vectors_of_an_earlier_version_are_refused(bundle, earlier_copy, name, damage):
    assert_refused_when_damaged(earlier_copy, bundle, earlier_copy / "dense" / name, damage)


def test_vectors_of_an_earlier_version_are_found_and_grow(bundle, encoded_store, earlier_copy, tmp_path):
    with MemoryStore.open(encoded_store, bundle, retrieval="dense") as store:
        expected = store.search("w3 w4", NUM_PASSAGES)
    with MemoryStore.open(earlier_copy, bundle, retrieval="dense") as before:
        assert before.search("w3 w4", NUM_PASSAGES) == expected
        corpus = write_rows(tmp_path / "new.jsonl", [{"id": "new", "title": "w1", "text": "w2 w3 w4"}])
        append_passages(earlier_copy, bundle.directory, corpus, threads=1)
        delete_passages(earlier_copy, [before.passage(expected[0].number).id])
        assert read_store_manifest(earlier_copy).vectors.segments[0].embeddings.path == "dense/embeddings.npy"
        with before.newer() as after:
            hits = after.search("w3 w4", NUM_PASSAGES + 1)
            assert NUM_PASSAGES in found(hits)
            assert [hit for hit in hits if hit.number != NUM_PASSAGES] == expected[1:]
        assert before.search("w3 w4", NUM_PASSAGES) == expected
    compact_store(earlier_copy)
    assert not (earlier_copy / "dense" / "embeddings.npy").exists()
    with MemoryStore.open(earlier_copy, bundle, retrieval="dense") as compacted:
        assert compacted.search("w3 w4", NUM_PASSAGES + 1) == hits
    report = verify_store(earlier_copy)
    assert (report.damaged, report.unnamed) == ((), ())


def with_external_weights(store, location):
    """Let the encoder's graph read its weights at `location`, and its manifest vouch for the graph."""
    path = store / "encoders" / "00001" / "model.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for item in tensor.external_data:
            item.value = location if item.key == "location" else item.value
    path.write_bytes(model.SerializeToString())
    manifest = read_store_manifest(store)
    graph = tuple(FileEntry.of(store, file) for file in (path, path.with_name("weights.bin")))
    put_vectors(store, manifest, encoder=replace(manifest.vectors.encoder, graph=graph))


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "other.bin", "tokenizer.json"])
def test_an_encoder_that_reads_what_its_manifest_does_not_name(bundle, encoded_copy, location):
    """ONNX Runtime 1.23 follows external data wherever it leads."""
    with_external_weights(encoded_copy, location)
    with pytest.raises(StoreError, match=r"00001/model.onnx: expected weights in the files of its manifest"):
        MemoryStore.open(encoded_copy, bundle, retrieval="dense")


def test_an_encoders_weights_behind_links(bundle, encoded_copy, tmp_path):
    """In folders of their own, as a download cache may keep them: ONNX Runtime alone would not follow."""
    with MemoryStore.open(encoded_copy, bundle, retrieval="dense") as store:
        expected = store.search("w3 w4", 5)
    with_external_weights(encoded_copy, "weights.bin")
    for number, path in enumerate(sorted((encoded_copy / "encoders" / "00001").iterdir())):
        place = tmp_path / "blobs" / str(number) / "content"
        place.parent.mkdir(parents=True)
        path.rename(place)
        path.symlink_to(place)
    with MemoryStore.open(encoded_copy, bundle, retrieval="dense") as store:
        assert store.search("w3 w4", 5) == expected


@pytest.mark.parametrize(
    ("field", "value"),
    [("generation", 2), ("texts_sha256", "x"), ("num_vectors", 49), ("dimension", 0), ("schema_version", 3)],
)
def test_the_earlier_index_of_another_store_is_refused(bundle, earlier_copy, field, value):
    rewrite(earlier_copy / "dense" / "manifest.json", **{field: value})
    with pytest.raises(StoreError, match=f"{field if field != 'dimension' else 'one dimension'}"):
        MemoryStore.open(earlier_copy, bundle, retrieval="dense")


@pytest.mark.parametrize("change", [
    {"dimension": 0}, {"dimension": 1}, {"first": -1}, {"first": 1}, {"num_numbers": NUM_PASSAGES + 1},
    {"num_vectors": NUM_PASSAGES + 1}, {"num_vectors": NUM_PASSAGES - 1}, {"dtype": "float64"}, {"dtype": "float16"},
    {"embeddings": FileEntry("vectors/../../x", 528, "0" * 64)},
    {"embeddings": FileEntry("manifest.json", 528, "0" * 64)},
    {"embeddings": FileEntry("vectors/00009-00000.npy", 528, "0" * 64)},
], ids=str)
def test_what_no_writer_says_of_vectors_is_refused(bundle, circle_store, tmp_path, change):
    copy = shutil.copytree(circle_store, tmp_path / "store")
    manifest = read_store_manifest(copy)
    vectors = manifest.vectors
    if "dimension" in change:
        vectors = replace(vectors, **change)
    else:
        vectors = replace(vectors, segments=(replace(vectors.segments[0], **change),))
    put_manifest(copy, replace(manifest, vectors=vectors))
    with pytest.raises(StoreError, match=r"manifest\.json, vectors"):
        MemoryStore.open(copy, bundle)


@pytest.mark.parametrize("shape", [(NUM_PASSAGES, 1), (NUM_PASSAGES // 2, 4), (NUM_PASSAGES * 2,)])
def test_arrays_of_another_shape_are_refused(bundle, circle_store, tmp_path, shape):
    copy = shutil.copytree(circle_store, tmp_path / "store")
    path = copy / "vectors" / "00001-00000.npy"
    size = path.stat().st_size
    np.save(path, np.zeros(shape, np.float32))
    with path.open("ab") as stream:
        stream.write(bytes(size - path.stat().st_size))
    with MemoryStore.open(copy, bundle, verify=False) as store, pytest.raises(StoreError, match="expected float32"):
        store.search_dense(np.zeros(2), 1)


@pytest.mark.parametrize("numbers", [[-1], [NUM_PASSAGES], [3, 3]])
def test_numbers_that_a_segment_has_not_are_refused(bundle, store_copy, tmp_path, numbers):
    with MemoryStore.open(store_copy, bundle) as store:
        delete_passages(store_copy, [store.passage(0).id])
    np.save(tmp_path / "circle.npy", CIRCLE[1:])
    index_store(store_copy, embeddings=tmp_path / "circle.npy")
    path = store_copy / "vectors" / "00002-00000-numbers.npy"
    array = np.load(path)
    array[-len(numbers) :] = numbers
    np.save(path, array)
    with (
        MemoryStore.open(store_copy, bundle, verify=False) as store,
        pytest.raises(StoreError, match="passage numbers that rise"),
    ):
        store.search_dense(np.zeros(2), 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_vectors_that_are_no_numbers_are_named(bundle, circle_store, tmp_path, value):
    """faiss leaves places empty, -1, which would be the last passage of all."""
    copy = shutil.copytree(circle_store, tmp_path / "store")
    path = copy / "vectors" / "00001-00000.npy"
    array = np.load(path)
    array[:] = value
    np.save(path, array)
    with MemoryStore.open(copy, bundle, verify=False) as store, pytest.raises(StoreError, match="expected finite"):
        store.search_dense(np.array([1.0, -1.0]), 3)


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError])
def test_what_faiss_throws_is_named_and_a_bug_is_not(bundle, circle_store, monkeypatch, kind):
    with MemoryStore.open(circle_store, bundle) as store:
        store.search_dense(np.zeros(2), 1)
        for raised, expected in ((kind, StoreError), (AttributeError, AttributeError)):

            def fails(*_, raised=raised, **__):
                raise raised("Error in faiss")

            monkeypatch.setattr("faiss.knn", fails)
            with pytest.raises(expected, match="Error in faiss"):
                store.search_dense(np.zeros(2), 1)


def test_an_encoders_tokenizer_without_an_unknown_token_is_named(encoder_path, tmp_path):
    content = json.loads((encoder_path / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["unk_token"] = "[ABSENT]"
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    encoder = SentenceEncoder(encoder_path / "model.onnx", tmp_path / "tokenizer.json", EncoderSettings(**SETTINGS))
    with pytest.raises(StoreError, match=r"tokenizer\.json: expected a tokenizer that takes any text"):
        encoder.question("strange")


@pytest.mark.parametrize("shape", [[1, 1, 1, DIMENSION], [DIMENSION]])
def test_an_encoders_states_of_another_shape_are_named(encoder_path, tmp_path, shape):
    """What a graph declares need not be what it gives."""
    model = onnx.load(encoder_path / "model.onnx")
    model.graph.output.pop()
    for node in model.graph.node:
        node.output[:] = ["unused" if name == "last_hidden_state" else name for name in node.output]
    states = onnx.helper.make_tensor("states", onnx.TensorProto.FLOAT, shape, [1] * DIMENSION)
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["last_hidden_state"], value=states))
    model.graph.output.append(onnx.helper.make_tensor_value_info("last_hidden_state", onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "model.onnx")
    encoder = SentenceEncoder(tmp_path / "model.onnx", encoder_path / "tokenizer.json", EncoderSettings(**SETTINGS))
    with pytest.raises(StoreError, match="encoder: expected finite vectors from last_hidden_state"):
        encoder.question("w1 w2")


def test_an_encoders_graph_that_fails_is_named(encoder_path, tmp_path):
    """It has 32 positions, where its settings say 64."""
    settings = EncoderSettings(**{**SETTINGS, "max_length": 64})
    encoder = SentenceEncoder(encoder_path / "model.onnx", encoder_path / "tokenizer.json", settings)
    with pytest.raises(BackendError, match=r"model\.onnx: expected a graph that runs"):
        encoder.question("w1 " * 60)


@pytest.mark.parametrize("retrieval", ["dense", "hybrid"])
def test_a_newer_store_has_vectors_of_what_was_appended(bundle, encoded_copy, encoder_path, tmp_path, retrieval):
    rows = [{"id": f"new{n}", "title": "w1", "text": f"w2 w3 w{n}"} for n in range(3)]
    with MemoryStore.open(encoded_copy, bundle, retrieval=retrieval) as store:
        before = found(store.search("w1 w2 w3 w4", NUM_PASSAGES))
        assert store.newer() is None
        for row in rows:
            append_passages(encoded_copy, bundle.directory, write_rows(tmp_path / "new.jsonl", [row]), threads=1)
        deleted = store.passage(before[0]).id
        delete_passages(encoded_copy, [deleted, "new1"])
        with store.newer() as newer:
            found_now = found(newer.search("w1 w2 w3 w4", NUM_PASSAGES + 3))
            assert newer.newer() is None
            assert newer.num_without_vector == 0
        assert set(found_now) == set(range(NUM_PASSAGES + 3)) - {before[0], NUM_PASSAGES + 1}
        assert found(store.search("w1 w2 w3 w4", NUM_PASSAGES)) == before
    index_store(encoded_copy, encoder=encoder_path, batch_size=8, overwrite=True)
    with MemoryStore.open(encoded_copy, bundle, retrieval=retrieval) as anew:
        assert found(anew.search("w1 w2 w3 w4", NUM_PASSAGES + 3)) == found_now


@pytest.mark.parametrize("vector", [None, "w1", [[1.0], [1.0, 2.0]], [1j, 1j], [True, False], b"12", object()])
def test_what_is_no_vector_is_named(bundle, circle_store, vector):
    with MemoryStore.open(circle_store, bundle) as store, pytest.raises(OptionError, match="embedding"):
        store.search_dense(vector, 3)

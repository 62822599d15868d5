"""Vectors given to a store, and what is refused; whatever is, the store stays as it was."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from glimmer_export.exporter.memory import (
    append_passages,
    build_store,
    compact_store,
    convert_store,
    delete_passages,
    index_store,
    store_stats,
    verify_store,
)
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    EmbeddingsError,
    OptionError,
    OutputError,
    PassageError,
    StoreError,
    read_store_manifest,
)
from glimmer_export.runtime.store import MemoryStore
from tests.assert_close import assert_close
from tests.bundle_factory import rewrite, tree, write_corpus, write_rows
from tests.encoder_factory import SETTINGS, make_encoder

NUM_PASSAGES = 30


@pytest.fixture(scope="module")
def built(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    write_corpus(folder / "corpus.jsonl", NUM_PASSAGES)
    build_store(bundle, folder / "corpus.jsonl", folder / "store")
    return folder / "store"


@pytest.fixture
def store(built, tmp_path):
    return shutil.copytree(built, tmp_path / "store")


@pytest.fixture(scope="module")
def encoder_path(tmp_path_factory):
    return make_encoder(tmp_path_factory.mktemp("encoders") / "encoder")


@pytest.fixture
def encoder(encoder_path, tmp_path):
    return shutil.copytree(encoder_path, tmp_path / "encoder")


@pytest.fixture
def refused(store, tmp_path):
    """Index the store, which must be refused and leave everything as it is."""

    def run(error, match, **arguments):
        before = tree(tmp_path)
        with pytest.raises(error, match=match):
            index_store(store, **arguments)
        assert tree(tmp_path) == before
        assert not [path for path in store.iterdir() if path.name.startswith(".")]

    return run


def save(path, array):
    np.save(path, array)
    return path


def stored(store):
    """Rows of the store's one segment of vectors, and its files."""
    (segment,) = read_store_manifest(store).vectors.segments
    return np.load(store / segment.embeddings.path)


def vectors(seed=0, shape=(NUM_PASSAGES, 4), dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def test_a_store_whose_last_passage_was_deleted_is_indexed(bundle, store, tmp_path):
    with MemoryStore.open(store, Bundle.open(bundle)) as before:
        last = before.passage(NUM_PASSAGES - 1).id
    delete_passages(store, [last])
    index_store(store, embeddings=save(tmp_path / "vectors.npy", vectors(shape=(NUM_PASSAGES - 1, 4))))
    vectors_of = read_store_manifest(store).vectors
    (segment,) = vectors_of.segments
    assert (segment.num_numbers, segment.num_vectors) == (NUM_PASSAGES, NUM_PASSAGES - 1)
    assert np.load(store / segment.numbers.path).tolist() == list(range(NUM_PASSAGES - 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_given_vectors_are_stored_by_passage_number(bundle, store, tmp_path, dtype):
    given = vectors(dtype=dtype)
    summary = index_store(store, embeddings=save(tmp_path / "x.npy", given))
    assert (summary.vectors, summary.added, summary.dimension) == (NUM_PASSAGES, NUM_PASSAGES, 4)
    assert (summary.generation, summary.encoder) == (1, False)
    assert summary.bytes == sum(path.stat().st_size for path in (store / "vectors").iterdir())
    assert stored(store).dtype == np.float32
    assert np.array_equal(stored(store), given.astype(np.float32))
    with MemoryStore.open(store, Bundle.open(bundle)) as opened:
        assert opened.search_dense(given[11] * 100, 1)[0].number == int((given @ given[11]).argmax())


def test_ids_say_which_row_is_whose(bundle, store, tmp_path):
    given = vectors()
    order = np.random.default_rng(1).permutation(NUM_PASSAGES)
    with MemoryStore.open(store, Bundle.open(bundle)) as opened:
        ids = [opened.passage(int(number)).id for number in order]
    (tmp_path / "ids.jsonl").write_text("".join(json.dumps(value) + "\n" for value in ids), encoding="utf-8")
    index_store(store, embeddings=save(tmp_path / "x.npy", given[order]), ids=tmp_path / "ids.jsonl")
    assert np.array_equal(stored(store), given)


def test_vectors_that_are_there_are_replaced_on_request_alone(store, tmp_path):
    first, second = (save(tmp_path / f"{seed}.npy", vectors(seed)) for seed in range(2))
    index_store(store, embeddings=first)
    before = tree(store)
    with pytest.raises(OutputError, match="--overwrite"):
        index_store(store, embeddings=second)
    assert tree(store) == before
    index_store(store, embeddings=second, overwrite=True)
    assert np.array_equal(stored(store), np.load(second))


@pytest.mark.parametrize("array", [
    vectors(shape=(NUM_PASSAGES - 1, 4)), vectors(shape=(NUM_PASSAGES,)), vectors(shape=(NUM_PASSAGES, 0)),
    vectors(shape=(NUM_PASSAGES, 4, 1)), vectors(dtype=np.float64), vectors(dtype=np.int32),
    vectors(dtype=np.float32).astype(">f4"),
], ids=["rows", "flat", "empty", "cube", "float64", "int32", "big-endian"])
def test_an_array_of_another_kind_is_refused(refused, tmp_path, array):
    save(tmp_path / "x.npy", array)
    refused(EmbeddingsError, r"x\.npy: expected (shape|an array of float32)", embeddings=tmp_path / "x.npy")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_with_their_row(refused, tmp_path, value):
    array = vectors()
    array[23, 1] = value
    refused(EmbeddingsError, "row 23: expected finite", embeddings=save(tmp_path / "x.npy", array))


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00", None, "pickle", "npz"])
def test_a_file_that_is_no_array_is_refused(refused, tmp_path, content):
    path = tmp_path / "x.npy"
    if content == "pickle":
        np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    elif content == "npz":
        with path.open("wb") as stream:
            np.savez(stream, x=vectors())
    elif content is not None:
        path.write_bytes(content)
    refused(EmbeddingsError, r"x\.npy", embeddings=path)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda ids: ids[:-1], EmbeddingsError), (lambda ids: [*ids[:-1], ids[0]], EmbeddingsError),
        (lambda ids: [*ids[:-1], "p999"], PassageError), (lambda ids: [*ids[:-1], [1]], PassageError),
        (lambda ids: "{", EmbeddingsError), (lambda ids: None, EmbeddingsError),
    ],
    ids=["too few", "twice", "unknown", "a list", "no JSON", "no file"],
)
def test_ids_that_do_not_name_each_passage_once_are_refused(refused, tmp_path, change, error):
    ids = change([number if number % 2 else f"p{number}" for number in range(NUM_PASSAGES)])
    if ids is not None:
        text = ids if isinstance(ids, str) else "".join(json.dumps(value) + "\n" for value in ids)
        (tmp_path / "ids.jsonl").write_text(text, encoding="utf-8")
    embeddings = save(tmp_path / "x.npy", vectors())
    refused(error, r"(ids|passage id)", embeddings=embeddings, ids=tmp_path / "ids.jsonl")


@pytest.mark.parametrize("given", [{}, {"embeddings": "a", "encoder": "b"}, {"ids": "a"}, {"encoder": "b", "ids": "a"}])
def test_one_source_of_vectors(refused, given):
    refused(OptionError, "give one of the two", **given)


def test_an_encoder_is_copied_and_used_in_batches_of_any_size(store, encoder):
    index_store(store, encoder=encoder, batch_size=1)
    one = stored(store)
    assert tree(store / "encoders" / "00001") == {
        name: digest for name, digest in tree(encoder).items() if name != "encoder.json"
    }
    index_store(store, encoder=encoder, batch_size=7, overwrite=True)
    assert_close(stored(store), one, "embedding")


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "encoder.json"])
@pytest.mark.parametrize("damage", ["absent", "damaged"])
def test_an_encoder_that_is_not_whole_is_refused(refused, encoder, name, damage):
    if damage == "absent":
        (encoder / name).unlink()
    else:
        (encoder / name).write_bytes(b"\xff\xfe")
    refused(EmbeddingsError, "encoder", encoder=encoder)


@pytest.mark.parametrize(
    "change", [{"pooling": "max"}, {"max_length": 0}, {"normalise": 1}, {"prefix": ""}, {"pooling": "graph"}]
)
def test_settings_that_do_not_fit_are_refused(refused, encoder, change):
    rewrite(encoder / "encoder.json", **{**SETTINGS, **change})
    refused(EmbeddingsError, "encoder", encoder=encoder)


def test_external_weights_are_copied_too_and_may_not_lie_outside(store, refused, encoder):
    import onnx

    model = onnx.load(encoder / "model.onnx")
    onnx.save(model, encoder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    index_store(store, encoder=encoder)
    assert (store / "encoders" / "00001" / "weights.bin").is_file()
    model = onnx.load(encoder / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for item in tensor.external_data:
            if item.key == "location":
                item.value = "../weights.bin"
    (encoder / "model.onnx").write_bytes(model.SerializeToString())
    refused(EmbeddingsError, "stay inside", encoder=encoder, overwrite=True)


def test_damaged_texts_are_not_encoded(refused, store, encoder):
    path = store / "passages.sqlite"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    refused(StoreError, "SHA-256", encoder=encoder)


def test_verifying_looks_at_the_vectors(store, encoder):
    index_store(store, encoder=encoder)
    report = verify_store(store)
    assert (report.damaged, report.unnamed) == ((), ())
    (store / "vectors" / "00001-00000.npy").write_bytes(b"")
    (store / "encoders" / "00001" / "weights").write_bytes(b"")
    report = verify_store(store)
    assert [damage.path for damage in report.damaged] == ["vectors/00001-00000.npy"]
    assert "glimmer-export memory index" in report.damaged[0].fix
    assert report.unnamed == ("encoders/00001/weights",)
    index_store(store, encoder=encoder, overwrite=True)
    compact_store(store)
    report = verify_store(store)
    assert (report.damaged, report.unnamed) == ((), ())
    assert [path.name for path in (store / "encoders").iterdir()] == ["00002"]


def test_a_converted_store_has_the_vectors_of_its_source(bundle, store, tmp_path):
    index_store(store, embeddings=save(tmp_path / "vectors.npy", vectors()))
    convert_store(store, tmp_path / "converted", "fp16")
    assert verify_store(tmp_path / "converted").damaged == ()
    query, found = vectors()[0], []
    for path in (store, tmp_path / "converted"):
        with MemoryStore.open(path, Bundle.open(bundle)) as opened:
            found.append(opened.search_dense(query, 5))
    assert found[0] == found[1] != []


def added(tmp_path, count, start=0):
    rows = [{"id": f"new{n}", "title": "w1", "text": f"w2 w{n}"} for n in range(start, start + count)]
    return write_rows(tmp_path / "new.jsonl", rows)


def test_given_vectors_do_not_grow_by_themselves_and_those_that_are_lacking_are_taken(bundle, store, tmp_path):
    given = vectors(shape=(NUM_PASSAGES + 4, 4))
    index_store(store, embeddings=save(tmp_path / "x.npy", given[:NUM_PASSAGES]))
    for start in (0, 2):
        (warning,) = append_passages(store, bundle, added(tmp_path, 2, start)).warnings
        assert "2 new passages have no vector" in warning
        assert "given, with no encoder" in warning
    delete_passages(store, ["new1"])
    stats = store_stats(store)
    assert (stats.vectors, stats.without_vector, stats.vector_segments) == (NUM_PASSAGES, 3, 1)
    with pytest.raises(EmbeddingsError, match=r"shape \[3, dimension\]"):
        index_store(store, embeddings=save(tmp_path / "y.npy", given))
    with pytest.raises(EmbeddingsError, match="expected 4 dimensions"):
        index_store(store, embeddings=save(tmp_path / "y.npy", vectors(shape=(3, 5))))
    kept = [NUM_PASSAGES, NUM_PASSAGES + 2, NUM_PASSAGES + 3]
    summary = index_store(store, embeddings=save(tmp_path / "y.npy", given[kept]))
    assert (summary.vectors, summary.added) == (NUM_PASSAGES + 3, 3)
    with pytest.raises(OutputError, match="--overwrite"):
        index_store(store, embeddings=tmp_path / "y.npy")
    compact_store(store)
    with MemoryStore.open(store, Bundle.open(bundle)) as opened:
        for number in (0, 17, *kept):
            best = max(range(len(given)), key=lambda row: (row != NUM_PASSAGES + 1) * float(given[row] @ given[number]))
            assert opened.search_dense(given[number], 1)[0].number == best
        assert opened.num_without_vector == 0


def test_an_encoder_that_is_not_at_hand_leaves_passages_without_vectors(bundle, store, encoder, tmp_path):
    index_store(store, encoder=encoder)
    path = store / "encoders" / "00001" / "model.onnx"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    (warning,) = append_passages(store, bundle, added(tmp_path, 2)).warnings
    assert "the encoder cannot be loaded" in warning
    path.write_bytes(content)
    assert append_passages(store, bundle, added(tmp_path, 3, 2)).warnings == ()
    assert store_stats(store).without_vector == 2
    other = shutil.copytree(encoder, tmp_path / "other")
    rewrite(other / "encoder.json", **{**SETTINGS, "pooling": "cls"})
    with pytest.raises(EmbeddingsError, match=r"found a graph of digest .*; pass --overwrite"):
        index_store(store, encoder=other)
    with pytest.raises(EmbeddingsError, match="found given vectors; pass --encoder"):
        index_store(store, embeddings=save(tmp_path / "x.npy", vectors(shape=(2, 12))))
    summary = index_store(store, encoder=encoder)
    assert (summary.vectors, summary.added) == (NUM_PASSAGES + 5, 2)
    manifest = read_store_manifest(store)
    assert [(part.first, part.num_numbers) for part in manifest.vectors.segments] == [(0, 30), (30, 2), (32, 3)]
    assert manifest.vectors.encoder.graph[0].path == "encoders/00001/model.onnx"
    compact_store(store)
    (whole,) = read_store_manifest(store).vectors.segments
    assert (whole.num_numbers, whole.num_vectors, whole.numbers) == (NUM_PASSAGES + 5, NUM_PASSAGES + 5, None)
    fresh = shutil.copytree(store, tmp_path / "fresh")
    index_store(fresh, encoder=encoder, overwrite=True)
    assert_close(stored(store), stored(fresh), "embedding")


def test_a_store_without_passages_gets_no_vectors(store, tmp_path, refused):
    delete_passages(store, [number if number % 2 else f"p{number}" for number in range(NUM_PASSAGES)])
    compact_store(store)
    refused(StoreError, "at least one passage", embeddings=save(tmp_path / "vectors.npy", vectors()))


@pytest.mark.parametrize("content", [b"PK\x03\x04 and no more", b"PK\x05\x06" + bytes(18)])
def test_an_archive_is_no_array(refused, tmp_path, content):
    (tmp_path / "vectors.npz").write_bytes(content)
    refused(EmbeddingsError, "embeddings .*vectors.npz", embeddings=tmp_path / "vectors.npz")

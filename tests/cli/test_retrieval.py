"""Which engine finds the passages, as the commands have it: words by FTS5 or tantivy, vectors, or both."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from glimmer_export.exporter.memory import index_store
from glimmer_export.runtime import Session
from glimmer_export.runtime.contract import EmbeddingsError, OptionError, OutputError, StoreError
from tests.bundle_factory import write_rows
from tests.encoder_factory import make_encoder
from tests.exported import CORPUS

QUESTION = "w20 w31 w42 w53"


@pytest.fixture(scope="module")
def indexed(glimmer, tmp_path_factory):
    """A store with an encoder's vectors."""
    folder = tmp_path_factory.mktemp("indexed")
    store = Path(shutil.copytree(glimmer.store, folder / "store"))
    index_store(store, encoder=make_encoder(folder / "encoder"))
    return store


@pytest.mark.parametrize("index", ["fts5", "tantivy"])
def test_a_store_is_built_with_the_engine_that_is_asked_for(cli, glimmer, tmp_path, index):
    corpus = write_rows(tmp_path / "corpus.jsonl", CORPUS)
    done = cli("memory", "build", glimmer.bundle, "--corpus", corpus, "-o", tmp_path / "store", "--index", index)
    assert (done.code, done.err) == (0, "")
    assert (tmp_path / "store" / "segments").is_dir() == (index == "tantivy")
    found = cli("ask", glimmer.bundle, "--store", tmp_path / "store", "-k", "1", CORPUS[7]["text"], "--json").json
    assert [item["id"] for item in found["passages"]] == [CORPUS[7]["id"]]


def test_a_store_is_moved_to_another_engine(cli, glimmer, tmp_path):
    store = shutil.copytree(glimmer.store, tmp_path / "store")
    done = cli("memory", "index", store, "--engine", "tantivy")
    assert (done.code, done.err) == (0, "")
    assert f"{len(CORPUS)} passages indexed by tantivy, and no more by fts5" in " ".join(done.out.split())
    report = cli("memory", "index", store, "--engine", "auto", "--json").json
    assert (report["engine"], report["engine_before"], report["generation"]) == ("fts5", "tantivy", 2)
    found = cli("ask", glimmer.bundle, "--store", store, "-k", "1", CORPUS[7]["text"], "--json").json
    assert [item["id"] for item in found["passages"]] == [CORPUS[7]["id"]]
    refused = cli("memory", "index", store, "--engine", "fts5", "--ids", tmp_path / "ids.jsonl")
    assert (refused.code, "run the command once for each" in " ".join(refused.err.split())) == (2, True)


def test_vectors_are_made_and_asked_for(cli, glimmer, tmp_path):
    store = shutil.copytree(glimmer.store, tmp_path / "store")
    encoder = make_encoder(tmp_path / "encoder")
    report = cli("memory", "index", store, "--encoder", encoder, "--json").json
    assert (report["vectors"], report["dimension"], report["encoder"]) == (len(CORPUS), 12, True)
    done = cli("memory", "index", store, "--encoder", encoder, "--overwrite")
    assert (done.code, done.err) == (0, "")
    assert f"{len(CORPUS)} vectors of 12" in done.out
    done = cli("ask", glimmer.bundle, "--store", store, QUESTION, "--retrieval", "dense")
    assert done.code == 0
    assert "dense" in done.out
    assert "BM25" not in done.out


def test_passages_that_got_no_vector_are_counted_until_they_have_one(cli, glimmer, tmp_path):
    store = shutil.copytree(glimmer.store, tmp_path / "store")
    encoder = make_encoder(tmp_path / "encoder")
    cli("memory", "index", store, "--encoder", encoder)
    more = write_rows(tmp_path / "more.jsonl", [{"id": "new", "title": "w1", "text": "w2"}])
    kept = store / "encoders" / "00001" / "model.onnx"
    kept.rename(tmp_path / "model.onnx")
    done = cli("memory", "append", store, "--bundle", glimmer.bundle, "--corpus", more)
    assert done.code == 0
    assert "1 new passages have no vector" in " ".join(done.out.split())
    (tmp_path / "model.onnx").rename(kept)
    asked = ("ask", glimmer.bundle, "--store", store, QUESTION, "--retrieval", "dense")
    for lacking in (1, 0):
        assert cli(*asked, "--json").json["passages_without_vector"] == lacking
        assert ("1 passages of the store have no vector" in " ".join(cli(*asked).out.split())) == bool(lacking)
        assert cli("memory", "stats", store, "--json").json["without_vector"] == lacking
        assert "vectors of" in cli("memory", "stats", store).out
        if lacking:
            assert cli("memory", "index", store, "--encoder", encoder, "--json").json["added"] == 1
    assert "passages_without_vector" not in cli(*asked[:-2], "--json").json


def test_an_index_is_made_anew(cli, glimmer, tmp_path):
    store = shutil.copytree(glimmer.store, tmp_path / "store")
    report = cli("memory", "index", store, "--json").json
    assert (report["generation"], report["engine"], report["passages"]) == (1, "fts5", len(CORPUS))
    done = cli("memory", "index", store)
    assert (done.code, done.err) == (0, "")
    assert "generation 2 in" in done.out


@pytest.mark.parametrize("retrieval", ["bm25", "dense", "hybrid"])
def test_commands_find_what_a_session_finds(cli, glimmer, indexed, tmp_path, retrieval):
    questions = write_rows(tmp_path / "q.jsonl", [{"question": QUESTION, "answers": ["w1"]}])
    with Session.open(glimmer.bundle, indexed, retrieval=retrieval) as session:
        expected = session.answer(QUESTION)
    arguments = ("--store", indexed, "--retrieval", retrieval, "--json")
    found = cli("ask", glimmer.bundle, QUESTION, *arguments).json
    assert [item["id"] for item in found["passages"]] == [item.passage.id for item in expected.passages]
    assert found["token_ids"] == list(expected.token_ids)
    assert cli("answer", glimmer.bundle, "--questions", questions, *arguments).json["questions"] == 1
    report = cli("parity", glimmer.bundle, "--reference", glimmer.bundle, "--questions", questions, *arguments).json
    assert report["answers_equal"] == 1.0


def test_retrievals_differ(glimmer, indexed):
    found = set()
    for retrieval in ("bm25", "dense", "hybrid"):
        with Session.open(glimmer.bundle, indexed, retrieval=retrieval) as session:
            found.add(tuple(item.passage.id for item in session.answer(QUESTION).passages))
    assert len(found) == 3


def test_a_store_without_vectors(refused, glimmer, tmp_path):
    arguments = ("ask", glimmer.bundle, "--store", glimmer.store, QUESTION, "--retrieval", "hybrid")
    assert "glimmer-export memory index" in refused(StoreError, *arguments)


def test_what_cannot_be_indexed(refused, glimmer, indexed, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((3, 4), np.float32))
    store = Path(shutil.copytree(glimmer.store, tmp_path / "store"))
    assert "a row a passage" in refused(EmbeddingsError, "memory", "index", store, "--embeddings", tmp_path / "x.npy")
    refused(OptionError, "memory", "index", store, "--ids", tmp_path / "ids")
    refused(EmbeddingsError, "memory", "index", store, "--encoder", tmp_path / "absent")
    refused(StoreError, "memory", "index", tmp_path / "absent", "--embeddings", tmp_path / "x.npy")
    assert "--overwrite" in refused(OutputError, "memory", "index", indexed, "--embeddings", tmp_path / "x.npy")

"""A bug keeps its traceback: it comes out of the session and of the command line as it was, by no other name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import normalizers

from glimmer_export.exporter.cli import main
from glimmer_export.runtime import Passage, Session
from glimmer_export.runtime.charsmap import Charsmap
from glimmer_export.runtime.codecs.fp16 import Fp16Codec
from glimmer_export.runtime.passage_texts import PassageTexts
from glimmer_export.runtime.retrieval import tantivy_bm25
from glimmer_export.runtime.retrieval.fts5 import Fts5Index
from glimmer_export.runtime.text import PlainTokenizer, read_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"
BUNDLE = GOLDEN / "bundle"
KINDS = [AttributeError, KeyError, TypeError]
PLACES = {
    "the tokenizer's wrapper": (PlainTokenizer, "_stripped", "store-fp16"),
    "retrieval by FTS5": (Fts5Index, "_ranked", "store-fp16"),
    "retrieval by tantivy": (tantivy_bm25, "steady", "store-tantivy"),
    "the reading of texts": (PassageTexts, "passages", "store-fp16"),
}


def fails(kind):
    def planted(*_: object, **__: object) -> None:
        raise kind("a planted bug")

    return planted


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


@pytest.fixture(params=PLACES)
def planted_store(request, kind, monkeypatch) -> Path:
    owner, name, store = PLACES[request.param]
    monkeypatch.setattr(owner, name, fails(kind))
    return GOLDEN / store


def run(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["glimmer-export", *map(str, arguments)])
    main()


def test_it_comes_out_of_a_session(planted_store, kind):
    with (
        Session.open(BUNDLE, planted_store, threads=1, verify=False) as session,
        pytest.raises(kind, match="a planted bug"),
    ):
        session.answer("w1 w2 w3")


def test_it_comes_out_of_the_command_line(planted_store, kind, monkeypatch):
    with pytest.raises(kind, match="a planted bug"):
        run(monkeypatch, "ask", BUNDLE, "w1 w2 w3", "--store", planted_store, "--threads", 1)


def test_a_codecs_comes_out_of_a_session(kind, monkeypatch):
    monkeypatch.setattr(Fp16Codec, "encode", fails(kind))
    with Session.open(BUNDLE, threads=1) as session, pytest.raises(kind, match="a planted bug"):
        session.answer("w1 w2 w3", passages=[Passage(None, "", "w1 w2")])


def test_a_codecs_comes_out_of_the_command_line(kind, monkeypatch, tmp_path):
    monkeypatch.setattr(Fp16Codec, "decode", fails(kind))
    store = shutil.copytree(GOLDEN / "store-fp16", tmp_path / "store")
    with pytest.raises(kind, match="a planted bug"):
        run(monkeypatch, "memory", "convert", store, "-o", tmp_path / "converted", "--codec", "int8")


def test_that_of_a_normaliser_is_not_dropped_by_the_library_that_calls_it(kind, monkeypatch):
    content = json.loads((BUNDLE / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = read_tokenizer(json.dumps(content).encode(), 1 << 20, subject="", fix="")
    charsmap = Charsmap((4).to_bytes(4, "little") + bytes(8))
    tokenizer._tokenizer.normalizer = normalizers.Sequence([normalizers.Normalizer.custom(charsmap)])
    monkeypatch.setattr(Charsmap, "__call__", fails(kind))
    with pytest.raises(kind, match="a planted bug"):
        tokenizer.encode("w1 w2")
    monkeypatch.undo()
    assert tokenizer.encode("w1 w2").tokens == ["w1", "w2"]

"""What users do with an input, in process: open it, ask, read all of it. Each is given the input and a free path."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from tests.fuzz.damage_values import ODD_NUMBERS, ODD_TEXTS
from tests.fuzz.inputs import BUNDLE, INT8_BUNDLE, NUM_PASSAGES, STORE, TANTIVY_STORE

__all__ = ["Odd"]

QUESTIONS = ["w1 w2 w3", "w59 w58", "w10 w11 w12 w13"]


class Odd:
    """An object that does not even describe itself."""

    def __repr__(self) -> str:
        raise RuntimeError


def store_of(path: Path) -> Path:
    """The store that fits the bundle of a case."""
    from tests.fuzz.targets import target_of

    return target_of((path.parent / "seed").read_text(encoding="utf-8").rpartition(" ")[0]).store


def bundle_session(path: Path, _: Path) -> None:
    from glimmer_export.runtime import Session

    with Session.open(path, store_of(path), threads=1, verify=False) as session:
        session.answer_many(QUESTIONS)
        session.answer("w1", passages=["w3 w4 w5"])


def fid_session(path: Path, _: Path) -> None:
    from glimmer_export.runtime import Passage, Session

    with Session.open(path, threads=1) as session:
        session.answer_many(QUESTIONS[:2], passages=[[Passage(None, "w1", "w2 w3"), "w4"]] * 2)


def store_session(path: Path, _: Path, *, retrieval: str = "bm25") -> None:
    """All of it is read: answers, texts, memory; and what digests would find is not looked for."""
    from glimmer_export.runtime import GlimmerError, Session

    with Session.open(BUNDLE, path, threads=1, verify=False, retrieval=retrieval) as session:
        session.answer_many(QUESTIONS)
        store = session.store
        assert store is not None
        for number in store._texts.all_numbers():
            with suppress(GlimmerError):
                store.passage(number)
                store.memory(number)
        with suppress(GlimmerError):
            store.numbers([1, "p2", "absent"])


def table_of_ranges(path: Path, _: Path) -> None:
    from glimmer_export.calibration.ranges_file import read_ranges
    from glimmer_export.runtime.contract import read_manifest

    read_ranges(path, read_manifest(path))


def parity_record(path: Path, _: Path) -> None:
    from glimmer_export.runtime.contract import check_parity, read_manifest, read_parity_records

    read_parity_records(path)
    check_parity(path, read_manifest(path))


def engine_record(path: Path, _: Path) -> None:
    from glimmer_export.exporter.engines import bundle_engines, stale
    from glimmer_export.runtime.contract import EngineRecord, read_manifest

    manifest = read_manifest(path)
    for record in bundle_engines(path).values():
        if isinstance(record, EngineRecord):
            stale(record, manifest)


def index_by_encoder(path: Path, out: Path) -> None:
    from glimmer_export.exporter.memory import index_store

    index_store(shutil.copytree(STORE, out.with_name("own")), encoder=path, threads=1)


def index_by_embeddings(path: Path, out: Path) -> None:
    from glimmer_export.exporter.memory import index_store

    store = shutil.copytree(STORE, out.with_name("own"))
    index_store(store, embeddings=path / "vectors.npy", ids=path / "ids.jsonl")


def scan_corpus(path: Path, _: Path) -> None:
    from glimmer_export.exporter.memory.corpus import Corpus

    for part in Corpus.scan(path, part_size=16).parts():
        assert part


def question_file(path: Path, _: Path) -> None:
    from glimmer_export.calibration.questions import given_passages, read_questions
    from glimmer_export.runtime import GlimmerError

    for row in read_questions(path):
        with suppress(GlimmerError):
            given_passages(row)


def id_file(path: Path, _: Path) -> None:
    from glimmer_export.exporter.memory import read_ids

    read_ids(path / "ids.jsonl")


def policy(path: Path, _: Path) -> None:
    from glimmer_export.calibration.policy import Policy
    from glimmer_export.exporter.config.read import read_config

    read_config("policy", str(path / "own.yaml"), Policy)


def gate(path: Path, _: Path) -> None:
    from glimmer_export.exporter.parity.gate import read_gate

    read_gate(str(path / "own.yaml"))


def machine(path: Path, _: Path) -> None:
    from glimmer_export.exporter.config.targets import read_target

    read_target(str(path / "targets" / "t4.yaml"))


def name_map(path: Path, _: Path) -> None:
    from glimmer_export.exporter.checkpoint.t5x import read_name_map

    read_name_map(path / "map.yaml")


def checkpoint(path: Path, _: Path) -> None:
    from glimmer_export.exporter.checkpoint import read_checkpoint
    from glimmer_export.exporter.stages import model_from_checkpoint

    model_from_checkpoint(read_checkpoint(path))


def tokenizer_of_a_checkpoint(path: Path, _: Path) -> None:
    from glimmer_export.exporter.checkpoint.tokenizer import find_tokenizer
    from glimmer_export.runtime.text import read_tokenizer

    content = find_tokenizer(path, None)
    if content is not None:
        tokenizer = read_tokenizer(content, 1 << 20, subject="", fix="")
        for text in ("a question é\u0301 \ufeff \u3000x", "", "w1 " * 500, "\U0001f4a5" * 40, "ﬀ" * 300):
            tokenizer.encode(text)


@cache
def trainer() -> Any:
    from tests.training.short import short_recipe, short_trainer

    return short_trainer(short_recipe())


def training(path: Path, _: Path) -> None:
    from glimmer_export.exporter.training.state import restore_state

    restore_state(trainer(), {"seed": 0}, path)


def arguments_of_a_session(path: Path, _: Path) -> None:
    """A call of the Python door with whatever a caller may pass by mistake."""
    random = _random(path)
    session = _session(random.randrange(2))
    values = [_argument(random) for _ in range(6)]
    match random.randrange(7):
        case 0:
            session.answer(values[0])
        case 1:
            session.answer("w1 w2", values[0], values[1])
        case 2:
            session.answer("w1", passages=values[0])
        case 3:
            session.answer_many(values[0], passages=values[1])
        case 4:
            session.answer_many(values[:2], passages=[values[2], values[3:]])
        case 5:
            session.store.search(values[0], values[1])
        case _:
            getattr(session.store, random.choice(("passage", "passages", "numbers", "memory", "prefetch")))(values[0])


def options_of_a_session(path: Path, _: Path) -> None:
    from glimmer_export.runtime import Session

    random = _random(path)
    options = {
        "threads": 1, "verify": False, "retrieval": "bm25", "backend": "auto", "passage_cache_bytes": 0,
        "draft_tokens": 2, "require_parity": False,
    }
    name = random.choice([*options, "bundle", "store"])
    paths = {"bundle": BUNDLE, "store": STORE, name: _argument(random)} if name in ("bundle", "store") else {}
    options |= {} if paths else {name: _argument(random)}
    bundle, store = paths.get("bundle", BUNDLE), paths.get("store", STORE)
    with Session.open(bundle, store, **options) as session:  # type: ignore[arg-type]
        session.answer("w1")


def odd_command(path: Path, out: Path) -> None:
    from tests.fuzz.commands import odd_words, run_command

    run_command(odd_words(_random(path), out))


def _is_sound(path: Path) -> bool:
    return (path.parent / "seed").read_text(encoding="utf-8").endswith("None")


def fails(path: Path, _: Path) -> None:
    """A bug is planted."""
    if not _is_sound(path):
        raise AttributeError("a planted bug")


def allocates(path: Path, _: Path) -> None:
    """And gigabytes are taken."""
    if not _is_sound(path):
        np.ones(1300 << 20, np.uint8)


def writes_outside(path: Path, _: Path) -> None:
    """And what lies outside is changed."""
    if not _is_sound(path):
        (path.parent / "victim").write_text("", encoding="utf-8")


def ends(path: Path, _: Path) -> None:
    """And the process ends, as where native code fails."""
    if not _is_sound(path):
        os.abort()


def hangs(path: Path, _: Path) -> None:
    """And nothing goes on."""
    if not _is_sound(path):
        time.sleep(600)


def _random(path: Path) -> Random:
    """The one of the case, whose seed stands beside its input."""
    return Random((path.parent / "seed").read_text(encoding="utf-8"))


@cache
def _session(number: int) -> Any:
    from glimmer_export.runtime import Session

    return Session.open(INT8_BUNDLE, (STORE.parent / "store-int8", STORE.parent / "store-int8")[number], threads=1)


def _argument(random: Random, depth: int = 0) -> Any:  # noqa: PLR0911 - one for each kind
    from glimmer_export.runtime import Passage, PassageId

    kind = random.randrange(10)
    if kind == 0:
        return random.choice(ODD_NUMBERS)
    if kind == 1:
        return random.choice(ODD_TEXTS)
    if kind == 2:
        return random.choice((
            None, True, False, b"w1", Odd(), Odd, object(), 1j, range(3), {"a": 1}, {1, 2}, ..., Path("a")
        ))
    if kind == 3:
        return random.choice((
            np.int64(3), np.uint8(200), np.float32(1.5), np.bool_(True), np.array([1, 2]), np.array("w1"), np.array(5),
            np.array([["a"]]), np.array([], np.int64), np.datetime64("2020"), np.zeros((2, 0)), np.array([None, 1]),
        ))
    if kind == 4 and depth < 3:
        return [_argument(random, depth + 1) for _ in range(random.choice((0, 1, 2, 5)))]
    if kind == 5 and depth < 3:
        return tuple(_argument(random, depth + 1) for _ in range(2))
    if kind == 6 and depth < 3:
        return (_argument(random, depth + 1) for _ in range(2))
    if kind == 7:
        return Passage(_argument(random, 3), _argument(random, 3), _argument(random, 3), _argument(random, 3))
    if kind == 8:
        return PassageId(_argument(random, 3))
    return random.choice((1, 2, NUM_PASSAGES, "w1 w2", "p2", "w1 " * 3000, str(TANTIVY_STORE)))

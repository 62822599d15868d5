"""Ranking over HTTP beside a cross-encoder that reads the same questions and passages, in turn with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from statistics import median
from typing import Any

import httpx
import numpy as np

from glimmer_export.exporter.bench.cross_encoder import (
    FP32_GRAPH,
    INT8_GRAPH,
    CrossEncoder,
    pair_ids,
    write_cross_encoder,
)
from glimmer_export.runtime import PassageId, Session
from tests.serving.load.asking import NATS
from tests.serving.load.scenarios import Subject, log_faults
from tests.serving.load.served import Served

__all__ = ["rerank"]

WARM_UP = 1
"""Questions that are not counted."""
AT_ONCE = 5
"""Pairs of like length that go through the cross-encoder together."""


def rerank(subject: Subject) -> dict[str, Any]:
    """The manifest's k passages of each question: by their ids, by their texts, and through the cross-encoder."""
    if subject.cross_encoder is None:
        raise ValueError("--cross-encoder names where its graphs are, or are to be")
    if not subject.cross_encoder.exists():
        write_cross_encoder(subject.cross_encoder)
    graphs = {"cross_encoder_fp32": FP32_GRAPH, "cross_encoder_int8": INT8_GRAPH}
    peers = {
        name: CrossEncoder(subject.cross_encoder / graph, threads=subject.threads) for name, graph in graphs.items()
    }
    turns: dict[str, list[float]] = {name: [] for name in ("stored", "texts", *peers)}
    tokens, faults, drawn = [], [], Random(0)
    with Session.open(subject.bundle, subject.store, threads=subject.threads) as session, subject.served() as served:
        assert session.store is not None
        k, end = session.bundle.manifest.model.num_retrieved, time.monotonic() + subject.seconds
        for number in range(WARM_UP + subject.requests):
            if time.monotonic() > end:
                break
            question = subject.questions[number % len(subject.questions)]
            found = session.store.passages([hit.number for hit in session.store.search(question, k)])
            question_ids = session.text.question(question)
            pairs = [pair_ids(question_ids, session.text.passage(item.title, item.text)[0]) for item in found]
            asked: dict[str, Callable[[], list[float]]] = {
                "stored": lambda q=question, f=found: _ranked(served, q, [{"id": item.id} for item in f]),
                "texts": lambda q=question, f=found: _ranked(
                    served, q, [{"title": item.title, "text": item.text} for item in f]
                ),
            }
            asked |= {
                name: lambda peer=peer, pairs=pairs: peer.scores(pairs, at_once=AT_ONCE).tolist()
                for name, peer in peers.items()
            }
            scores = {}
            for name in drawn.sample(sorted(asked), len(asked)):
                began = time.perf_counter()
                scores[name] = asked[name]()
                turns[name].append(1e3 * (time.perf_counter() - began))
            tokens += [len(ids) for ids in pairs]
            given = [[PassageId(item.id) for item in found], found]
            for name, passages in zip(("stored", "texts"), given, strict=True):
                expected = [item.score for item in session.rank(question, passages).passages]
                if not np.allclose(scores[name], expected, rtol=0, atol=NATS):
                    faults.append(f"{question!r}, {name}: {scores[name]} are not the session's {expected}")
        faults += log_faults(served)
    counted = {name: milliseconds[WARM_UP:] for name, milliseconds in turns.items()}

    def beside(ours: str) -> dict[str, float]:
        others = {name: zip(counted[ours], counted[name], strict=True) for name in peers}
        return {name: round(median(their / our for our, their in pairs), 2) for name, pairs in others.items()}

    return {
        "asked": len(counted["stored"]), "passages": k, "threads": subject.threads, "pairs_at_once": AT_ONCE,
        "tokens_of_a_pair": {"median": median(tokens), "most": max(tokens)},
        "median_ms": {name: round(median(values), 1) for name, values in counted.items()},
        "times_of_stored": beside("stored"), "times_of_texts": beside("texts"),
        "faults": faults,
    }


def _ranked(served: Served, question: str, documents: list[dict[str, Any]]) -> list[float]:
    """Scores in the order of the documents."""
    body = {"query": question, "documents": documents}
    results = httpx.post(f"{served.url}/v1/rerank", json=body, timeout=120).raise_for_status().json()["results"]
    return [item["score"] for item in sorted(results, key=lambda item: item["index"])]

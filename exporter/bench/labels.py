"""What pages call a contender of a bench's JSON."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from glimmer_export.exporter.bench.report import engine_label
from glimmer_export.exporter.bench.roster import (
    CROSS_ENCODER,
    HF_FID,
    LANGUAGE_MODEL,
    OPTIMUM_FID,
    OURS,
    PAPER_FORM,
    RERANK_LAYERS,
    STORED_STATES,
)

__all__ = ["contender_label", "contenders_of", "engine_of"]

LABELS = {
    OURS: "**glimmer-export**",
    PAPER_FORM: "GLIMMER in the paper's form (full stage A, cached cross-attention)",
    RERANK_LAYERS: "**glimmer-export**, {count} rerank layers",
    HF_FID: "FiD, Hugging Face, {passages} passages",
    OPTIMUM_FID: "FiD, exported by optimum, {passages} passages",
    LANGUAGE_MODEL: "Qwen2.5-0.5B's shape reading {passages} passages",
    STORED_STATES: "the same with the passages' keys and values kept: question and decoding alone",
    CROSS_ENCODER: "a cross-encoder of bge-reranker-base's shape, ranking {passages} passages",
}
ATTENTION = {"sdpa": "fused attention", "eager": "eager attention"}


def contenders_of(bench: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Ours, then the peers, by key; `bench` is the JSON of `--json`."""
    return {OURS: bench["end_to_end"], **bench["peers"]}


def contender_label(key: str, times: Mapping[str, Any]) -> str:
    """Who it is, without engine and precision; a bundle that was named on the command line is called that."""
    label = LABELS.get(times["form"], f"the bundle {times['form']}")
    counted = re.match(rf"{RERANK_LAYERS}-(\d+)".replace("-", "_"), key)
    return label.format(passages=times["passages"], count=counted[1] if counted else "")


def engine_of(bench: Mapping[str, Any], times: Mapping[str, Any]) -> str:
    """Its engine with the version, and the attention that ran where there is a choice."""
    engine = engine_label(times["engine"], bench["versions"])
    attention = ATTENTION.get(times["attention"] or "")
    if attention is None:
        return engine
    return f"{engine}, transformers {bench['versions']['transformers']}, {attention}"

"""The language model beside ours: what it reads, and what keeping the states of passages leaves to do."""

from __future__ import annotations

import numpy as np
import pytest

from glimmer_export.exporter.bench.contenders import open_contenders
from glimmer_export.exporter.bench.inputs import BenchQuestion
from glimmer_export.exporter.bench.language_model import (
    LanguageModelShape,
    state_bytes_per_token,
    write_language_model,
)
from glimmer_export.exporter.bench.measure import ContenderSpec

SHAPE = LanguageModelShape(vocab_size=300, d_model=64, d_ff=96, num_layers=2, num_heads=4, num_key_value_heads=2)


def test_the_states_of_a_token():
    """Keys and values of 2 heads of 64 in 24 layers, in FP16."""
    assert LanguageModelShape().state_bytes_per_token == 12_288


def questions():
    random = np.random.default_rng(0)
    for _ in range(3):
        rows = [(*random.integers(3, 290, length).tolist(), 1) for length in (6, 30, 30, 30)]
        yield BenchQuestion("", rows[0], (0, 1, 2), tuple(rows[1:]))


def test_kept_states_change_no_answer(tmp_path):
    pytest.importorskip("ctranslate2", reason="the peer's engine: the extra peers")
    directory = tmp_path / "model"
    write_language_model(directory, SHAPE)
    assert state_bytes_per_token(directory) == 2 * 2 * 2 * 16 * 2
    specs = [
        ContenderSpec(form.replace("-", "_"), directory, None, 2, None, 5, 1, form, "ctranslate2", "int8")
        for form in ("llm", "llm-kv")
    ]
    asked = list(questions())
    contenders = open_contenders(specs, [asked[:2]])
    whole, kept = (contenders[spec.key].answer(asked).tokens for spec in specs)
    assert whole == kept
    assert [len(tokens) for tokens in whole] == [5, 5, 5]
    assert len({tuple(tokens) for tokens in whole}) > 1

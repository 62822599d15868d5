"""Inputs of a bench: exactly as long as asked for, random, and the same for every contender."""

from __future__ import annotations

import json

import pytest

from glimmer_export.exporter.bench.inputs import (
    corpus_lines,
    random_passages,
    random_questions,
    text_from_ids,
    word_tokenizer,
)
from glimmer_export.exporter.checkpoint import read_config
from glimmer_export.runtime.text import TextEncoder


@pytest.fixture
def config(bench_options):
    return read_config(bench_options.checkpoint)


def test_lengths_and_contents(config):
    passages = random_passages(config, 8, 20, seed=0)
    questions = random_questions(config, passages, count=3, num_tokens=11, num_passages=5, seed=0)
    assert {len(ids) for ids in passages} == {20}
    assert {len(question.token_ids) for question in questions} == {11}
    assert all(len(set(ids)) > 5 and ids[-1] == config.eos_token_id for ids in passages)
    assert all(config.eos_token_id not in ids[:-1] and config.pad_token_id not in ids for ids in passages)
    assert len(set(passages)) == 8
    for question in questions:
        assert len(set(question.numbers)) == 5
        assert question.passage_ids == tuple(passages[number] for number in question.numbers)


def test_the_seed_decides(config):
    assert random_passages(config, 4, 20, seed=1) == random_passages(config, 4, 20, seed=1)
    assert random_passages(config, 4, 20, seed=1) != random_passages(config, 4, 20, seed=2)


def test_text_comes_back_as_the_same_ids(config, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(word_tokenizer(config.vocab_size))
    shape = config.model_copy(update={"passage_template": "{text}"}).shape
    encoder = TextEncoder.open(tmp_path / "tokenizer.json", shape)
    passages = random_passages(config, 4, 20, seed=3)
    for ids, line in zip(passages, corpus_lines(passages).splitlines(), strict=True):
        assert encoder.passage("", json.loads(line)["text"]) == (list(ids), False)
    (question,) = random_questions(config, passages, count=1, num_tokens=9, num_passages=2, seed=3)
    assert encoder.question(question.text) == list(question.token_ids)
    assert question.text == text_from_ids(question.token_ids[:-1])

"""What a T5 is pre-trained on: spans of the demo's texts, each standing in the passage that goes with it."""

from __future__ import annotations

import pytest

from glimmer_export.exporter.demo.cloze import cloze_start, generate_cloze
from tests.training.short import demo_text


def test_what_is_missing_stands_in_the_gold_passage():
    world = generate_cloze("train", 300, seed=1, num_contexts=4)
    lengths = set()
    for question in world.questions:
        assert len(set(question["ctx_ids"])) == 4
        (gold,) = question["gold_ids"]
        assert gold in question["ctx_ids"]
        (answer,) = question["answers"]
        whole = question["question"].replace("[SEP]", answer).removesuffix(" .")
        assert whole in world.corpus[gold]["text"]
        lengths.add(len(answer.split()))
    assert lengths == {1, 2, 3}


def test_a_missing_value_stands_in_the_gold_passage_alone_of_ten():
    world = generate_cloze("train", 300, seed=1, facts_per_passage=1, missing="values")
    said_otherwise = 0
    for question in world.questions:
        assert len(set(question["ctx_ids"])) == 10
        (gold,), (answer,) = question["gold_ids"], question["answers"]
        assert gold in question["ctx_ids"]
        before, after = question["question"].split("[SEP]")
        text = world.corpus[gold]["text"]
        assert answer in text
        assert world.corpus[gold]["title"].lower() in question["question"].lower()
        said_otherwise += not (text.startswith(before.removesuffix("a ").removesuffix("an ")) and text.endswith(after))
    assert 0.3 < said_otherwise / len(world.questions) < 0.7


@pytest.mark.parametrize("missing", ["spans", "values"])
def test_all_of_it_fits_the_model(missing):
    config, _ = cloze_start("fid")
    text = demo_text()
    for question in generate_cloze("test", 500, seed=0, missing=missing).questions:
        assert len(text.question(question["question"])) <= config.question_length
        assert len(text.answer(question["answers"][0])) <= config.max_new_tokens


def test_the_same_seed_gives_the_same_rows():
    assert generate_cloze("train", 50, seed=3) == generate_cloze("train", 50, seed=3)
    assert generate_cloze("train", 50, seed=3).questions != generate_cloze("train", 50, seed=4).questions


def test_words_that_cannot_be_missing_are_refused():
    with pytest.raises(ValueError, match="neither spans nor values"):
        generate_cloze("train", 1, seed=0, missing="verbs")

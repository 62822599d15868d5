"""What a T5 is pre-trained on: spans of the demo's texts, each standing in the passage that goes with it."""

from __future__ import annotations

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


def test_all_of_it_fits_the_model():
    config, _ = cloze_start("fid")
    text = demo_text()
    for question in generate_cloze("test", 500, seed=0).questions:
        assert len(text.question(question["question"])) <= config.question_length
        assert len(text.answer(question["answers"][0])) <= config.max_new_tokens


def test_the_same_seed_gives_the_same_rows():
    assert generate_cloze("train", 50, seed=3) == generate_cloze("train", 50, seed=3)
    assert generate_cloze("train", 50, seed=3).questions != generate_cloze("train", 50, seed=4).questions

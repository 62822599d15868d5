"""The demo world: reproducible, fair to the reader, and with no test entity in the training split."""

import json
import re
import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glimmer_export.exporter.demo.relations import KINDS
from glimmer_export.exporter.demo.world import (
    NUM_CONTEXT,
    TASKS,
    generate_split,
    names_of_split,
    withhold_gold,
    write_world,
)

seeds = st.integers(min_value=0, max_value=2**32)


@pytest.fixture(scope="module")
def world():
    return generate_split("test", 300, seed=1)



def test_same_seed_same_world():
    assert generate_split("test", 50, seed=3) == generate_split("test", 50, seed=3)
    assert generate_split("test", 50, seed=3) != generate_split("test", 50, seed=4)
    assert generate_split("train", 50, seed=3) != generate_split("test", 50, seed=3)


@settings(max_examples=10, deadline=None)
@given(train_seed=seeds, test_seed=seeds)
def test_no_entity_is_in_both_splits(train_seed, test_seed):
    train = generate_split("train", 200, train_seed)
    test = generate_split("test", 200, test_seed)
    assert not {passage["title"] for passage in train.corpus} & {passage["title"] for passage in test.corpus}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_splits_partition_the_names_and_share_every_word(kind):
    train, test = names_of_split(kind, "train"), names_of_split(kind, "test")
    assert not set(train) & set(test)
    assert len(train) + len(test) == len(kind.first) * len(kind.last)
    for place in (0, 1):
        assert {name[place] for name in train} == {name[place] for name in test}


def test_names_tell_the_entities_apart():
    names = [f"{first} {last}" for kind in KINDS for first in kind.first for last in kind.last]
    assert len(names) == len(set(names))


def test_corpus_is_in_order_and_spreads_an_entity_over_passages(world):
    assert [passage["id"] for passage in world.corpus] == list(range(len(world.corpus)))
    titles = [passage["title"] for passage in world.corpus]
    assert {titles.count(title) for title in set(titles)} == {3}
    assert all(passage["text"].count(".") == 2 for passage in world.corpus)


@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_context_is_ten_distinct_passages_with_the_gold_one_anywhere(seed):
    world = generate_split("test", 200, seed)
    places = set()
    for question in world.questions:
        assert len(question["ctx_ids"]) == len(set(question["ctx_ids"])) == NUM_CONTEXT
        (gold,) = question["gold_ids"]
        places.add(question["ctx_ids"].index(gold))
    assert places == set(range(NUM_CONTEXT))


@settings(max_examples=5, deadline=None)
@given(seed=seeds, num_questions=st.integers(1, 30), num_contexts=st.integers(10, 50))
def test_context_is_as_large_as_asked_for(seed, num_questions, num_contexts):
    world = generate_split("test", num_questions, seed, num_contexts=num_contexts)
    assert len(world.questions) == num_questions
    for question in world.questions:
        assert len(question["ctx_ids"]) == len(set(question["ctx_ids"])) == num_contexts
        assert set(question["gold_ids"]) <= set(question["ctx_ids"])


def test_a_question_with_25_passages_has_more_names_that_share_a_word():
    more, usual = (near_names(generate_split("test", 300, seed=1, num_contexts=count)) for count in (25, 10))
    assert more > 1.5 * usual


def near_names(world) -> float:
    """Mean number of distractors whose title shares a word with the gold passage's."""
    found = 0
    for question in world.questions:
        title = world.corpus[question["gold_ids"][0]]["title"]
        others = [world.corpus[each]["title"] for each in question["ctx_ids"]]
        found += sum(other != title and bool(set(other.split()) & set(title.split())) for other in others)
    return found / len(world.questions)


def test_gold_passage_states_the_answer(world):
    for question in world.questions:
        gold = world.corpus[question["gold_ids"][0]]
        assert gold["title"] in question["question"]
        (answer,) = question["answers"]
        if question["task"] != "claim":
            assert re.search(rf"\b{answer}\b", gold["text"])


def test_a_claim_is_supported_exactly_where_the_passage_says_the_same():
    world = generate_split("train", 300, seed=0)
    claims = [question for question in world.questions if question["task"] == "claim"]
    for question in claims:
        gold = world.corpus[question["gold_ids"][0]]
        statements = [
            relation.sentences
            for kind in KINDS
            for relation in kind.relations
            if any(matches(sentence, gold["title"], question["question"]) for sentence in relation.sentences)
        ]
        (sentences,) = statements
        claimed = {matches(sentence, gold["title"], question["question"]) for sentence in sentences} - {None}
        (value,) = claimed
        said = any(
            re.search(pattern(sentence, r"[\w ]+?", re.escape(value)), gold["text"], re.IGNORECASE)
            for sentence in sentences
        )
        assert (question["answers"] == ["SUPPORTS"]) == said
    supported = sum(question["answers"] == ["SUPPORTS"] for question in claims)
    assert 0.3 < supported / len(claims) < 0.7


def pattern(sentence, subject, value):
    escaped = re.escape(sentence.replace("a {v}", "{v}")).replace(r"\{s\}", subject)
    return escaped.replace(r"\{v\}", rf"(?:an? )?({value})")


def matches(sentence, name, text):
    """The value that `text` states of `name` by the template `sentence`, None where it does not."""
    found = re.fullmatch(pattern(sentence, re.escape(name), r"[\w ]+?"), text, re.IGNORECASE)
    return found and found.group(1)


def test_distractors_are_near_misses(world):
    near = 0
    for question in world.questions:
        (gold,) = question["gold_ids"]
        title = world.corpus[gold]["title"]
        others = [world.corpus[each]["title"] for each in question["ctx_ids"] if each != gold]
        assert others.count(title) == 2
        sharing = [other for other in others if other != title and set(other.split()) & set(title.split())]
        near += len(sharing)
        assert sharing
    assert near / len(world.questions) >= 3


def test_every_task_is_asked_about_equally_often():
    for split, forms in TASKS.items():
        tasks = [question["task"] for question in generate_split(split, 3000, seed=0).questions]
        assert all(0.9 < len(forms) * tasks.count(form) / len(tasks) < 1.1 for form in forms)


def test_withheld_fact_is_nowhere_in_the_context(world):
    for question, withheld in zip(world.questions, withhold_gold(world, seed=0).questions, strict=True):
        assert withheld["gold_ids"] == []
        assert not set(withheld["ctx_ids"]) & set(question["gold_ids"])
        assert len(set(withheld["ctx_ids"])) == NUM_CONTEXT
        assert len(set(withheld["ctx_ids"]) - set(question["ctx_ids"])) == 1


def test_ten_thousand_test_questions_are_all_different():
    world = generate_split("test", 10_000, seed=0)
    asked = {(question["task"], question["gold_ids"][0], question["question"]) for question in world.questions}
    assert len(asked) == len(world.questions) == 10_000


def test_more_questions_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="48000 different questions"):
        generate_split("test", 48_001, seed=0)


def test_bm25_finds_the_gold_passage():
    world = generate_split("test", 500, seed=2)
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE passages USING fts5(title, text)")
    rows = [(passage["id"], passage["title"], passage["text"]) for passage in world.corpus]
    database.executemany("INSERT INTO passages(rowid, title, text) VALUES (?, ?, ?)", rows)
    found = 0
    for question in world.questions:
        query = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", question["question"]))
        best = database.execute(
            "SELECT rowid FROM passages WHERE passages MATCH ? ORDER BY rank LIMIT ?", (query, NUM_CONTEXT)
        )
        found += question["gold_ids"][0] in {row for (row,) in best}
    database.close()
    assert found / len(world.questions) >= 0.98


def test_written_world_is_one_object_a_line(world, tmp_path):
    write_world(tmp_path / "world", world)
    for name, rows in (("corpus", world.corpus), ("questions", world.questions)):
        lines = (tmp_path / "world" / f"{name}.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == rows

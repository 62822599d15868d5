"""The hard world: reproducible, fair to the reader, split by names, and not to be solved by overlap of words."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.demo.data import write_demo
from glimmer_export.exporter.demo.generator import hard_start
from glimmer_export.exporter.demo.hard_relations import HARD_KINDS
from glimmer_export.exporter.demo.hard_world import (
    HARD_CHECKPOINT,
    HARD_CONTEXT,
    HARD_TASKS,
    generate_hard_split,
    split_of_name,
)
from glimmer_export.exporter.demo.tokenizer import build_tokenizer
from glimmer_export.exporter.training.generators import generate

NUM_QUESTIONS = 300
seeds = st.integers(min_value=0, max_value=2**32)


@pytest.fixture(scope="module")
def world():
    return generate_hard_split("test", NUM_QUESTIONS, seed=1)


def titles(world, question):
    """The gold passage's title, and those of the others."""
    (gold,) = question["gold_ids"]
    others = [world.corpus[each]["title"] for each in question["ctx_ids"] if each != gold]
    return world.corpus[gold]["title"], others


def test_same_seed_same_world():
    assert generate_hard_split("test", 50, seed=3) == generate_hard_split("test", 50, seed=3)
    assert generate_hard_split("test", 50, seed=3) != generate_hard_split("test", 50, seed=4)


@settings(max_examples=3, deadline=None)
@given(seed=seeds)
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_name_belongs_to_its_split(split, seed):
    kinds = {kind.last: kind for kind in HARD_KINDS}
    for passage in generate_hard_split(split, 1, seed).corpus:
        name = passage["title"].split()
        (kind,) = [kind for kind in kinds.values() if name[2] in kind.last]
        assert split_of_name(kind, name) == split


@settings(max_examples=3, deadline=None)
@given(seed=seeds)
def test_context_is_25_distinct_passages_with_the_gold_one_anywhere(seed):
    places = set()
    for question in generate_hard_split("test", 200, seed).questions:
        assert len(question["ctx_ids"]) == len(set(question["ctx_ids"])) == HARD_CONTEXT
        places.add(question["ctx_ids"].index(question["gold_ids"][0]))
    assert len(places) > HARD_CONTEXT // 2


@settings(max_examples=3, deadline=None)
@given(seed=seeds, num_contexts=st.integers(10, 50))
def test_context_is_as_large_as_asked_for(seed, num_contexts):
    for question in generate_hard_split("test", 20, seed, num_contexts=num_contexts).questions:
        assert len(set(question["ctx_ids"])) == num_contexts
        assert set(question["gold_ids"]) <= set(question["ctx_ids"])


def test_gold_passage_alone_states_the_answer(world):
    for question in world.questions:
        title, _ = titles(world, question)
        (answer,) = question["answers"]
        assert title in question["question"]
        stating = [each for each in question["ctx_ids"] if re.search(rf"\b{answer}\b", world.corpus[each]["text"])]
        assert [each for each in stating if world.corpus[each]["title"] == title] == question["gold_ids"]
        assert len(stating) == 1


def test_a_third_of_the_passages_share_all_but_one_word_of_the_name(world):
    for question in world.questions:
        title, others = titles(world, question)
        assert title in others
        shared = [len(set(title.split()) & set(other.split())) for other in others]
        assert shared.count(2) >= 9


def test_passages_state_three_to_five_facts(world):
    facts = {passage["text"].count(".") for passage in world.corpus}
    assert facts == {3, 4, 5}


@pytest.mark.parametrize("facts", [(1, 1), (1, 2), (2, 2), (2, 3), (4, 4)])
def test_a_curriculum_may_ask_for_fewer_facts(facts):
    least, most = facts
    world = generate_hard_split("train", 20, seed=0, facts_per_passage=facts)
    counts = [passage["text"].count(".") for passage in world.corpus]
    assert set(counts) >= {least, most}
    assert max(counts) == most


def test_scrambled_values_have_their_lengths_and_are_stated(world):
    """Their words come from all relations' lists: a value's kind tells nothing of the fact."""
    made = generate_hard_split("train", NUM_QUESTIONS, 1, (2, 3), scrambled=True)
    lengths = {len(each.values) for kind in HARD_KINDS for each in kind.relations}
    firsts = {word for kind in HARD_KINDS for each in kind.relations for word in each.values[0]}
    answers = [question["answers"][0] for question in made.questions]
    assert {len(answer.split()) for answer in answers} == lengths
    assert sum(answer.split()[0] in firsts for answer in answers) < len(answers) / 2
    for question, answer in zip(made.questions, answers, strict=True):
        assert answer.lower() in made.corpus[question["gold_ids"][0]]["text"].lower()


def test_more_questions_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="153600 different questions"):
        generate_hard_split("test", 153_601, seed=0)


def test_all_is_known_to_the_tokenizer_and_fits(world):
    tokenizer = build_tokenizer(HARD_KINDS)
    config, written = hard_start("glimmer")
    assert written.decode() == tokenizer.to_str(pretty=True)
    assert config.vocab_size == tokenizer.get_vocab_size()
    assert config.num_retrieved == HARD_CONTEXT
    unknown = tokenizer.token_to_id("<unk>")
    for passage in world.corpus:
        ids = tokenizer.encode(f"{passage['title']} {passage['text']}").ids
        assert unknown not in ids
        assert len(ids) <= config.passage_length
    for question in world.questions:
        ids = tokenizer.encode(question["question"]).ids
        assert unknown not in ids
        assert len(ids) <= config.question_length
        assert len(tokenizer.encode(question["answers"][0]).ids) <= config.max_new_tokens
        assert question["task"] in HARD_TASKS


def test_a_recipe_may_name_it():
    world = generate("hard", "train", 10, 0, {"facts_per_passage": [1, 1]})
    assert len(world.questions) == 10
    assert {passage["text"].count(".") for passage in world.corpus} == {1}


def test_answers_have_three_to_eight_tokens():
    tokenizer = build_tokenizer(HARD_KINDS)
    questions = generate_hard_split("test", 1000, seed=0).questions
    lengths = {len(tokenizer.encode(question["answers"][0], add_special_tokens=False)) for question in questions}
    assert lengths == {3, 4, 5, 6, 7, 8}


def test_words_alone_do_not_find_the_gold(world):
    """Of the passages that share most words with the question, the gold one is rarely the only one."""
    found = 0
    for question in world.questions:
        asked = words(question["question"])
        passages = {each: world.corpus[each] for each in question["ctx_ids"]}
        overlap = {each: len(asked & words(f"{row['title']} {row['text']}")) for each, row in passages.items()}
        best = [each for each, count in overlap.items() if count == max(overlap.values())]
        found += best == question["gold_ids"]
    assert found / len(world.questions) < 0.5


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def test_every_relation_is_asked_for_in_words_that_no_sentence_of_it_has():
    for kind in HARD_KINDS:
        for relation in kind.relations:
            told = set().union(*(words(sentence.format(s="", v="")) for sentence in relation.sentences))
            asked = [words(question.format(e="")) for question in relation.questions]
            assert any(not (question - FUNCTION_WORDS) & told for question in asked), relation.name


FUNCTION_WORDS = words("a and as at by did do does from has have in is it its of on or the to was were what when where")


def test_the_checkpoint_is_of_this_world_and_small():
    checkpoint = read_checkpoint(HARD_CHECKPOINT)
    config, tokenizer = hard_start("glimmer")
    assert checkpoint.config == config
    assert checkpoint.tokenizer.read_bytes() == tokenizer
    assert sum(path.stat().st_size for path in HARD_CHECKPOINT.iterdir()) <= 12_000_000


def test_demo_data_writes_it(tmp_path):
    summary = write_demo(tmp_path / "hard", world="hard", num_questions=3, seed=0)
    assert (summary["questions"], summary["contexts"]) == (3, HARD_CONTEXT)
    assert read_checkpoint(tmp_path / "hard" / "checkpoint").config.num_retrieved == HARD_CONTEXT
    rows = (tmp_path / "hard" / "questions.jsonl").read_text().splitlines()
    assert [len(json.loads(row)["ctx_ids"]) for row in rows] == [HARD_CONTEXT] * 3

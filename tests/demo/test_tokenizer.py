"""The demo tokenizer knows every word of the world and gives answers back."""

from glimmer_export.exporter.answering import exact_match
from glimmer_export.exporter.demo.generator import demo_start
from glimmer_export.exporter.demo.tokenizer import EOS_ID, PAD_ID, build_tokenizer
from glimmer_export.exporter.demo.world import generate_split


def test_special_tokens_have_the_ids_of_t5():
    tokenizer = build_tokenizer()
    assert tokenizer.token_to_id("<pad>") == PAD_ID == 0
    assert tokenizer.token_to_id("</s>") == EOS_ID == 1
    assert tokenizer.token_to_id("<unk>") == 2


def test_no_word_of_the_world_is_unknown_and_all_fits():
    tokenizer, (config, _) = build_tokenizer(), demo_start("glimmer")
    assert tokenizer.get_vocab_size() == config.vocab_size
    unknown = tokenizer.token_to_id("<unk>")
    for split in ("train", "test"):
        world = generate_split(split, 3000, seed=0)
        for passage in world.corpus:
            ids = tokenizer.encode(config.passage_template.format(**passage)).ids
            assert unknown not in ids
            assert len(ids) <= config.passage_length
        for question in world.questions:
            ids = tokenizer.encode(config.question_template.format(**question)).ids
            assert unknown not in ids
            assert ids[-1] == EOS_ID
            assert len(ids) <= config.question_length


def test_answers_survive_the_round_trip():
    tokenizer, (config, _) = build_tokenizer(), demo_start("glimmer")
    for question in generate_split("test", 3000, seed=0).questions:
        ids = tokenizer.encode(question["answers"][0]).ids
        assert len(ids) <= config.max_new_tokens
        assert exact_match(tokenizer.decode(ids, skip_special_tokens=True), question["answers"])


def test_sep_is_one_token():
    tokenizer = build_tokenizer()
    tokens = tokenizer.encode("Alric Ashberg [SEP] profession").tokens
    assert tokens == ["alric", "ashberg", "[SEP]", "profession", "</s>"]

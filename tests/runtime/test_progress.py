"""Sessions tell of answers before their batch is done, and rank passages without answering."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from glimmer_export.runtime import OptionError, Passage, Session
from glimmer_export.runtime.progress import GrowingText
from glimmer_export.runtime.text import PlainTokenizer, TextEncoder
from tests.exported import CORPUS, QUESTIONS
from tests.golden.whole import whole

GOLDEN = whole("schema8")
GIVEN = [Passage(None, row["title"], row["text"]) for row in CORPUS[:12]]


@pytest.fixture(scope="module")
def session():
    with Session.open(GOLDEN / "bundle", GOLDEN / "store-int8", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def fid():
    with Session.open(GOLDEN / "bundle-fid", threads=1) as opened:
        yield opened


@pytest.mark.parametrize("source", ["session", "fid"])
def test_what_is_told_of_an_answer_joined_is_the_answer(request, source):
    asked = request.getfixturevalue(source)
    given = [GIVEN[:4]] * len(QUESTIONS) if source == "fid" else None
    texts, ended = [""] * len(QUESTIONS), {}

    def on_token(index, text):
        assert text
        assert index not in ended
        texts[index] += text

    answers = asked.answer_many(QUESTIONS, passages=given, on_token=on_token, on_answer=ended.setdefault)
    assert texts == [answer.answer for answer in answers]
    assert [ended[index].answer for index in range(len(QUESTIONS))] == texts
    for index, answer in enumerate(answers):
        early = ended[index]
        assert (early.passages, early.token_ids, early.log_probability) == (
            answer.passages, answer.token_ids, answer.log_probability,
        )
        assert early.milliseconds["decode"] > 0
        assert early.milliseconds["total"] <= answer.milliseconds["total"]


def test_an_answer_is_told_when_its_row_ends_and_not_when_the_batch_does(session):
    lengths = [len(answer.token_ids) for answer in session.answer_many(QUESTIONS)]
    assert len(set(lengths)) > 1
    told = []
    session.answer_many(
        QUESTIONS, on_token=lambda index, _: told.append(index), on_answer=lambda index, _: told.append(-1 - index)
    )
    first = next(place for place, item in enumerate(told) if item < 0)
    assert any(item >= 0 for item in told[first:])
    ends = [-1 - item for item in told if item < 0]
    assert [lengths[index] for index in ends] == sorted(lengths)


def test_what_has_no_answer_is_told_too(session):
    questions = ["", "w1", "nothing of the corpus"]
    ended = {}
    answers = session.answer_many(questions, passages=[None, ["nowhere"], None], on_answer=ended.setdefault)
    assert sorted(ended) == [0, 1, 2]
    assert [type(ended[index].error) for index in range(3)] == [type(answer.error) for answer in answers]
    assert answers[0].error is not None
    assert answers[1].error is not None


def test_what_a_callback_raises_is_raised(session):
    def stop(*_):
        raise KeyError("stop")

    with pytest.raises(KeyError):
        session.answer_many(QUESTIONS[:2], on_answer=stop)
    assert session.answer(QUESTIONS[1]).answer


def test_passages_are_ranked_as_answering_scores_them_however_many_there_are(session):
    most = session.bundle.manifest.model.num_retrieved
    assert len(GIVEN) > 2 * most
    ranked = session.rank(QUESTIONS[0], GIVEN)
    alone = [session.answer(QUESTIONS[0], passages=[passage]).scores[0] for passage in GIVEN]
    assert ranked.scores == pytest.approx(alone, abs=1e-4)
    assert ranked.answer is None
    assert not ranked.read_passages
    both = session.rank_many(QUESTIONS[:2], [GIVEN[:7], [CORPUS[0]["id"], CORPUS[1]["id"]]])
    assert both[0].scores == pytest.approx(alone[:7], abs=1e-4)
    assert [item.passage.id for item in both[1].passages] == [CORPUS[0]["id"], CORPUS[1]["id"]]


def test_only_what_ranks_can_be_asked_to(session, fid):
    with pytest.raises(OptionError, match="ranks"):
        fid.rank("w1", GIVEN)
    assert session.rank_many(["", "w1"], [GIVEN, ["nowhere"]])[1].error is not None


def test_passages_are_looked_up_by_their_ids(session, fid):
    assert [item.text for item in session.passages([CORPUS[1]["id"], CORPUS[0]["id"]])] == [
        CORPUS[1]["text"], CORPUS[0]["text"],
    ]
    with pytest.raises(OptionError, match="store"):
        fid.passages([1])


WORDS = ["<unk>", "▁a", "b", "▁", "▁é", "\N{REPLACEMENT CHARACTER}", " ", ""]
BYTES = {piece: number for number, piece in enumerate([*WORDS, *(f"<0x{byte:02X}>" for byte in range(256))])}
DRAWN = [*range(1, len(WORDS)), *(BYTES[f"<0x{byte:02X}>"] for byte in (0x41, 0xC3, 0xA9, 0xE4))]


def text_of(decoder) -> TextEncoder:
    tokenizer = Tokenizer(models.BPE(BYTES, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoder
    return TextEncoder(PlainTokenizer(tokenizer), None)  # type: ignore[arg-type]


DECODERS = {
    "metaspace": decoders.Metaspace(),
    "bytes": decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]),
    "bytes, stripped": decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    ),
    "word pieces": decoders.WordPiece(),
}


@pytest.mark.parametrize("decoder", DECODERS)
@given(tokens=st.lists(st.sampled_from(DRAWN), max_size=12))
def test_parts_joined_are_the_text_whatever_the_tokens(decoder, tokens):
    text = text_of(DECODERS[decoder])
    growing = GrowingText(text)
    parts = [growing.add(tokens[: count + 1]) for count in range(len(tokens))]
    whole = text.decode(tokens)
    assert "".join(parts) + growing.end(whole) == whole


def test_a_character_of_several_bytes_comes_whole():
    text = text_of(DECODERS["bytes"])
    tokens = [BYTES["▁a"], *(BYTES[f"<0x{byte:02X}>"] for byte in "日".encode()), BYTES["b"]]
    growing = GrowingText(text)
    assert [growing.add(tokens[: count + 1]) for count in range(len(tokens))] == ["a", "", "", "", "日b"]

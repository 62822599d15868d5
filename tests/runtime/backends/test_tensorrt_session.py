"""A session over TensorRT's backend answers as on the CPU, whatever the order of what is queued; on fakes, with no GPU.

The fakes (fake_cuda.py, fake_tensorrt.py) fail on what a GPU would forgive, so each test here also checks lifetimes,
waits and captures, and that everything is given back.
"""

from __future__ import annotations

import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from glimmer_export.runtime import Passage, Session
from glimmer_export.runtime.backends.tensorrt.engine_graph import EngineGraph
from glimmer_export.runtime.candidates import PassageId
from glimmer_export.runtime.contract import BackendError, NotFiniteError
from glimmer_export.runtime.drafts import DraftSource
from glimmer_export.runtime.reader import Reader
from tests.calibrated import quantized
from tests.exported import CASCADES, CORPUS, QUESTIONS, VARIANTS
from tests.reference_answers import assert_same_scores
from tests.runtime.backends.fake_tensorrt import MOST_PASSAGES, write_engines
from tests.runtime.test_not_finite import GIVEN, with_nan

IDS = [row["id"] for row in CORPUS]
LIBRARIES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def assert_same(answer, expected) -> None:
    assert (answer.answer, answer.token_ids, answer.selected) == (
        expected.answer, expected.token_ids, expected.selected
    )
    assert [item.passage for item in answer.passages] == [item.passage for item in expected.passages]
    assert_same_scores(answer, expected)


@contextmanager
def opened(source, bundle, backend="tensorrt", **options):
    with Session.open(bundle, source.store, backend=backend, verify=False, **options) as session:
        assert session.backend_choice.name == backend
        yield session


@pytest.mark.parametrize("variant", [*VARIANTS, *CASCADES])
@pytest.mark.parametrize("order", [None, 1])
def test_answers_are_the_cpus(exported, engined, gpu, variant, order):
    source = exported(variant)
    gpu(order=order)
    with opened(source, engined(source)) as session:
        for question in QUESTIONS:
            assert_same(session.answer(question), source.session.answer(question))
        for answer, expected in zip(
            session.answer_many(QUESTIONS), source.session.answer_many(QUESTIONS), strict=True
        ):
            assert_same(answer, expected)


@pytest.mark.parametrize("variant", ["glimmer", "glimmer, exact algebra, two layers"])
def test_a_mass_reads_as_few_as_on_the_cpu(exported, engined, gpu, variant):
    """Stage B takes one m for a batch: where a row reads fewer, its mask says so."""
    source = exported(variant)
    gpu(order=1)
    expected = source.session.answer_many(QUESTIONS, top_m=3, mass=0.55)
    assert len({len(answer.selected) for answer in expected}) > 1
    with opened(source, engined(source)) as session:
        for answer, other in zip(session.answer_many(QUESTIONS, top_m=3, mass=0.55), expected, strict=True):
            assert_same(answer, other)


@pytest.mark.parametrize("variant", ["glimmer", pytest.param("memory_fid", marks=pytest.mark.slow)])
def test_an_fp16_bundle_hands_over_fp16_on_the_device(exported, gpu, tmp_path, variant):
    """Encoder states, keys and values and the cache are of the engines' types from the first step on."""
    source = exported(variant)
    bundle = Path(shutil.copytree(quantized(source, "fp16"), tmp_path / "bundle"))
    write_engines(bundle, gpu(order=1).key)
    with Session.open(bundle, source.store, threads=1, backend="onnxruntime-cpu") as session:
        expected = session.answer_many(QUESTIONS)
    with opened(source, bundle) as session:
        answers = session.answer_many(QUESTIONS)
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]
    assert all(math.isfinite(answer.log_probability) for answer in answers)


@pytest.mark.parametrize("order", range(8))
def test_any_order_that_streams_and_events_permit(glimmer, engined, gpu, order):
    gpu(order=order)
    with opened(glimmer, engined(glimmer), passage_cache_bytes=4000) as session:
        for question in (*QUESTIONS[:4], *QUESTIONS[:2]):
            assert_same(session.answer(question), glimmer.session.answer(question))


@pytest.mark.parametrize("backend", LIBRARIES)
@pytest.mark.parametrize("integrated", [False, True])
def test_both_libraries_and_kinds_of_memory(glimmer, engined, gpu, backend, integrated):
    library = gpu(LIBRARIES[backend], integrated=integrated)
    with opened(glimmer, engined(glimmer, LIBRARIES[backend]), backend) as session:
        for question in QUESTIONS:
            assert_same(session.answer(question), glimmer.session.answer(question))
    # Where GPU and host have one memory, nothing is copied to the GPU.
    assert (library.cuda.copied["in"] == 0) == integrated


def test_given_texts_and_passages_of_the_store_together(glimmer, engined, gpu):
    gpu()
    rows = CORPUS[7:11]
    given = [rows[0]["id"], Passage(None, rows[1]["title"], rows[1]["text"]), rows[2]["id"], rows[3]["id"]]
    with opened(glimmer, engined(glimmer), passage_cache_bytes=1 << 20) as session:
        for _ in range(2):
            assert_same(session.answer("w2 w50", passages=given), glimmer.session.answer("w2 w50", passages=given))


@pytest.mark.parametrize(("top_k", "top_m"), [(1, None), (3, 3), (5, 1), (5, 9)])
def test_any_k_and_m(glimmer, engined, gpu, top_k, top_m):
    gpu()
    with opened(glimmer, engined(glimmer)) as session:
        question = "w3 w14 w15 w20 w26"
        assert_same(session.answer(question, top_k, top_m), glimmer.session.answer(question, top_k, top_m))


def test_rows_of_a_batch_differ_in_everything(glimmer, engined, gpu):
    gpu(order=3)
    given = [None if number % 4 == 3 else IDS[4 * number : 4 * number + 1 + number] for number in range(len(QUESTIONS))]
    expected = glimmer.session.answer_many(QUESTIONS, passages=given)
    with opened(glimmer, engined(glimmer)) as session:
        for answer, wanted in zip(session.answer_many(QUESTIONS, passages=given), expected, strict=True):
            assert_same(answer, wanted)


@pytest.mark.parametrize("order", [None, 5])
def test_several_threads(glimmer, engined, gpu, order):
    gpu(order=order)
    expected = [glimmer.session.answer(question) for question in QUESTIONS] * 3
    with opened(glimmer, engined(glimmer), passage_cache_bytes=5000) as session, ThreadPoolExecutor(4) as pool:
        for answer, wanted in zip(pool.map(session.answer, QUESTIONS * 3), expected, strict=True):
            assert_same(answer, wanted)


@pytest.mark.parametrize(("asked", "positions"), [(None, 1), (0, 1), (2, 3), (9, 5)])
def test_drafts_if_asked_for_as_far_as_an_engine_takes_them(glimmer, engined, gpu, monkeypatch, asked, positions):
    gpu()
    with Session.open(glimmer.bundle, glimmer.store, threads=1, draft_tokens=0) as session:
        plain = session.answer_many(QUESTIONS)
    rows, lengths = iter(plain), set()

    def right(passages, stops):
        return DraftSource([next(rows).token_ids], {})

    def noted(self, inputs):
        lengths.add(inputs["decoder_input_ids"].shape[1] if "decoder_input_ids" in inputs else 1)
        return launch(self, inputs)

    launch = EngineGraph.launch
    monkeypatch.setattr("glimmer_export.runtime.reader.DraftSource", right)
    monkeypatch.setattr(EngineGraph, "launch", noted)
    with opened(glimmer, engined(glimmer), draft_tokens=asked) as session:
        found = session.answer_many(QUESTIONS)
    for answer, wanted in zip(found, plain, strict=True):
        assert answer.token_ids == wanted.token_ids
        assert answer.log_probability == pytest.approx(wanted.log_probability, abs=1e-3)
    assert lengths == {1, positions}
    fewer = sum(answer.decoder_runs for answer in found) < sum(answer.decoder_runs for answer in plain)
    assert fewer == (positions > 1)


def test_only_scores_and_tokens_come_to_the_host(glimmer, engined, gpu):
    """And the logits of the first step and of each look at the tokens, in which NaN would show."""
    library = gpu()
    with opened(glimmer, engined(glimmer)) as session:
        answer = session.answer(QUESTIONS[0])
        interval = session._current.serving.reader._place.device.eos_interval
    steps = library.cuda.kernels.count("decoder_step")
    checked = 1 + math.ceil(steps / interval)
    logits = 4 * glimmer.shape.vocab_size * checked
    tokens = (256 + 256) * steps  # each with its log-probability, in a row of its own
    assert library.cuda.copied["out"] == 4 * len(answer.passages) + tokens + logits


def test_padding_of_the_memory_does_not_cross(glimmer, engined, gpu):
    library = gpu()
    lengths = [glimmer.session.store.memory(number).num_tokens for number in range(len(IDS))]
    numbers = [int(np.argmin(lengths)), int(np.argmax(lengths))]
    ids = [IDS[number] for number in numbers]
    width = glimmer.session.store.memory(0).codes[0].nbytes
    codes = width * sum(lengths[number] for number in numbers)
    with opened(glimmer, engined(glimmer)) as session:
        library.cuda.copied.clear()
        session.answer(QUESTIONS[0], passages=ids)
    # Beside codes: ids, masks, scale, m indices and each step's positions, by 256 bytes.
    small = 256 * (2 + 1 + 2 + 2 + 1 + 1 + glimmer.shape.max_new_tokens)
    assert codes < library.cuda.copied["in"] <= codes + small < width * glimmer.shape.passage_length * 2 + small


def test_passages_are_copied_while_the_question_is_encoded(glimmer, engined, gpu):
    """Nothing that the copies need waits for the encoder: run as late as may be, it is the copies that come first."""
    library = gpu()
    with opened(glimmer, engined(glimmer)) as session:
        real = session._current.serving.reader._place.device._loader.load
        seen = []

        def load(rows, num_tokens):
            lease, layout = real(rows, num_tokens)
            library.cuda.kernels.clear()
            library.cuda.cudaStreamSynchronize(session._current.serving.reader._place.device._loader.stream)
            seen.append((library.cuda.kernels[:], library.cuda.calls["cudaStreamCreateWithFlags"]))
            return lease, layout

        session._current.serving.reader._place.device._loader.load = load
        session.answer(QUESTIONS[0])
        session.answer(QUESTIONS[1])
    for kernels, streams in seen:
        assert "copy" in kernels
        assert not {"memory_encoder", "question_encoder"} & set(kernels)
        assert streams == 2


def test_the_steps_between_two_looks_are_captured_once_a_bucket_and_launched_again(glimmer, engined, gpu):
    library = gpu()
    cuda = library.cuda
    with opened(glimmer, engined(glimmer)) as session:
        for _ in range(3):
            session.answer(QUESTIONS[0])
        # Four steps together, and what max_new_tokens leaves over.
        assert 0 < cuda.calls["cudaGraphInstantiate"] <= 2
        captured, launched = cuda.calls["cudaGraphInstantiate"], cuda.calls["cudaGraphLaunch"]
        runs = cuda.kernels.count("decoder_step")
        assert_same(session.answer(QUESTIONS[0]), glimmer.session.answer(QUESTIONS[0]))
        assert cuda.calls["cudaGraphInstantiate"] == captured
        steps = cuda.kernels.count("decoder_step") - runs
        assert cuda.calls["cudaGraphLaunch"] - launched == math.ceil(steps / 4) > 0


def test_positions_are_uploaded_once_an_answer(glimmer, engined, gpu):
    """The device counts the steps: nothing goes there but before the first."""
    library = gpu()
    with opened(glimmer, engined(glimmer)) as session:
        copies, steps = [], []
        for question in QUESTIONS[:4]:
            before, ran = library.cuda.copied["in"], library.cuda.kernels.count("decoder_step")
            session.answer(question, passages=IDS[:2])
            copies.append(library.cuda.copied["in"] - before)
            steps.append(library.cuda.kernels.count("decoder_step") - ran)
    assert len(set(copies)) == 1, (copies, steps)


def test_lengths_of_one_bucket_share_shapes(glimmer, engined, gpu):
    """Questions of one and of two words, with passages of many lengths, run the same shapes."""
    library = gpu("tensorrt_rtx")
    with opened(glimmer, engined(glimmer, "tensorrt_rtx"), "tensorrt-rtx") as session:
        session.answer("w1", passages=IDS[:3])
        compiled = library.compiled.copy()
        session.answer("w1 w2", passages=IDS[5:8])
        assert library.compiled == compiled


def test_eos_is_looked_at_every_few_steps(exported, engined, gpu):
    """At most three steps run beyond the last row's EOS, and what they give is dropped."""
    source = exported("glimmer")
    library = gpu()
    with opened(source, engined(source)) as session:
        for question in QUESTIONS:
            before = library.cuda.kernels.count("decoder_step")
            answer = session.answer(question)
            steps = library.cuda.kernels.count("decoder_step") - before
            needed = min(len(answer.token_ids) + 1, source.shape.max_new_tokens)
            assert steps == min(-(-needed // 4) * 4, source.shape.max_new_tokens)


def test_addresses_repeat_from_question_to_question(glimmer, engined, gpu):
    library = gpu()
    with opened(glimmer, engined(glimmer)) as session:
        for _ in range(3):
            session.answer(QUESTIONS[0])
        allocated = library.cuda.calls["cudaMalloc"]
        for _ in range(3):
            session.answer(QUESTIONS[0])
        assert library.cuda.calls["cudaMalloc"] == allocated


def test_the_narrowest_profile_that_fits_is_taken(glimmer, engined, gpu):
    library = gpu()
    with opened(glimmer, engined(glimmer)) as session:
        device_graph = session.graphs["live_stage_a"]
        session.answer(QUESTIONS[0])
        assert set(device_graph._contexts) == {0}
        session.answer_many(QUESTIONS[:2])
        assert set(device_graph._contexts) == {0, 1}
        many = [PassageId(name) for name in IDS[: MOST_PASSAGES + 1]]
        with pytest.raises(BackendError, match=r"optimization profiles.*glimmer-export build"):
            session.answer("w0 w7", passages=many)
        assert_same(session.answer(QUESTIONS[0]), glimmer.session.answer(QUESTIONS[0]))
    assert library.contexts > 0


@pytest.mark.parametrize(("count", "parts"), [(1, [1]), (3, [3]), (4, [2, 2]), (5, [2, 3]), (7, [2, 2, 3])])
def test_more_questions_than_engines_take_are_answered_in_parts(glimmer, engined, gpu, monkeypatch, count, parts):
    gpu()
    questions = [QUESTIONS[index % len(QUESTIONS)] for index in range(count)]
    sizes = []
    read = Reader.read

    def counted(self, rows, *rest, **options):
        sizes.append(len(rows))
        return read(self, rows, *rest, **options)

    monkeypatch.setattr(Reader, "read", counted)
    with opened(glimmer, engined(glimmer, batches=(1, 3))) as session:
        answers = session.answer_many(["", *questions])
    assert sizes == parts
    assert answers[0].error is not None
    for answer, question in zip(answers[1:], questions, strict=True):
        assert_same(answer, glimmer.session.answer(question))


def test_texts_are_encoded_as_many_at_once_as_the_engine_takes(glimmer, engined, gpu):
    gpu()
    given = [Passage(None, row["title"], row["text"]) for row in CORPUS[:5]]
    with opened(glimmer, engined(glimmer, batches=(2,))) as session:
        assert_same(session.answer("w2 w50", passages=given), glimmer.session.answer("w2 w50", passages=given))


def test_a_graph_alone_goes_from_host_to_host(glimmer, engined, gpu):
    gpu()
    ids = np.array([[5, 6, 7, 1]], np.int32)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    with opened(glimmer, engined(glimmer)) as session:
        found = session.graphs["memory_encoder"].run(inputs)
        expected = glimmer.session.graphs["memory_encoder"].run(inputs)
        assert (found["hidden_states"] == expected["hidden_states"]).all()
        with pytest.raises(TypeError, match="int32"):
            session.graphs["memory_encoder"].run({**inputs, "input_ids": ids.astype(np.int64)})


def test_a_wrapped_graph_brings_everything_to_the_host(glimmer, engined, gpu):
    """Parity and calibration put wrappers around graphs, which read arrays."""
    gpu()
    with opened(glimmer, engined(glimmer)) as session:
        seen = []

        class Wrapped:
            def __init__(self, graph):
                self.graph = graph

            def run(self, inputs):
                outputs = self.graph.run(inputs)
                seen.extend(type(value) for value in (*inputs.values(), *outputs.values()))
                return outputs

        graphs = {**session.graphs, "decoder_step": Wrapped(session.graphs["decoder_step"])}
        wrapped = Session(session.bundle, session.store, graphs, session.text, session.codec)
        assert_same(wrapped.answer(QUESTIONS[0]), glimmer.session.answer(QUESTIONS[0]))
        assert set(seen) == {np.ndarray}


def test_rtx_keeps_its_kernels_for_the_next_process(glimmer, engined, gpu, kernel_folder):
    bundle = engined(glimmer, "tensorrt_rtx")
    first = gpu("tensorrt_rtx")
    with opened(glimmer, bundle, "tensorrt-rtx") as session:
        session.answer(QUESTIONS[0])
    assert sum(first.compiled.values()) > 0
    assert list(kernel_folder.rglob("*.bin"))
    second = gpu("tensorrt_rtx")
    with opened(glimmer, bundle, "tensorrt-rtx") as session:
        assert_same(session.answer(QUESTIONS[0]), glimmer.session.answer(QUESTIONS[0]))
    assert not second.compiled


def test_rtx_compiles_anew_where_its_kernels_are_damaged(glimmer, engined, gpu, kernel_folder):
    bundle = engined(glimmer, "tensorrt_rtx")
    gpu("tensorrt_rtx")
    with opened(glimmer, bundle, "tensorrt-rtx") as session:
        session.answer(QUESTIONS[0])
    for path in kernel_folder.rglob("*.bin"):
        path.write_bytes(b"not kernels")
    library = gpu("tensorrt_rtx")
    with opened(glimmer, bundle, "tensorrt-rtx") as session:
        assert_same(session.answer(QUESTIONS[0]), glimmer.session.answer(QUESTIONS[0]))
    assert library.compiled


def test_kernels_that_cannot_be_kept_are_a_warning(glimmer, engined, gpu, kernel_folder):
    kernel_folder.write_text("a file where a folder should be")
    gpu("tensorrt_rtx")
    with (
        pytest.warns(UserWarning, match="not kept for the next process"),
        opened(glimmer, engined(glimmer, "tensorrt_rtx"), "tensorrt-rtx") as session,
    ):
        assert_same(session.answer(QUESTIONS[0]), glimmer.session.answer(QUESTIONS[0]))


@pytest.mark.parametrize("variant", ["glimmer", "lumen"])
def test_nan_in_the_memory_of_a_store_is_named(exported, engined, gpu, tmp_path, variant):
    """Found in a score where there is one, else in the first logits that come to the host."""
    source = exported(variant)
    store = with_nan(source, tmp_path / "store")
    gpu()
    with Session.open(engined(source), store, backend="tensorrt", verify=False) as session:
        assert session.answer(QUESTIONS[0], passages=GIVEN[:2]).answer is not None
        with pytest.raises(NotFiniteError, match="nan"):
            session.answer(QUESTIONS[0], passages=GIVEN)

"""Loops: runs on what the last gave, in memory that is kept for them, captured together; on fakes, with no GPU."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest

from glimmer_export.runtime.backends.tensorrt.engine_graph import EngineGraph
from glimmer_export.runtime.contract import BackendError, DeviceLostError
from tests.runtime.backends.step_graph import LOOP, answer, dims, expected, given, open_graph, write_step_graph


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return write_step_graph(tmp_path_factory.mktemp("step"))


@contextmanager
def opened(engine, library: str = "tensorrt", **options) -> Iterator[EngineGraph]:
    graph = open_graph(engine, library, **options)
    yield graph
    with graph.device.lock:
        graph.device.synchronize()
        graph.close()
        graph.device.close()


def assert_right(graph, batch: int, tokens: int, runs: int, seed: int) -> None:
    found = answer(graph, batch, tokens, runs, seed)
    for run, (tokens_of, positions) in enumerate(expected(batch, tokens, runs, seed)):
        assert found[run]["next_token"][:, 0].tolist() == tokens_of
        looked = run == 0 or run % 4 == 3 or run == runs - 1
        assert ("logits" in found[run]) == looked
        if looked:
            assert found[run]["logits"].astype(int).T.tolist() == [tokens_of, positions]
        assert "next_token_log_probability" not in found[run]


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("order", [None, 0, 1])
def test_every_run_reads_what_the_last_gave(gpu, engine, order, integrated):
    library = gpu(order=order, integrated=integrated)
    with opened(engine) as graph:
        asked = [(1, 5, 9), (3, 32, 16), (1, 5, 9), (3, 32, 6), (2, 7, 1), (1, 5, 4)]
        for seed, (batch, tokens, runs) in enumerate(asked):
            assert_right(graph, batch, tokens, runs, seed)
    assert library.cuda.calls["cudaGraphLaunch"] > 0
    # Where GPU and host have one memory the mask alone is copied, which an encoder's graph writes in truth.
    masks = sum(4 * batch * tokens for batch, tokens, _ in asked)
    assert (library.cuda.copied["in"] == masks) == integrated


@pytest.mark.parametrize("count", [4, 8, 20])
def test_shapes_that_come_again_run_by_graphs_and_nothing_waits(gpu, engine, count):
    """2,400 steps, 16 an answer, over so many shapes in a random order: what a service with bucketed lengths does."""
    library = gpu()
    cuda, random = library.cuda, np.random.default_rng(count)
    with opened(engine) as graph:
        for seed in range(150):
            answer(graph, 1, 32 * int(random.integers(1, count + 1)), 16, seed)
        launched = cuda.calls["cudaGraphLaunch"]
        assert 4 * launched >= 0.95 * 2400
        assert cuda.calls["cudaStreamSynchronize"] == 0
        assert cuda.calls["cudaGraphExecDestroy"] == 0
        assert cuda.calls["cudaGraphInstantiate"] == count
        assert cuda.kernels.count("decoder_step") == 2400
        # Of memory they share what they do not use at the same time.
        assert len(graph._places._places) <= 1 + np.log2(count)


def test_a_step_costs_the_host_a_few_calls(gpu, engine):
    """Counters are uploaded once an answer; the four runs between two looks are one launch and two copies."""
    library = gpu()
    with opened(engine) as graph:
        answer(graph, 1, 32, 16, 0)
        calls, copied = library.cuda.calls.copy(), library.cuda.copied.copy()
        answer(graph, 1, 32, 16, 1)
        answer(graph, 1, 32, 32, 1)
    library.cuda.calls.subtract(calls)
    more = {name: number for name, number in library.cuda.calls.items() if "Memcpy" in name or "Launch" in name}
    assert more["cudaGraphLaunch"] == 4 + 7  # the first of 32 is another layout, and warms up
    assert library.cuda.copied["in"] - copied["in"] == 256 * (16 + 32) + 2 * (4 + 4 * 32)


def test_threads_do_not_share_a_place(gpu, engine):
    gpu()
    with opened(engine) as graph, ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda seed: assert_right(graph, 1 + seed % 2, 32, 12, seed), range(24)):
            pass
        assert len(graph._places._places) <= 4 * 2


def test_two_loops_at_a_time(gpu, engine):
    gpu(order=2)
    with opened(engine) as graph:
        for _ in range(2):
            loops = [graph.loop(LOOP, dims(1, 32), 8) for _ in range(3)]
            entered = [loop.__enter__() for loop in loops]
            found = [[] for _ in loops]
            for seed, loop in enumerate(entered):
                counter, values = given(1, 32, seed)
                loop.start(counter, values, [name for name in LOOP.carried if name.startswith("past")])
            for _ in range(2):
                for seed, loop in enumerate(entered):
                    found[seed] += [int(step["next_token"][0, 0]) for step in loop.run(4, seen=False)()]
            for loop in loops:
                loop.__exit__(None, None, None)
            assert found == [[tokens[0] for tokens, _ in expected(1, 32, 8, seed)] for seed in range(3)]


def test_an_engine_that_is_not_capturable_runs_uncaptured_and_says_so(gpu, engine):
    library = gpu("tensorrt_rtx")
    library.capturable = False
    with opened(engine, "tensorrt_rtx") as graph:
        assert graph.notes == ()
        with pytest.warns(UserWarning, match="runs without CUDA graphs"):
            assert_right(graph, 1, 32, 16, 0)
        assert_right(graph, 1, 32, 16, 1)
        (note,) = graph.notes
    assert "it cannot be captured as it was built; build it again: `glimmer-export build`" in note
    assert library.cuda.calls["cudaStreamBeginCapture"] == library.cuda.calls["cudaGraphLaunch"] == 0


def test_a_capture_that_fails_is_said_and_not_tried_again(gpu, engine):
    library = gpu()
    library.cuda.fail("cudaStreamEndCapture", "cudaErrorStreamCaptureUnsupported")
    with opened(engine) as graph:
        with pytest.warns(UserWarning, match="cudaStreamEndCapture"):
            assert_right(graph, 1, 32, 16, 0)
        assert_right(graph, 2, 32, 16, 0)
    assert library.cuda.calls["cudaStreamBeginCapture"] == 1


def test_without_captures_none_is_tried(gpu, engine):
    library = gpu()
    with opened(engine, captures=False) as graph:
        assert_right(graph, 1, 32, 16, 0)
        assert graph.notes == ()
    assert library.cuda.calls["cudaStreamBeginCapture"] == 0


def test_no_memory_for_contexts_of_their_own(gpu, engine, monkeypatch):
    library = gpu()
    with opened(engine) as graph:
        assert_right(graph, 1, 32, 8, 0)
        library.refuses_contexts = True
        with pytest.warns(UserWarning, match="an execution context"):
            assert_right(graph, 1, 64, 8, 0)
        assert_right(graph, 2, 64, 8, 0)
        assert_right(graph, 1, 64, 8, 0)


def test_places_that_nobody_uses_make_room(gpu, engine):
    library = gpu(total_bytes=40_000)
    with opened(engine) as graph:
        for tokens in (32, 4000, 32, 2000, 4000, 32):
            assert_right(graph, 1, tokens, 8, 0)
        assert library.cuda.calls["cudaFree"] > 0


def test_very_many_shapes_go_without_a_wait(gpu, engine, monkeypatch):
    monkeypatch.setattr("glimmer_export.runtime.backends.tensorrt.loop.MOST_SEQUENCES", 3)
    library = gpu()
    with opened(engine) as graph:
        for seed, tokens in enumerate([1, 2, 3, 4, 5, 1, 2] * 2):
            assert_right(graph, 1, tokens, 12, seed)
        assert library.cuda.calls["cudaGraphExecDestroy"] > 0
        assert library.cuda.calls["cudaStreamSynchronize"] == 0


def test_a_loop_that_breaks_off_leaves_its_place_to_the_next(gpu, engine):
    gpu(order=5)
    with opened(engine) as graph:
        assert_right(graph, 1, 32, 12, 0)
        counter, values = given(1, 32, 1)
        with graph.loop(LOOP, dims(1, 32), 12) as loop:
            loop.start(counter, values, [])
            loop.run(4, seen=False)  # not waited for
        assert_right(graph, 1, 32, 12, 2)


def test_a_gpu_that_fails_between_runs(gpu, engine):
    library = gpu()
    graph = open_graph(engine)
    assert_right(graph, 1, 32, 12, 0)
    counter, values = given(1, 32, 1)
    with graph.loop(LOOP, dims(1, 32), 12) as loop:
        loop.start(counter, values, [])
        library.cuda.lose()
        with pytest.raises(DeviceLostError):
            loop.run(4, seen=False)


def test_what_is_given_must_fit(gpu, engine):
    gpu()
    with opened(engine) as graph:
        counter, values = given(1, 32, 1)
        values["decoder_input_ids"] = values["decoder_input_ids"].astype(np.int64)
        with graph.loop(LOOP, dims(1, 32), 12) as loop, pytest.raises(TypeError, match="expected int32, found int64"):
            loop.start(counter, values, [])
        with pytest.raises(BackendError, match="optimization profiles"):
            graph.loop(LOOP, dims(9, 32), 12)


def test_profiles_are_chosen_once_a_shape(gpu, engine, monkeypatch):
    gpu()
    chosen = []
    choose = EngineGraph._choose
    monkeypatch.setattr(EngineGraph, "_choose", lambda graph, shapes: chosen.append(shapes) or choose(graph, shapes))
    with opened(engine) as graph:
        for seed in range(3):
            answer(graph, 1, 32, 8, seed)
    assert len(chosen) == 1

"""The load and fault tool, small, in every run; as it stands in docs/measurements/serving.md behind the slow marker."""

from __future__ import annotations

import pytest

from tests.exported import QUESTIONS
from tests.serving.conftest import BUNDLE, STORE
from tests.serving.load.malformed import malformed
from tests.serving.load.scenarios import SCENARIOS, Subject, answers, memory

SMALL = {"overload": 200, "leaving": 60, "refresh": 40, "stopping": 200}
LEVEL_MIB = 16
"""What a server may still grow by behind its first tenth of requests: the allocator's arenas, of threads and of ONNX
Runtime. A kilobyte a request would be 90 MiB."""


def subject(requests: int, clients: int = 12) -> Subject:
    return Subject(BUNDLE, STORE, QUESTIONS, clients=clients, requests=requests, options={"timeout_s": "300"})


@pytest.mark.parametrize("name", SMALL)
def test_under_load_nothing_is_lost_crossed_or_left_behind(name):
    figures = SCENARIOS[name](subject(SMALL[name]))
    assert figures["faults"] == []
    assert figures["statuses"][200]


def test_what_is_malformed_is_refused_and_disturbs_nobody():
    figures = malformed(subject(150))
    assert figures["faults"] == []
    assert figures["sent"] >= 150


@pytest.mark.slow
def test_twenty_thousand_requests_of_64_clients_get_their_answers():
    figures = answers(subject(20_000, 64))
    assert figures["faults"] == []
    assert figures["statuses"] == {200: 20_000}


@pytest.mark.slow
def test_ten_thousand_malformed_requests():
    assert malformed(subject(10_000, 64))["faults"] == []


@pytest.mark.slow
def test_memory_is_level_over_a_hundred_thousand_requests():
    figures = memory(subject(100_000, 64))
    assert figures["faults"] == []
    samples = [size for done, size in figures["rss_mib_by_requests"].items() if done >= 10_000]
    assert max(samples) - samples[0] < LEVEL_MIB

"""Errors keep their parts, also on the way from one process to another."""

from __future__ import annotations

import pickle

import pytest

from glimmer_export.runtime import contract

ERRORS = [
    value for value in vars(contract).values() if isinstance(value, type) and issubclass(value, contract.GlimmerError)
]


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_crosses_processes_whole(kind):
    parts = {"expected": "a graph", "found": "none", "fix": "export it again"}
    error = kind("graph encoder", **parts)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error) == "graph encoder: expected a graph, found none; export it again"
    assert vars(again) == {"subject": "graph encoder", **parts}

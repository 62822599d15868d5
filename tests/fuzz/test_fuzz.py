"""Damage of every kind to every format: what comes of it is read or refused by name, in time, without gigabytes.

A few hundred cases by fixed seeds always, thousands with `-m slow`; `python -m tests.fuzz` runs any others.
"""

from __future__ import annotations

import pytest

from tests.fuzz.case import Case
from tests.fuzz.command_line import has_command, run_as_process
from tests.fuzz.oracle import Report, Runner
from tests.fuzz.plan import cases
from tests.fuzz.targets import TARGETS

QUICK = [name for name, target in TARGETS.items() if target.quick]
QUICK_CASES, QUICK_COMMANDS = 120, ("bundle manifest", "KILT's questions", "options")
CASES, COMMANDS = 20_000, 500
FIRST_SEED = 1_000_000
"""Of the long runs, so that they are other cases than the quick one's."""


@pytest.fixture
def runner(tmp_path):
    with Runner(tmp_path) as one:
        yield one


@pytest.fixture(scope="module")
def planted_runner(tmp_path_factory):
    with Runner(tmp_path_factory.mktemp("planted")) as one:
        yield one


def assert_sound(report: Report, least: int) -> None:
    assert not report.found, "\n".join(map(str, report.found))
    total = sum(sum(counts.values()) for counts in report.counts.values())
    assert total >= least
    kinds = {kind for counts in report.counts.values() for kind in counts}
    assert kinds == {"read", "named"}


def test_a_few_hundred_cases(runner):
    assert_sound(runner.run(cases(QUICK_CASES, QUICK)), QUICK_CASES // 2)


def test_a_few_commands(tmp_path):
    report = Report()
    for number, name in enumerate(QUICK_COMMANDS):
        case = Case(name, number)
        report.add(case, run_as_process(case, tmp_path))
    assert not report.found, "\n".join(map(str, report.found))


@pytest.mark.slow
def test_what_is_not_damaged_is_read(runner):
    """Or else what refuses everything would have passed."""
    for target in TARGETS.values():
        for number, use in enumerate(target.uses):
            if target.files and (callable(use) or "--rollback" not in use):  # there is nothing to go back from
                outcome = runner.outcome(Case(target.name, None, number))
                assert outcome["kind"] == "read", (target.name, use, outcome)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_thousands_of_cases(runner, name):
    """Of each target its share of CASES."""
    own = [case for case in cases(CASES + len(TARGETS), TARGETS, first=FIRST_SEED) if case.target == name]
    assert_sound(runner.run(own), len(own))


@pytest.mark.slow
def test_hundreds_of_commands(tmp_path):
    chosen, report = cases(COMMANDS + len(TARGETS), filter(has_command, TARGETS), first=FIRST_SEED), Report()
    for case in chosen:
        report.add(case, run_as_process(case, tmp_path))
    assert len(chosen) >= COMMANDS
    assert not report.found, "\n".join(map(str, report.found))


def test_a_case_is_the_same_every_time(tmp_path):
    from tests.fuzz.case import Sound

    for name in ("bundle manifest", "texts", "policy"):
        folders = [tmp_path / f"{name} {number}" for number in range(2)]
        for folder in folders:
            folder.mkdir()
        prepared = [Case(name, 7).prepare(folder, Sound(tmp_path)) for folder in folders]
        assert prepared[0].damage == prepared[1].damage
        contents = [
            {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            for folder in folders
        ]
        assert contents[0] == contents[1]


@pytest.mark.parametrize(("use", "expected"), [
    ("fails", "AttributeError: 'a planted bug' at uses.py"), ("allocates", "MiB; the sound input's is"),
    ("ends", "the process ended with -6"),
    ("writes_outside", "the victim was written"),
    pytest.param("hangs", "longer than 20 s; File", marks=pytest.mark.slow),
])
def test_what_is_looked_for_is_seen(planted_runner, use, expected):
    outcome = planted_runner.outcome(Case(f"planted: {use}", 1))
    assert (outcome["kind"], expected in str(outcome["text"])) == ("failed", True), outcome

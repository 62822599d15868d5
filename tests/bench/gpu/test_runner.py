"""The runner keeps what is finished, whatever stops it, and nothing that fails or hangs holds up the rest."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from glimmer_export.exporter.bench.gpu.runner import DONE, FAILED, LEFT, Part, Step, run_part

HEAD = {"device": "none", "command": "test"}


def counted(folder, name, _):
    """Adds a line to a file: a step's process shares nothing else with the test."""
    with (folder / name).open("a") as stream:
        stream.write("ran\n")
    return {"name": name}


def times_run(folder, name) -> int:
    path = folder / name
    return len(path.read_text().splitlines()) if path.exists() else 0


def failing(_):
    raise ValueError("no such\nluck")


def run(tmp_path, steps, *, seconds=60.0):
    said = []
    part = run_part(tmp_path, "part", steps, HEAD, seconds=seconds, say=said.append)
    assert json.loads((tmp_path / "part.json").read_text())["steps"] == part.steps
    return part, said


def test_what_is_finished_is_kept_and_what_failed_is_tried_again(tmp_path):
    steps = [
        Step("first", 30, partial(counted, tmp_path, "first")),
        Step("broken", 30, failing),
        Step("last", 30, partial(counted, tmp_path, "last")),
    ]
    part, _ = run(tmp_path, steps)
    assert {name: step["status"] for name, step in part.steps.items()} == {
        "first": DONE, "broken": FAILED, "last": DONE
    }
    assert part.steps["broken"]["error"].startswith("ValueError: no such luck (test_runner.py:")
    assert part.results == {"first": {"name": "first"}, "last": {"name": "last"}}
    steps[1] = Step("broken", 30, partial(counted, tmp_path, "broken"))
    part, said = run(tmp_path, steps)
    assert said[0] == "part/first: kept"
    assert [times_run(tmp_path, name) for name in ("first", "broken", "last")] == [1, 1, 1]
    assert [part.steps[name]["run"] for name in ("first", "broken", "last")] == [0, 1, 0]
    assert len(part.runs) == 2


def test_a_step_that_hangs_is_stopped_and_the_next_begins(tmp_path):
    steps = [Step("hangs", 0.3, lambda _: time.sleep(600)), Step("next", 30, partial(counted, tmp_path, "next"))]
    started = time.monotonic()
    part, _ = run(tmp_path, steps)
    assert part.steps["hangs"]["status"] == FAILED
    assert part.steps["hangs"]["error"].startswith("stopped after 0 s")
    assert part.steps["next"]["status"] == DONE
    assert time.monotonic() - started < 100


def test_a_process_that_dies_is_a_failure(tmp_path):
    part, _ = run(tmp_path, [Step("dies", 30, lambda _: os._exit(3))])
    assert part.steps["dies"]["error"] == "its process ended with exit code 3"


def test_a_part_without_time_leaves_steps_for_another_run(tmp_path):
    steps = [Step("late", 30, partial(counted, tmp_path, "late"))]
    part, _ = run(tmp_path, steps, seconds=1.0)
    assert part.steps["late"]["status"] == LEFT
    part, _ = run(tmp_path, steps)
    assert part.steps["late"]["status"] == DONE
    assert times_run(tmp_path, "late") == 1


def test_a_step_is_not_begun_without_what_it_needs(tmp_path):
    steps = [Step("broken", 30, failing), Step("after", 30, partial(counted, tmp_path, "after"), needs=("broken",))]
    part, _ = run(tmp_path, steps)
    assert (part.steps["after"]["status"], part.steps["after"]["error"]) == (LEFT, "needs broken")
    assert not times_run(tmp_path, "after")


def test_steps_are_given_what_earlier_ones_found(tmp_path):
    steps = [Step("two", 30, lambda _: 2), Step("double", 30, lambda results: 2 * results["two"])]
    assert run(tmp_path, steps)[0].results == {"two": 2, "double": 4}


def test_numbers_that_json_has_not_are_null(tmp_path):
    found = {"snr_db": math.inf, "rows": (math.nan, 1.5), 3: -math.inf}
    part, _ = run(tmp_path, [Step("step", 30, lambda _: found)])
    assert part.results["step"] == {"snr_db": None, "rows": [None, 1.5], "3": None}


def test_killed_in_the_middle_it_goes_on_where_it_was(tmp_path):
    script = (
        "import sys, time; from functools import partial; from pathlib import Path\n"
        "from glimmer_export.exporter.bench.gpu.runner import Step, run_part\n"
        "from tests.bench.gpu.test_runner import HEAD, counted\n"
        "folder = Path(sys.argv[1])\n"
        "first = Step('first', 60, partial(counted, folder, 'first'))\n"
        "steps = [first, Step('second', 600, lambda _: time.sleep(600))]\n"
        "run_part(folder, 'part', steps, HEAD, seconds=600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout.readline().startswith("part/first: done")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert Part.open(tmp_path, "part").results == {"first": {"name": "first"}}
    steps = [Step(name, 30, partial(counted, tmp_path, name)) for name in ("first", "second")]
    part, _ = run(tmp_path, steps)
    assert part.results.keys() == {"first", "second"}
    assert (times_run(tmp_path, "first"), times_run(tmp_path, "second")) == (1, 1)


@pytest.mark.parametrize("content", ["", '{"runs": []'])
def test_a_damaged_file_is_not_written_over(tmp_path, content):
    (tmp_path / "part.json").write_text(content)
    with pytest.raises(json.JSONDecodeError):
        run(tmp_path, [Step("step", 30, lambda _: 1)])
    assert (tmp_path / "part.json").read_text() == content

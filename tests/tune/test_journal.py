"""The journal: what was written is there again; another command's, or a damaged one, is refused by name."""

from __future__ import annotations

import json

import pytest

from glimmer_export.exporter.tune.journal import JOURNAL, open_journal
from glimmer_export.exporter.tune.trials import Trials
from glimmer_export.runtime.contract import OutputError

PLAN = {"checkpoint": "abc", "latency_ms": 60.0, "try": ["k=5"]}


def test_events_are_there_again_and_seconds_add_up(tmp_path):
    folder = tmp_path / "out"
    with open_journal(folder, PLAN) as journal:
        journal.append({"event": "proposal", "number": 0})
    with open_journal(folder, PLAN) as journal:
        assert [event["number"] for event in journal.of_kind("proposal")] == [0]
        journal.append({"event": "asked", "number": 0})
        assert journal.seconds >= journal.events[0]["seconds"]
    with open_journal(folder, PLAN) as journal:
        assert [event["event"] for event in journal.events] == ["proposal", "asked"]
    with open_journal(folder, PLAN, restart=True) as journal:
        assert journal.events == []


def test_a_line_that_was_half_written_is_dropped(tmp_path):
    with open_journal(tmp_path / "out", PLAN) as journal:
        journal.append({"event": "proposal", "number": 0})
    path = tmp_path / "out" / JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event": "asked", "ri')
    with open_journal(tmp_path / "out", PLAN) as journal:
        assert len(journal.events) == 1
    assert path.read_bytes() == whole


def test_another_plan_is_refused_by_the_name_of_what_differs(tmp_path):
    with open_journal(tmp_path / "out", PLAN):
        pass
    with pytest.raises(OutputError, match=r"latency_ms 50.0, as asked for.*found 60.0.*--restart"), open_journal(
        tmp_path / "out", {**PLAN, "latency_ms": 50.0}
    ):
        pass


@pytest.mark.parametrize(
    "content", ["[]\n", "nonsense\n", '{"format": "glimmer-export-tune", "version": 9, "plan": {}}\n',
                json.dumps({"format": "glimmer-export-tune", "version": 1, "plan": PLAN}) + "\n[1]\n"],
)
def test_what_is_no_journal_is_refused(tmp_path, content):
    (tmp_path / JOURNAL).write_text(content, encoding="utf-8")
    with pytest.raises(OutputError, match="--restart"), open_journal(tmp_path, PLAN):
        pass


def test_an_event_that_says_nothing_that_could_be_is_refused(tmp_path):
    with open_journal(tmp_path / "out", PLAN) as journal:
        journal.append({"event": "built", "number": 3})
        with pytest.raises(OutputError, match=r"'built'.*--restart"):
            journal.replay(Trials().apply)


def test_two_commands_at_once_and_folders_of_something_else_are_refused(tmp_path):
    with open_journal(tmp_path / "out", PLAN), pytest.raises(OutputError, match="no other command"), open_journal(
        tmp_path / "out", PLAN
    ):
        pass
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "letter.txt").write_text("x", encoding="utf-8")
    with pytest.raises(OutputError, match=r"letter\.txt"), open_journal(tmp_path / "theirs", PLAN):
        pass
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / JOURNAL).symlink_to(tmp_path / "theirs" / "letter.txt")
    with pytest.raises(OutputError, match="link"), open_journal(tmp_path / "linked", PLAN):
        pass
    assert (tmp_path / "theirs" / "letter.txt").read_text(encoding="utf-8") == "x"

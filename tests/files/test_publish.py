"""What may be written where: nothing that is not ours is replaced, and nothing that is being read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glimmer_export.exporter.files.publish import (
    MAX_CONFIG_BYTES,
    check_apart,
    check_file,
    check_target,
    publish_directory,
)
from glimmer_export.runtime.contract import OutputError


@pytest.mark.parametrize(
    ("config", "ours"),
    [
        ({"model_type": "glimmer", "architecture": "fid"}, True),
        ({"model_type": "t5"}, False),
        (["glimmer"], False),
        ("{", False),
        ("\xff", False),
        ("[" * 100_000, False),
        (json.dumps({"model_type": "glimmer"}) + " " * MAX_CONFIG_BYTES + "{", True),
        (" " * MAX_CONFIG_BYTES + json.dumps({"model_type": "glimmer"}), False),
    ],
    ids=["glimmer", "t5", "list", "torn", "latin-1", "deep", "more behind", "too long"],
)
def test_a_config_of_other_programs_does_not_make_a_directory_ours(tmp_path, config, ours):
    target = tmp_path / "out"
    target.mkdir()
    text = config if isinstance(config, str) else json.dumps(config)
    (target / "config.json").write_text(text, encoding="latin-1")
    if ours:
        check_target(target, overwrite=True)
    else:
        with pytest.raises(OutputError, match="that glimmer-export wrote"):
            check_target(target, overwrite=True)


def test_a_file_is_not_overwritten_by_a_directory(tmp_path):
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="that glimmer-export wrote, to overwrite it, found a file"):
        check_target(tmp_path / "out", overwrite=True)


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("in", "found the input"),
        ("in/../in", "found the input"),
        ("link", "found the input"),
        (".", "holds the input"),
        ("in/deep/out", "inside the input"),
        ("link/out", "inside the input"),
    ],
)
def test_an_input_is_no_output(tmp_path, monkeypatch, output, found):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("link").symlink_to("in")
    with pytest.raises(OutputError, match=found):
        check_apart(Path(output), [None, "in"])
    check_apart(Path("in-2"), [None, "in"])


def test_an_output_beside_a_file_that_is_read_is_apart(tmp_path):
    check_apart(tmp_path / "out", [tmp_path / "corpus.jsonl"])
    with pytest.raises(OutputError, match="holds the input"):
        check_apart(tmp_path, [tmp_path / "corpus.jsonl"])


def test_a_file_that_can_be_written_passes_and_none_is_made(tmp_path):
    check_file(tmp_path / "new.jsonl")
    (tmp_path / "old.jsonl").write_text("old", encoding="utf-8")
    check_file(tmp_path / "old.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["old.jsonl"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("folder", "a directory"),
        ("absent/file", "no directory"),
        ("file/below", "no directory"),
        ("/dev/null", "a device"),
        ("n" * 300, "too long"),
        ("circle", "links that lead in a circle"),
    ],
)
def test_a_file_that_cannot_be_written_is_named(tmp_path, path, found):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OutputError, match=found):
        check_file(tmp_path / path)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder", "circle"}


def test_what_is_linked_to_the_standard_streams_is_a_device_wherever_they_go(tmp_path):
    """/dev/stdout is such a link; stdout may be a file, and root may replace the link."""
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with (tmp_path / "file").open(encoding="utf-8") as stream:
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{stream.fileno()}")
        assert (tmp_path / "link").is_file()
        with pytest.raises(OutputError, match="a device"):
            check_file(tmp_path / "link")


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    """Root, whom no permission stops, is stopped by a file system that is mounted to be read."""

    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(OutputError, match="Read-only"):
        check_file(tmp_path / "new.jsonl")


def test_a_place_where_no_directory_can_be_made_is_named():
    with (
        pytest.raises(OutputError, match="a place that can be written"),
        publish_directory(Path("/proc/bundle")),
    ):
        pass


def test_what_a_killed_commands_attempt_to_write_has_left_is_removed(tmp_path):
    left = tmp_path / f".mode.{'0' * 16}.tmp"
    for check in (lambda: check_file(tmp_path / "new"), lambda: check_target(tmp_path / "new", overwrite=False)):
        left.touch()
        check()
        assert not list(tmp_path.iterdir())


def test_a_link_that_is_given_is_resolved_and_stays(tmp_path):
    target = tmp_path / "real"
    target.mkdir()
    (target / "manifest.json").write_text("old", encoding="utf-8")
    (tmp_path / "link").symlink_to("real")
    with publish_directory(tmp_path / "link", overwrite=True) as work:
        (work / "manifest.json").write_text("new", encoding="utf-8")
    assert (tmp_path / "link").is_symlink()
    assert (target / "manifest.json").read_text(encoding="utf-8") == "new"
    (target / "page.html").write_text("old", encoding="utf-8")
    (tmp_path / "page.html").symlink_to("real/page.html")
    assert check_file(tmp_path / "page.html") == target / "page.html"


def test_of_links_in_what_is_overwritten_only_the_links_go(tmp_path):
    outside, target = tmp_path / "outside", tmp_path / "out"
    for directory in (outside, target):
        directory.mkdir()
        (directory / "manifest.json").write_text("old", encoding="utf-8")
    (target / "shards").symlink_to(outside)
    with publish_directory(target, overwrite=True) as work:
        (work / "manifest.json").write_text("new", encoding="utf-8")
    assert [path.name for path in target.iterdir()] == ["manifest.json"]
    assert (outside / "manifest.json").read_text(encoding="utf-8") == "old"


def test_a_directory_that_is_replaced_keeps_its_mode(tmp_path):
    target = tmp_path / "out"
    target.mkdir(mode=0o700)
    (target / "manifest.json").write_text("old", encoding="utf-8")
    with publish_directory(target, overwrite=True) as work:
        (work / "manifest.json").write_text("new", encoding="utf-8")
    assert target.stat().st_mode & 0o777 == 0o700


def test_other_names_of_what_an_input_holds_are_no_output(tmp_path):
    store, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    for directory in (store, elsewhere):
        directory.mkdir()
        (directory / "file").write_text("mine", encoding="utf-8")
    (store / "link").symlink_to(elsewhere / "file")
    (store / "folder").symlink_to(elsewhere)
    (elsewhere / "second name").hardlink_to(store / "file")
    check_apart(elsewhere / "new", [store])
    for name in ("file", "second name"):
        with pytest.raises(OutputError, match="apart from what is read"):
            check_apart(elsewhere / name, [store])
    with pytest.raises(OutputError, match="is a link to"):
        check_apart(elsewhere, [store])


def test_a_file_in_shared_memory_is_no_device(tmp_path):
    if not Path("/dev/shm").is_dir():
        pytest.skip("no /dev/shm here")
    (tmp_path / "link").symlink_to("/dev/shm/glimmer-export-test")
    assert check_file(tmp_path / "link") == Path("/dev/shm/glimmer-export-test")
    assert not Path("/dev/shm/glimmer-export-test").exists()

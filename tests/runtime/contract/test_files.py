"""What is opened is a regular file, of no more than its limit, and whatever is wrong is the caller's error."""

from __future__ import annotations

import errno
import mmap
import os
import socket
from pathlib import Path

import pytest

from glimmer_export.runtime.contract import (
    BundleError,
    StoreError,
    check_regular,
    inside,
    is_there,
    map_regular,
    read_limited,
)
from glimmer_export.runtime.contract.files import open_regular, read_file

FIX = "copy it again"
ZERO = Path("/dev/zero")


def read(path: Path, limit_bytes: int = 100) -> bytes:
    return read_limited(path, limit_bytes=limit_bytes, error=BundleError, subject=f"bundle {path}", fix=FIX)


def opened(path: Path) -> None:
    open_regular(path, error=BundleError, subject=f"bundle {path}", fix=FIX).close()


def mapped(path: Path) -> mmap.mmap | None:
    return map_regular(path, error=BundleError, subject=f"bundle {path}", fix=FIX)


def checked(path: Path) -> Path:
    return check_regular(path, error=BundleError, subject=f"bundle {path}", fix=FIX)


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.bind(str(path))


@pytest.mark.parametrize("way", [read, opened, mapped, checked])
class TestWhatIsNoRegularFile:
    @pytest.mark.parametrize(
        ("make", "kind"), [(os.mkfifo, "a FIFO"), (Path.mkdir, "a directory"), (socket_at, "a socket")]
    )
    def test_in_its_place_or_behind_a_link(self, tmp_path, monkeypatch, way, make, kind):
        monkeypatch.chdir(tmp_path)  # a socket's path is short
        make(Path("there"))
        Path("link").symlink_to("there")
        for path in (Path("there"), Path("link")):
            with pytest.raises(BundleError, match=rf"bundle {path}: expected a regular file, found {kind}; copy it"):
                way(path)

    def test_a_device(self, way):
        with pytest.raises(BundleError, match="expected a regular file, found a device"):
            way(ZERO)

    def test_none(self, tmp_path, way):
        with pytest.raises(BundleError, match="expected a readable file, found none"):
            way(tmp_path / "absent")

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("n" * 300, "File name too long"), ("file/below", "Not a directory"), ("loop", "symbolic links"),
            ("a\0b", "null byte"), ("\ud800", "surrogates not allowed"),
        ],
    )
    def test_a_path_that_cannot_be(self, tmp_path, way, name, found):
        (tmp_path / "file").write_bytes(b"x")
        (tmp_path / "loop").symlink_to("loop")
        with pytest.raises(BundleError, match=found):
            way(tmp_path / name)

    @pytest.mark.parametrize(
        ("fault", "expected", "fix"),
        [
            (errno.EACCES, "a file that this user may read", "let this user read it"),
            (errno.EIO, "a readable file", "copy it again"), (errno.EMFILE, "a readable file", "copy it again"),
        ],
    )
    def test_one_that_the_system_does_not_open(self, tmp_path, monkeypatch, way, fault, expected, fix):
        """Root may read everything, so that the system is made to refuse."""
        (tmp_path / "file").write_bytes(b"x")

        def refuse(path: Path, flags: int) -> int:
            raise OSError(fault, os.strerror(fault), str(path))

        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(BundleError, match=f"expected {expected}, found {os.strerror(fault)}; {fix}"):
            way(tmp_path / "file")


def test_links_are_followed(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1234").write_bytes(b"content")
    (tmp_path / "file").symlink_to("blobs/1234")
    found = mapped(tmp_path / "file")
    assert found is not None
    assert read(tmp_path / "file") == found[:] == b"content"
    assert checked(tmp_path / "file") == tmp_path / "file"


def test_a_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert len(read(path, 100)) == 100
    with pytest.raises(BundleError, match=r"expected at most 99 bytes, found 100"):
        read(path, 99)


def test_a_file_that_grows_while_it_is_read(tmp_path, monkeypatch):
    """Its size is asked first; what came since is read too, and counts."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    sizes = os.fstat

    def grow(descriptor: int) -> os.stat_result:
        found = sizes(descriptor)
        with path.open("ab") as stream:
            stream.write(b"y" * 20)
        return found

    monkeypatch.setattr(os, "fstat", grow)
    assert len(read_file(path, 100)) == 50  # the size is asked twice
    with pytest.raises(OSError, match="at most 80 bytes, found more"):
        read_file(path, 80)


def test_a_file_that_the_system_makes_up():
    """Those of /proc have a size of 0."""
    assert read(Path("/proc/self/status"), 1 << 20)
    with pytest.raises(BundleError, match="expected at most 10 bytes, found more"):
        read(Path("/proc/self/status"), 10)


def test_an_empty_file_is_not_mapped(tmp_path):
    (tmp_path / "file").touch()
    assert mapped(tmp_path / "file") is None


def test_whether_something_is_there(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("absent")
    (tmp_path / "loop").symlink_to("loop")
    assert is_there(tmp_path)
    assert is_there(tmp_path / "file")
    assert not is_there(tmp_path / "absent")
    assert not is_there(tmp_path / "file" / "below")
    assert not is_there(tmp_path / "dangling")
    # Where the system does not tell, opening it says what is wrong.
    assert is_there(tmp_path / "loop")
    assert is_there(tmp_path / ("n" * 300))
    assert is_there(tmp_path / "a\0b")


@pytest.mark.parametrize("name", ["", ".", "/etc/passwd", "../up", "a/../../up", "a\\b", "a\0b", "..", "//host/file"])
def test_a_name_that_leads_out(tmp_path, name):
    with pytest.raises(StoreError, match="store 5: expected file names that stay inside its directory"):
        inside(tmp_path, name, error=StoreError, subject="store 5")


def test_a_name_that_stays(tmp_path):
    assert inside(tmp_path, "a/b..c", error=StoreError, subject="store 5") == tmp_path / "a" / "b..c"

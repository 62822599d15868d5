"""What pack.py writes, unpack.py brings back; with a wheel of the test's own, as the real ones are 90 MB."""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile

import pytest

from tests.gpu.pack import ARCHIVE, pack
from tests.gpu.unpack import unpack

FILES = {"thing/__init__.py": b"VALUE = 7\n", "thing/lib.so.1": os.urandom(5000), "thing-1.dist-info/METADATA": b"x\n"}


@pytest.fixture
def archive(tmp_path, monkeypatch):
    # The real dictionary takes gigabytes.
    filters = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 1}]
    monkeypatch.setattr("tests.gpu.pack.FILTERS", filters)
    wheel = tmp_path / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as content:
        for name, data in FILES.items():
            content.writestr(name, data)
    path = tmp_path / "packed" / ARCHIVE
    assert pack([wheel], path) == path.stat().st_size > 5000
    return path


def test_the_files_come_back(archive, tmp_path):
    unpack(archive, tmp_path / "site")
    site = tmp_path / "site"
    found = {path.relative_to(site).as_posix(): path.read_bytes() for path in site.rglob("*") if path.is_file()}
    assert found == FILES


def test_a_folder_that_is_there_is_left(archive, tmp_path):
    (tmp_path / "site").mkdir()
    unpack(archive, tmp_path / "site")
    assert not list((tmp_path / "site").iterdir())


def test_a_cut_archive_leaves_no_folder(archive, tmp_path):
    archive.write_bytes(archive.read_bytes()[:-500])
    with pytest.raises((EOFError, lzma.LZMAError, tarfile.ReadError)):
        unpack(archive, tmp_path / "site")
    assert not (tmp_path / "site").exists()

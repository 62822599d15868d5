"""What pack.py writes, unpack.py brings back part by part; with wheels of the test's own, as the real ones are big."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from glimmer_export.exporter.bench.gpu import pack as packing
from glimmer_export.exporter.bench.gpu.fatbin import CUBIN, prune
from glimmer_export.exporter.bench.gpu.pack import (
    ARCHIVES,
    LIMIT_BYTES,
    Archive,
    cut,
    pack,
    recipe,
    room_bytes,
    tree_bytes,
)
from glimmer_export.exporter.bench.gpu.unpack import INDEX, unpack
from tests.bench.gpu.fat_library import Code, fat_binary, library

ROOT = Path(__file__).parents[3]
FIRST_BYTES = 2_571_648 + 32_640_788
"""`site` and `onnxruntime` as docs/measurements/gpu.md has them: all that the first call's steps look for."""
INDEX_BYTES = 100_000
"""More than enough for what a part says of its pieces, and for versions that pack a little larger."""
TREE_BYTES = LIMIT_BYTES - packing.SPARE_BYTES - FIRST_BYTES - INDEX_BYTES
"""What the repository may weigh, 29.7 MB: part-1 holds both whole, and three such parts hold all 89.8 MB."""
HOPPER = 90
FILES = {"thing/__init__.py": b"VALUE = 7\n", "thing/lib.so.1": os.urandom(5000), "thing-1.dist-info/METADATA": b"x\n"}
KERNELS = [bytes(range(256)) * 40 + bytes([number]) * 50 for number in range(4)]
FAT = library([
    fat_binary(Code(CUBIN, 75, KERNELS[0], level=19), Code(CUBIN, HOPPER, KERNELS[1], level=19)),
    fat_binary(Code(CUBIN, 75, KERNELS[0], level=19), Code(CUBIN, HOPPER, KERNELS[2], level=3)),  # packed otherwise
    fat_binary(Code(CUBIN, 75, KERNELS[0]), Code(CUBIN, HOPPER, KERNELS[3])),  # not packed
])  # fmt: skip
NAMES = ("first", "second")
PLAIN = Archive("first", ("thing",), without=("*/METADATA",))
THIN = Archive("second", ("fat",), pruned=("*/kernels.so",))


@pytest.fixture
def archives(tmp_path, monkeypatch) -> dict[str, Path]:
    # The real dictionary takes gigabytes.
    monkeypatch.setattr(packing, "FILTERS", [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 1}])
    wheels = {
        "first": wheel(tmp_path / "thing-1-py3-none-any.whl", FILES),
        "second": wheel(tmp_path / "fat-1-py3-none-any.whl", {"fat/kernels.so": FAT, "fat/noise": os.urandom(3000)}),
    }
    paths = {name: tmp_path / "packed" / f"{name}.tar.xz" for name in NAMES}
    for archive in (PLAIN, THIN):
        path = paths[archive.name]
        assert pack(archive, [wheels[archive.name]], path, HOPPER) == path.stat().st_size > 3000
    return paths


def wheel(path, files):
    with zipfile.ZipFile(path, "w") as content:
        for name, data in files.items():
            content.writestr(name, data)
    return path


def carried(archives, tmp_path, room):
    """The parts, of which each is there alone when it is unpacked."""
    parts = cut(archives, tmp_path / "parts", room)
    assert all(sum(file.stat().st_size for file in part.iterdir()) <= room for part in parts)
    said = []
    for part in parts:
        arrived = tmp_path / "arrived" / part.name
        shutil.copytree(part, arrived)
        said.append(unpack(arrived, tmp_path / "site"))
        shutil.rmtree(arrived)
    return said


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("room", [1 << 20, 6000, 2500])
def test_the_files_come_back_part_by_part(archives, tmp_path, room):
    said = carried(archives, tmp_path, room)
    pruned = bytearray(FAT)
    prune(pruned, HOPPER)
    expected = {f"first/{name}": data for name, data in FILES.items() if not name.endswith("METADATA")}
    found = files_of(tmp_path / "site")
    assert found.pop("second/fat/noise")
    assert found == {**expected, "second/fat/kernels.so": bytes(pruned)}
    assert said[-1][-1] == f"second: unpacked to {tmp_path / 'site' / 'second'}"


def test_an_archive_is_unpacked_when_its_last_piece_comes(archives, tmp_path):
    whole = (archives["first"].stat().st_size, archives["second"].stat().st_size)
    said = carried(archives, tmp_path, whole[0] + 2000)
    assert said[0][0].startswith("first: unpacked to ")
    assert said[0][1] == f"second: needs part {', '.join(map(str, range(2, len(said) + 1)))}"
    assert said[1][0] == "first: is there"


def test_codes_that_zstd_packs_the_same_way_again_are_carried_unpacked(archives):
    import tarfile

    with tarfile.open(archives["second"]) as tar:
        assert KERNELS[1] in tar.extractfile("fat/kernels.so.cubins").read()
        hollow = tar.extractfile("fat/kernels.so").read()
    assert KERNELS[3] in hollow
    assert Code(CUBIN, HOPPER, KERNELS[2], level=3).stored in hollow
    assert Code(CUBIN, HOPPER, KERNELS[1], level=19).stored not in hollow


def test_parts_are_cut_anew(archives, tmp_path):
    assert len(cut(archives, tmp_path / "parts", 2500)) > 2
    assert [part.name for part in cut(archives, tmp_path / "parts", 1 << 20)] == ["part-1"]
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["part-1"]


def test_no_room_is_told(archives, tmp_path):
    with pytest.raises(ValueError, match="beside the repository hold no part"):
        cut(archives, tmp_path / "parts", 300)


def test_a_folder_that_is_there_is_left(archives, tmp_path):
    (tmp_path / "site" / "first").mkdir(parents=True)
    assert carried(archives, tmp_path, 1 << 20)[0][0] == "first: is there"
    assert not list((tmp_path / "site" / "first").iterdir())


def test_a_damaged_piece_leaves_no_folder(archives, tmp_path):
    (part,) = cut(archives, tmp_path / "parts", 1 << 20)
    piece = part / json.loads((part / INDEX).read_text())[0]["pieces"][0]["file"]
    piece.write_bytes(piece.read_bytes()[:-500])
    with pytest.raises(ValueError, match="first: not what was packed; bring all its parts again"):
        unpack(part, tmp_path / "site")
    assert not files_of(tmp_path / "site")


def test_a_library_that_zstd_packs_otherwise_there_is_told(archives, tmp_path, monkeypatch):
    (part,) = cut(archives, tmp_path / "parts", 1 << 20)
    monkeypatch.setattr("glimmer_export.exporter.bench.gpu.unpack.LEVEL", 1)
    with pytest.raises(ValueError, match=r"kernels\.so: its code was packed otherwise here"):
        unpack(part, tmp_path / "site")
    assert not (tmp_path / "site" / "second").exists()


def test_the_command_needs_nothing_of_the_repository(archives, tmp_path):
    (part,) = cut({"site": archives["first"], "second": archives["second"]}, tmp_path / "parts", 1 << 20)
    told = subprocess.run(
        [sys.executable, ROOT / "exporter/bench/gpu/unpack.py", part, tmp_path / "there"], check=True, text=True,
        capture_output=True, cwd=tmp_path,
    )  # fmt: skip
    there = tmp_path / "there"
    assert told.stdout == f"site: unpacked to {there / 'site'}\nsecond: unpacked to {there / 'second'}\n"


def test_the_recipe_tells_versions_and_architectures_apart(tmp_path, monkeypatch):
    pins = tmp_path / "constraints.txt"
    monkeypatch.setattr(packing, "CONSTRAINTS", [pins])
    both = "thing==0 ; python_version < '3.11'\nthing==1 ; python_version >= '3.11'\nother==1\n"
    pins.write_text(f"# the versions\n\n{both}")
    first = recipe(PLAIN, "3.12", HOPPER)
    pins.write_text("thing==1\nother==2\n")
    assert recipe(PLAIN, "3.12", HOPPER) == first
    assert len({first, recipe(PLAIN, "3.11", HOPPER), recipe(PLAIN, "3.12", 86)}) == 3
    pins.write_text("thing==2\n")
    assert recipe(PLAIN, "3.12", HOPPER) != first


def test_what_is_carried_is_pinned():
    pins = [pin.name for pin in packing._pins("3.12")]
    for archive in ARCHIVES:
        assert {name: pins.count(name) for name in archive.wheels + archive.sources} == dict.fromkeys(
            archive.wheels + archive.sources, 1
        )


def test_the_tree_counts_what_git_tracks_and_would(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text(".gpu/\n")
    (tmp_path / "tracked").write_bytes(bytes(100))
    subprocess.run(["git", "-C", tmp_path, "add", "."], check=True)
    (tmp_path / "new").write_bytes(bytes(30))
    (tmp_path / ".gpu").mkdir()
    (tmp_path / ".gpu" / "part").write_bytes(bytes(5000))
    assert tree_bytes(tmp_path) == 6 + 100 + 30
    (tmp_path / "tracked").unlink()
    assert tree_bytes(tmp_path) == 6 + 30
    assert room_bytes(tmp_path) == LIMIT_BYTES - packing.SPARE_BYTES - 36


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git repository, such as an unpacked sdist")
class TestTheRepository:
    def test_its_tracked_files_leave_room_for_parts(self):
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
        sizes = {
            name: (ROOT / name).lstat().st_size for name in listed.stdout.decode().split("\0")
            if name and os.path.lexists(ROOT / name)
        }
        largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:5]
        assert sum(sizes.values()) <= TREE_BYTES, f"the largest: {', '.join(largest)}"

    def test_parts_are_ignored(self):
        asked = subprocess.run(["git", "check-ignore", ".gpu/part-1"], cwd=ROOT, check=True, capture_output=True)
        assert asked.stdout == b".gpu/part-1\n"

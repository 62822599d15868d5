"""One case by its target's name and a seed: a copy of the sound input, damaged, and what is then done with it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import inputs
from tests.fuzz.damage_bytes import damage_bytes
from tests.fuzz.damage_files import damage_file
from tests.fuzz.damage_formats import damage_format
from tests.fuzz.targets import Command, Target, Use, target_of
from tests.fuzz.uses import store_of

__all__ = ["ROOT_OF_TREE", "Case", "Sound", "written_words"]

ROOT_OF_TREE = Path(__file__).parents[2]
VICTIM = "what lies outside is nobody's business\n"


class Sound:
    """The sound inputs below a folder, each made when it is first asked for; several processes may ask."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def target(self, target: Target) -> Path:
        """The folder with a target's input."""
        return self._made(f"input {target.name}", target.make)

    def place(self, name: str) -> Path:
        """What commands read beside it, by the names of inputs.PLACES."""
        make, file = inputs.PLACES[name]
        return self._made(f"place {name}", make) / file

    def _made(self, name: str, make: Any) -> Path:
        folder = self.root / name
        if not folder.exists():
            work = self.root / f".{name}.{os.getpid()}"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            make(work)
            try:
                work.rename(folder)
            except OSError:  # another process was first
                shutil.rmtree(work)
        return folder


@dataclass(frozen=True)
class Case:
    """Deterministic: the same name and seed are the same bytes and the same use. Without a seed nothing is damaged."""

    target: str
    seed: int | None
    use: int | None = None

    def prepare(self, folder: Path, sound: Sound) -> Prepared:
        """Write the case into an empty folder: `input`, damaged, and a victim beside it that nothing may touch."""
        target, random = target_of(self.target), Random(f"{self.target} {self.seed}")
        path = folder / "input"
        shutil.copytree(sound.target(target), path)
        number = random.randrange(len(target.uses)) if self.use is None else self.use
        (folder / "seed").write_text(f"{self.target} {self.seed}", encoding="utf-8")
        (folder / "victim").write_text(VICTIM, encoding="utf-8")
        (folder / "here" / "there").mkdir(parents=True)
        damage = "none" if self.seed is None else _damage(target, path, random)
        return Prepared(folder, path, target.uses[number], damage, number)


@dataclass(frozen=True)
class Prepared:
    """A case on disk."""

    folder: Path
    path: Path
    use: Use
    damage: str
    number: int

    def run(self, sound: Sound) -> None:
        """Use the input; raises what that raises."""
        out = self.folder / "here" / "there" / "out"
        os.chdir(out.parent)
        if callable(self.use):
            self.use(self.path, out)
        else:
            from tests.fuzz.commands import run_command

            run_command(written_words(self.use, self.path, out, sound))

    def fault(self, *, refused: bool) -> str | None:
        """What is wrong with the files that are there afterwards."""
        if (self.folder / "victim").read_text(encoding="utf-8") != VICTIM:
            return "the victim was written"
        names = {path.name for path in self.folder.iterdir()}
        if strange := names - {"input", "seed", "victim", "here", "elsewhere"} - {f"{name}" for name in _left(names)}:
            return f"files outside: {sorted(strange)}"
        out = self.folder / "here" / "there" / "out"
        if refused and out.is_dir() and self.use is not None and not (callable(self.use) or "memory" in self.use):
            return "refused, and half of the output is there"
        return None


def written_words(command: Command, path: Path, out: Path, sound: Sound) -> list[str]:
    """The command's words, with the places in them."""
    words = []
    for word in command:
        places: dict[str, object] = {"input": path, "out": out, "bundle": inputs.BUNDLE, "store": store_of(path)}
        if "{own_store}" in word:
            places["own_store"] = shutil.copytree(inputs.STORE, out.with_name("own"))
        places |= {name: sound.place(name) for name in inputs.PLACES if f"{{{name}}}" in word}
        words.append(word.format(**places))
    return words


def _left(names: set[str]) -> set[str]:
    """What a change of a store, or of a bundle, leaves beside it where it is stopped: for the next command."""
    return {name for name in names if name.startswith(("input.", ".input", ".glimmer"))}


def _damage(target: Target, root: Path, random: Random) -> str:
    if not target.files:
        return "none"
    files = sorted({path for pattern in target.files for path in root.glob(pattern) if path.is_file()})
    assert files, f"{target.name}: no files of {target.files}"
    path = random.choice(files)
    name = path.relative_to(root).as_posix()
    kind, content = random.random(), path.read_bytes()
    if kind < 0.12:
        return f"{name}: {damage_file(path, root, random)}"
    changed = damage_format(content, path.name, random) if kind < 0.7 else None
    done = "format"
    if changed is None:
        changed, done = damage_bytes(content, random), "bytes"
    path.write_bytes(changed)
    if random.random() < 0.7:
        _restate(root, name, changed)
        done += ", restated"
    return f"{name}: {done}"


def _restate(root: Path, name: str, content: bytes) -> None:
    """Have manifests, and lists that they name, say what the file is now: digests alone would find it."""
    for path in (*root.glob("shard-lists/*.json"), root / "manifest.json", *root.glob("manifests/*.json")):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        before = json.dumps(manifest)
        _restated(manifest, name, content)
        if json.dumps(manifest) != before:
            shutil.rmtree(root / "replicas", ignore_errors=True)  # which would tell
            path.write_text(json.dumps(manifest), encoding="utf-8")
            if path.parent.name == "shard-lists" and path.relative_to(root).as_posix() != name:
                _restate(root, path.relative_to(root).as_posix(), path.read_bytes())


def _restated(value: Any, name: str, content: bytes) -> None:
    if isinstance(value, dict):
        if value.get("path") == name:
            value |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for item in value.values():
            _restated(item, name, content)
    elif isinstance(value, list):
        for item in value:
            _restated(item, name, content)

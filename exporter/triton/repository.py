"""A bundle and a store -> a Triton model repository, whole or not at all.

    REPO/NAME/config.pbtxt     what Triton reads: tensors, batching, and the settings of model.py
    REPO/NAME/1/model.py       the model of the Python backend
    REPO/NAME/1/bundle, store  copies, without links and without earlier generations; none if they are only named
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.exporter.files.links import resolved
from glimmer_export.exporter.files.publish import check_target, publish_directory
from glimmer_export.exporter.memory.copy import copy_store
from glimmer_export.exporter.triton.config import check_name, config_text
from glimmer_export.runtime.bundle import Bundle, verify_file
from glimmer_export.runtime.contract import MANIFEST, PARITY_RECORD, StoreError, check_parity
from glimmer_export.runtime.contract.engine_record import ENGINES
from glimmer_export.runtime.contract.store_manifest import read_shards
from glimmer_export.runtime.contract.store_mending import saying_what_mends
from glimmer_export.runtime.opening import OpenOptions, text_of
from glimmer_export.runtime.store import MemoryStore

__all__ = ["TritonModel", "TritonOptions", "write_repository"]

MODEL = Path(__file__).with_name("model.py")
VERSION = "1"


@dataclass(frozen=True)
class TritonOptions:
    """How the model answers: what `Session.open` takes, and the most questions that Triton hands over at once.

    `require_parity` is `no`, `witnessed` or `device`.
    """

    name: str = "glimmer"
    max_batch_size: int = 8
    backend: str = "auto"
    retrieval: str = "bm25"
    require_parity: str = "no"
    threads: int | None = None
    verify: bool = True
    compute_precision: str = "auto"
    draft_tokens: int | None = None

    def parameters(self, bundle: str, store: str) -> dict[str, str]:
        """What stands in config.pbtxt, where paths are from the folder of model.py, or absolute."""
        return {
            "bundle": bundle, "store": store, "backend": self.backend, "retrieval": self.retrieval,
            "require_parity": self.require_parity, "verify": "yes" if self.verify else "no",
            "compute_precision": self.compute_precision,
            **({} if self.threads is None else {"threads": str(self.threads)}),
            **({} if self.draft_tokens is None else {"draft_tokens": str(self.draft_tokens)}),
        }  # fmt: skip


@dataclass(frozen=True)
class TritonModel:
    """What was written: the repository, the model's name, where its bundle and store lie, and the repository's size."""

    repository: Path
    name: str
    bundle: Path
    store: Path
    bytes: int


def write_repository(
    bundle: Path, store: Path, repository: Path, options: TritonOptions | None = None, *, link: bool = False,
    overwrite: bool = False,
) -> TritonModel:
    """Write a repository of one model that answers with this bundle from this store.

    Both are copied, and the copies verified, so that the repository can be carried elsewhere; with `link` it names
    their paths instead. Raises what `Session.open` does for a bundle and store that do not answer, but for what the
    machine lacks on which Triton is to run; OptionError, and OutputError as `publish_directory`.
    """
    options = options or TritonOptions()
    check_name(options.name)
    checked = OpenOptions.of(
        bundle, store, threads=options.threads, verify=options.verify, retrieval=options.retrieval,
        backend=options.backend, passage_cache_bytes=0, require_parity=options.require_parity != "no",
        compute_precision=options.compute_precision, draft_tokens=options.draft_tokens,
    )
    check_target(repository, overwrite=overwrite, inputs=(bundle, store))
    with ExitStack() as stack:
        opened, memory = _opened(stack, checked.bundle, store, options, verify=options.verify and link)
        with publish_directory(repository, overwrite=overwrite, inputs=(bundle, store)) as work:
            home = work / options.name / VERSION
            home.mkdir(parents=True)
            if link:
                places = resolved(bundle).absolute(), resolved(store).absolute()
            else:
                _copy_bundle(opened, home / "bundle")
                copy_store(memory, home / "store")
                with ExitStack() as copies:
                    _opened(copies, home / "bundle", home / "store", options, verify=options.verify)
                places = Path("bundle"), Path("store")
            shutil.copyfile(MODEL, home / MODEL.name)
            text = config_text(options.name, options.max_batch_size, options.parameters(*map(str, places)))
            (home.parent / "config.pbtxt").write_text(text, encoding="utf-8")
            size = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    final = repository / options.name / VERSION
    return TritonModel(repository, options.name, final / places[0], final / places[1], size)


def _opened(
    stack: ExitStack, bundle: Path, store: Path, options: TritonOptions, *, verify: bool
) -> tuple[Bundle, MemoryStore]:
    """Both as a session opens them, closed with the stack; no graph is loaded."""
    opened = Bundle.open(bundle)
    if options.require_parity != "no":
        check_parity(opened.directory, opened.manifest)
    text_of(opened)
    memory = MemoryStore.open(store, opened, verify=verify, retrieval=options.retrieval, threads=options.threads)
    stack.callback(memory.close)
    if verify:  # a store checks its shards passage by passage, as they are read
        for shard in read_shards(store, memory.manifest):
            with saying_what_mends(store, memory.manifest, shard.file.path):
                verify_file(store, shard.file, error=StoreError, subject=f"store {store}", fix="")
    return opened, memory


def _copy_bundle(bundle: Bundle, target: Path) -> None:
    """What its manifest names, and of what others put beside it: engines, and the record of parity."""
    names = dict.fromkeys(entry.path for entry in bundle.manifest.files())
    optional = [name for name in (PARITY_RECORD,) if (bundle.directory / name).is_file()]
    _copy(bundle.directory, target, [*names, *optional, MANIFEST])
    if (bundle.directory / ENGINES).is_dir():
        shutil.copytree(
            bundle.directory / ENGINES, target / ENGINES, ignore=shutil.ignore_patterns(".*"),
            copy_function=shutil.copyfile,
        )


def _copy(source: Path, target: Path, names: Iterable[str]) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)

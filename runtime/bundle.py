"""Open a bundle: every file it names is inside it, of its size and of its digest, before any of it is used."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from glimmer_export.runtime.arguments import path_of
from glimmer_export.runtime.contract import (
    BundleError,
    BundleManifest,
    FileEntry,
    GlimmerError,
    file_digest,
    file_errors,
    inside,
    is_there,
    is_volume_part,
    read_manifest,
)
from glimmer_export.runtime.contract.files import open_file
from glimmer_export.runtime.external_data import check_external_data
from glimmer_export.runtime.text import TextEncoder

__all__ = ["Bundle", "verify_file"]


@dataclass(frozen=True)
class Bundle:
    """An opened and verified bundle. `text` is None if the checkpoint had no tokenizer."""

    directory: Path
    manifest: BundleManifest
    text: TextEncoder | None

    @classmethod
    def open(cls, directory: str | os.PathLike[str]) -> Bundle:
        """Read and verify a bundle directory.

        Raises BundleError for a manifest, path, size or digest that is wrong and for a graph that reads what the
        manifest does not vouch for, TokenizerError for its tokenizer, OptionError for what is no path.
        """
        directory = path_of("bundle", directory)
        manifest = read_manifest(directory)
        for entry in manifest.files():
            verify_file(directory, entry, error=BundleError, subject=f"bundle {directory}", fix="copy the bundle again")
        _check_nothing_else(directory, manifest)
        for graph in manifest.graphs.values():
            _check_external_data(directory, graph.files[0], manifest)
        text = None
        if manifest.tokenizer is not None:
            text = TextEncoder.open(directory / manifest.tokenizer.path, manifest.model)
        return cls(directory, manifest, text)

    def graph_path(self, name: str) -> Path:
        """The model file of a graph."""
        return self.directory / self.manifest.graphs[name].files[0].path

    def __str__(self) -> str:
        return f"bundle {self.directory}"


def _check_nothing_else(directory: Path, manifest: BundleManifest) -> None:
    """A graph reads its weights from a file beside it: none may stand there that the manifest does not vouch for."""
    named = {directory / entry.path for entry in manifest.files()}
    for path in sorted({file.parent for file in named}):
        with file_errors(error=BundleError, subject=f"bundle {directory}, {path.name}", fix="copy the bundle again"):
            content = sorted(path.iterdir() if path != directory else ())
        for found in content:
            if found not in named and not is_volume_part(found.relative_to(path)):
                raise BundleError(
                    f"bundle {directory}", expected=f"only the files of its manifest in {path.name}", found=found.name,
                    fix="copy the bundle again",
                )


def _check_external_data(directory: Path, graph: FileEntry, manifest: BundleManifest) -> None:
    """Refuse a graph that reads anything but the manifest's files in its own folder, or reads past their ends."""
    folder = PurePosixPath(graph.path).parent
    paths = {PurePosixPath(entry.path): entry.bytes for entry in manifest.graph_files()}
    check_external_data(
        directory / graph.path, {path.name: size for path, size in paths.items() if path.parent == folder},
        error=BundleError, subject=f"bundle {directory}, {graph.path}", fix="export the bundle again",
    )


def verify_file(
    directory: Path, entry: FileEntry, *, error: type[GlimmerError], subject: str, fix: str, digest: bool = True
) -> Path:
    """Path of a file that a manifest names; raises `error` if its name leads out of the directory, or it changed.

    So it does if the file is absent or no regular one. Links are followed: the digest says whether it is the right
    file. The size is looked at first: a digest over a wrong file would be wasted. `digest=False` stops there.
    """
    path = inside(directory, entry.path, error=error, subject=subject)
    if not is_there(path):
        raise error(subject, expected=f"a file {entry.path}", found="none", fix=fix)
    subject = f"{subject}, {entry.path}"
    with file_errors(error=error, subject=subject, fix=fix):
        with open_file(path) as stream:
            size = os.fstat(stream.fileno()).st_size
        if size != entry.bytes:
            raise error(subject, expected=f"{entry.bytes} bytes", found=f"{size} bytes", fix=fix)
        if digest and (found := file_digest(path)) != entry.sha256:
            raise error(subject, expected=f"SHA-256 {entry.sha256}", found=found, fix=fix)
    return path

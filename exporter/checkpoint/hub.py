"""A model of the Hugging Face hub by its id: the files that a T5 or a FiD is read from, in the hub's own cache."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.exporter.checkpoint import pickle_files, safetensors_files
from glimmer_export.exporter.checkpoint.generation import FILE as GENERATION
from glimmer_export.exporter.checkpoint.t5_shape import CONFIG
from glimmer_export.exporter.checkpoint.tokenizer import FAST, SENTENCEPIECE
from glimmer_export.exporter.checkpoint.weight_files import ADAPTER
from glimmer_export.exporter.files.publish import check_target
from glimmer_export.runtime.contract import CheckpointError, MissingExtraError, is_there
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["download_model", "is_hub_id"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
SMALL = (CONFIG, GENERATION, FAST, SENTENCEPIECE, "tokenizer_config.json", ADAPTER)
SHARD = re.compile(r"(model|pytorch_model)-\d+-of-\d+\.(safetensors|bin)")
ELSEWHERE = "download the model where the hub is reachable, and name its directory"
LIBRARIES = ("huggingface_hub", "httpx", "httpx2", "httpcore", "requests", "urllib3", "hf_xet")
"""Whose errors a download ends with."""


def is_hub_id(source: Path) -> bool:
    """Whether a path that is not there is written as an id of the hub, `owner/name`."""
    return not is_there(source) and HUB_ID.fullmatch(str(source)) is not None


def download_model(name: str, *, output: Path, overwrite: bool, progress: bool) -> Path:
    """Download the model of this id, if it is not in the hub's cache yet; returns the directory there.

    Only what a T5 is read from, in the revision that is the latest now: config, generation config, tokenizer, and the
    weights, safetensors if there are some. With `progress` the hub's own bars show it. Before a download, which may be
    long, OutputError is raised if the `output` that is to be made of it cannot be. Raises CheckpointError: offline,
    not reachable, no such model or none that may be read, or none with a config and weights in PyTorch. Raises
    MissingExtraError without huggingface_hub.
    """
    check_target(output, overwrite=overwrite)
    try:
        import huggingface_hub as hub
        from huggingface_hub import constants
    except ImportError as error:
        raise MissingExtraError(
            f"downloading {name}", expected="huggingface_hub", found=str(error), fix="install glimmer-export[export]"
        ) from None
    if constants.HF_HUB_OFFLINE:
        raise _refused(name, "no such directory, and HF_HUB_OFFLINE is set", f"unset it; or {ELSEWHERE}")
    with _hub_says(progress=progress), LibraryErrors(_is_theirs, lambda error: _named(name, error)):
        info = hub.HfApi().model_info(name)
        files = _needed([file.rfilename for file in info.siblings or ()], name)
        paths = [Path(hub.hf_hub_download(name, file, revision=info.sha)) for file in files]
    return paths[0].parent


def _needed(found: Sequence[str], name: str) -> list[str]:
    """The files to download, config first."""
    there = set(found)
    for layout in (safetensors_files, pickle_files):
        if layout.SINGLE in there:
            weights = [layout.SINGLE]
        elif layout.INDEX in there:
            ending = Path(layout.SINGLE).suffix
            weights = [layout.INDEX, *(file for file in found if SHARD.fullmatch(file) and file.endswith(ending))]
        else:
            continue
        if CONFIG in there:
            return [*(file for file in SMALL if file in there), *weights]
    raise CheckpointError(
        f"model {name} of the Hugging Face hub",
        expected=f"{CONFIG}, and {safetensors_files.SINGLE} or {pickle_files.SINGLE}",
        found=", ".join(sorted(found)[:8]) or "no files", fix="choose a T5 with weights in PyTorch",
    )


def _is_theirs(kind: type[BaseException]) -> bool:
    if issubclass(kind, CheckpointError) or not issubclass(kind, Exception):
        return False
    return issubclass(kind, OSError) or any(base.__module__.partition(".")[0] in LIBRARIES for base in kind.__mro__)


def _named(name: str, error: BaseException) -> CheckpointError:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    said = first_line(error)
    if isinstance(error, GatedRepoError):
        return _refused(name, f"one with terms to accept: {said}", "accept them on its page, then `hf auth login`")
    if isinstance(error, RepositoryNotFoundError):
        return _refused(name, "neither", "check the name; a private model is found after `hf auth login`")
    if isinstance(error, HfHubHTTPError):
        return _refused(name, f"no such directory, and the hub answers: {said}", f"try again later; or {ELSEWHERE}")
    return _refused(
        name, f"no such directory, and the hub cannot be reached: {said}", f"check the connection; or {ELSEWHERE}"
    )


def _refused(name: str, found: str, fix: str) -> CheckpointError:
    return CheckpointError(
        f"model {name}", expected="a directory of that name, or a model of that id on the Hugging Face hub",
        found=found, fix=fix,
    )


@contextmanager
def _hub_says(*, progress: bool) -> Iterator[None]:
    """Bars if they are wanted, and no warnings: what ends a download is said by our error."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    level, shown = logger.level, not are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    if shown and not progress:
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if shown and not progress:
            enable_progress_bars()

"""Errors a user can cause and mend: each names its subject, what was expected, what came, and the fix."""

from __future__ import annotations

from functools import partial

__all__ = [
    "BackendError",
    "BundleError",
    "BusyError",
    "CalibrationError",
    "CheckpointError",
    "ClosedError",
    "CorpusError",
    "DeviceLostError",
    "DeviceMemoryError",
    "EmbeddingsError",
    "EngineError",
    "ExportError",
    "ForkedError",
    "GlimmerError",
    "MissingExtraError",
    "NotFiniteError",
    "OperatingSystemError",
    "OptionError",
    "OutputError",
    "PassageError",
    "PassageNumberError",
    "QuestionError",
    "QuestionFileError",
    "StoreError",
    "TakenIdError",
    "TokenizerError",
    "TrainingError",
]


class GlimmerError(Exception):
    """Base of every error that is the input's or the environment's; anything else that is raised is a bug."""

    def __init__(self, subject: str, *, expected: str, found: str, fix: str) -> None:
        super().__init__(f"{subject}: expected {expected}, found {found}; {fix}")
        self.subject, self.expected, self.found, self.fix = subject, expected, found, fix

    def __reduce__(self) -> tuple[partial[GlimmerError], tuple[()]]:
        """How one process hands it to another: by its parts, where exceptions are rebuilt from their message."""
        return partial(type(self), self.subject, expected=self.expected, found=self.found, fix=self.fix), ()


class CheckpointError(GlimmerError):
    """A checkpoint that is incomplete, damaged or inconsistent."""


class ExportError(GlimmerError):
    """A graph that misses its tolerance or breaks a rule of the export."""


class BundleError(GlimmerError):
    """A bundle that is incomplete, changed, unsafe or too new."""


class CalibrationError(GlimmerError):
    """A table of ranges that is absent, damaged, of other graphs, or that does not allow what is asked of it."""


class StoreError(GlimmerError):
    """A memory store that is incomplete, changed, or belongs to another checkpoint."""


class TokenizerError(GlimmerError):
    """A tokenizer that is absent, unreadable or does not fit the model."""


class TrainingError(GlimmerError):
    """A training that cannot begin or go on: nothing to learn from, or a loss that is not finite."""


class CorpusError(GlimmerError):
    """A corpus that cannot be stored, for one of its lines or rows or as a whole."""


class TakenIdError(CorpusError):
    """A passage to be added whose id the store has already."""


class EmbeddingsError(GlimmerError):
    """Vectors that do not fit a store's passages, or a sentence encoder that cannot make them."""


class QuestionError(GlimmerError):
    """A question the model cannot take: empty or too long."""


class QuestionFileError(GlimmerError):
    """A file of questions in none of the known layouts."""


class PassageError(GlimmerError):
    """A passage id that the store does not hold, or a passage without text."""


class PassageNumberError(PassageError, IndexError):
    """A passage number that the store does not have, or has no more; an IndexError too, as of any sequence."""


class NotFiniteError(GlimmerError):
    """Scores or logits with NaN or infinity among them: whatever were read off them would be no answer."""


class ClosedError(GlimmerError):
    """A session or a store that is used after it was closed."""


class ForkedError(GlimmerError):
    """A session or a store that is used in a forked child of the process that opened it."""


class BackendError(GlimmerError):
    """A backend that cannot run here."""


class DeviceMemoryError(BackendError):
    """A device whose memory does not hold what was asked of it; what was answered before, and will be, is sound."""


class DeviceLostError(BackendError):
    """A device that failed: nothing that ran on it since the last answer is to be trusted, and nothing can run."""


class EngineError(GlimmerError):
    """A graph that breaks a rule of the machine that is to run it, or that a compiler refuses."""


class OperatingSystemError(GlimmerError):
    """What the system refuses that no error above names: a file, a name, memory."""


class OptionError(GlimmerError):
    """An option out of its range, or one that does not fit the others."""


class OutputError(GlimmerError):
    """A place that cannot be written: it exists already, or the disk is full."""


class BusyError(OutputError):
    """A place that another process writes, or changes, at this moment."""


class MissingExtraError(GlimmerError):
    """A command whose optional dependencies are not installed."""

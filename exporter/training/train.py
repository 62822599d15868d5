"""`glimmer-export train`: a checkpoint, or a generator's model, trained by a recipe into another checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from torch import Tensor

from glimmer_export.exporter.checkpoint import CheckpointConfig, random_weights, read_checkpoint, write_checkpoint
from glimmer_export.exporter.checkpoint.digest import checkpoint_digest
from glimmer_export.exporter.files.links import resolved
from glimmer_export.exporter.files.publish import check_target
from glimmer_export.exporter.report import terminal
from glimmer_export.exporter.training.dev import graded_answers
from glimmer_export.exporter.training.generators import generator_named
from glimmer_export.exporter.training.log import TrainingLog, progress_line
from glimmer_export.exporter.training.processes import Processes, started_processes
from glimmer_export.exporter.training.recipe import Recipe
from glimmer_export.exporter.training.state import BEST, LAST, remove_state, restore_state, save_state
from glimmer_export.exporter.training.trainable import model_to_train, tensors_from_model
from glimmer_export.exporter.training.trainer import Report, Trainer
from glimmer_export.runtime.contract import CheckpointError, OptionError, TrainingError

if TYPE_CHECKING:
    from glimmer_export.exporter.stages import GlimmerModel

"""How good models are: checkpoints and bundles over files of questions, at any k and m, compared with intervals."""

from glimmer_export.exporter.evaluation.grid import Cell, Grid
from glimmer_export.exporter.evaluation.models import ModelOptions
from glimmer_export.exporter.evaluation.questions import TaskQuestion, read_tasks, task_files
from glimmer_export.exporter.evaluation.report import EvaluationReport
from glimmer_export.exporter.evaluation.run import EvaluationRequest, evaluate

__all__ = [
    "Cell", "EvaluationReport", "EvaluationRequest", "Grid", "ModelOptions", "TaskQuestion", "evaluate",
    "read_tasks", "task_files",
]  # fmt: skip

"""What a question costs: the papers' formulas, ours, a count of the exported graphs, bytes, and a machine's floor."""

from glimmer_export.exporter.cost.report import CostReport, CostRequest, QuestionCost, cost_report, question_cost
from glimmer_export.exporter.cost.show import plot_cost, print_report

__all__ = [
    "CostReport", "CostRequest", "QuestionCost", "cost_report", "plot_cost", "print_report", "question_cost",
]  # fmt: skip

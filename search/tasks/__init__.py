"""The tasks that candidates are trained on. To add one: a file here that ends in `TASK =
Task(...)`, and a row below; from outside, an entry point of the group `formwright.tasks`."""

from __future__ import annotations

from ..registry import Registry
from .task import Split, Task

TASKS = Registry(
    "task",
    "formwright.tasks",
    Task,
    {
        "compression": ".tasks.compression:TASK",
        "digits": ".tasks.digits:TASK",
        "fuzzy_recall": ".tasks.fuzzy_recall:TASK",
        "memorization": ".tasks.memorization:TASK",
        "noisy_recall": ".tasks.recall:NOISY",
        "python_chars": ".tasks.python_chars:TASK",
        "recall": ".tasks.recall:TASK",
        "recall_small": ".tasks.recall:SMALL",
        "selective_copying": ".tasks.selective_copying:TASK",
    },
)

__all__ = ["TASKS", "Task", "Split"]

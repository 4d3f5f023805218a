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
        "digits": ".tasks.digits:TASK",
    },
)

__all__ = ["TASKS", "Task", "Split"]

"""`Draft`: a study of Optuna before it is written, and when another of its name may go.

It must not know where studies are kept. Next: `study_writer.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from ..errors import SearchError

LONGEST = 512  # name of a study

May = Callable[[Mapping[str, Any]], bool]  # by user attributes: whether such a study may go


@dataclass(frozen=True)
class Draft:
    """A study before it is written; trials are in the order of their numbers."""

    name: str
    directions: Sequence[str]
    metrics: Sequence[str]
    user_attrs: Mapping[str, Any]
    trials: Sequence[FrozenTrial]


def check_name(name: str) -> None:
    """Raises SearchError for what no study can be called everywhere."""
    if len(name) > LONGEST or not name.isprintable():
        said = f"at most {LONGEST} characters that can be printed"
        raise SearchError(f"{name[:50]!r} is no name of a study: wanted {said}")


def refuse(name: str, attrs: Mapping[str, Any], may_go: May | None) -> None:
    """Raises SearchError where a study of that name, with these attributes, is there to stay."""
    if may_go is None:
        raise SearchError(f"there is a study {name!r} already; replace it, or name another")
    if not may_go(attrs):
        raise SearchError(f"the study {name!r} was not made of this search; name another")


def system_attrs(draft: Draft) -> dict[str, Any]:
    """How Optuna writes the names of the metrics is its own business."""
    memory = InMemoryStorage()
    study = optuna.create_study(storage=memory, study_name="draft", directions=directions_of(draft))
    study.set_metric_names(list(draft.metrics))
    return dict(memory.get_study_system_attrs(memory.get_study_id_from_name("draft")))


def directions_of(draft: Draft) -> list[StudyDirection]:
    """In Optuna's words."""
    return [StudyDirection[direction.upper()] for direction in draft.directions]

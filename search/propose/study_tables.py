"""A study as rows of the tables that Optuna keeps in a database: written in one transaction.

The one file that knows those tables: they have no public name, and a test compares what is read
from them with what Optuna itself writes. It must not import SQLAlchemy. Next: `study_writer.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from .study_draft import Draft, May, directions_of, refuse, system_attrs

AT_ONCE = 1000  # trials whose rows are in memory
Rows = dict[str, list[dict[str, Any]]]  # by table


def to_database(storage: RDBStorage, draft: Draft, may_go: May | None) -> None:
    """Raises SearchError where there is a study of that name, unless it may go."""
    from optuna.storages._rdb import models  # loads SQLAlchemy

    with storage.engine.begin() as connection:
        _make_room(connection, models.BaseModel.metadata, draft.name, may_go)
        _fill(connection, models, draft)


def _make_room(connection: Any, metadata: Any, name: str, may_go: May | None) -> None:
    studies, attrs = metadata.tables["studies"], metadata.tables["study_user_attributes"]
    called = studies.select().with_only_columns(studies.c.study_id)
    for (old,) in connection.execute(called.where(studies.c.study_name == name)).all():
        rows = connection.execute(attrs.select().where(attrs.c.study_id == old))
        refuse(name, {row.key: json.loads(row.value_json) for row in rows}, may_go)
        _delete(connection, metadata, old)


def _fill(connection: Any, models: Any, draft: Draft) -> None:
    tables = models.BaseModel.metadata.tables
    studies, trials = tables["studies"], tables["trials"]
    made = connection.execute(studies.insert(), {"study_name": draft.name})
    (study,) = made.inserted_primary_key
    for name, rows in _rows_of_study(draft, study).items():
        connection.execute(tables[name].insert(), rows)
    places = trials.select().with_only_columns(trials.c.trial_id, trials.c.number)
    for first in range(0, len(draft.trials), AT_ONCE):
        some = list(enumerate(draft.trials[first : first + AT_ONCE], first))
        connection.execute(trials.insert(), [_row(trial, study, at) for at, trial in some])
        ours = (trials.c.study_id == study) & (trials.c.number >= first)
        ids = {row.number: row.trial_id for row in connection.execute(places.where(ours))}
        for name, rows in _rows_of_trials(models, [(ids[at], t) for at, t in some]).items():
            if rows:
                connection.execute(tables[name].insert(), rows)


def _delete(connection: Any, metadata: Any, study: int) -> None:
    """A study and all that hangs on it."""
    trials = metadata.tables["trials"]
    ours = trials.select().with_only_columns(trials.c.trial_id).where(trials.c.study_id == study)
    for table in reversed(metadata.sorted_tables):
        if "study_id" in table.c:
            connection.execute(table.delete().where(table.c.study_id == study))
        elif "trial_id" in table.c:
            connection.execute(table.delete().where(table.c.trial_id.in_(ours)))


def _rows_of_study(draft: Draft, study: int) -> Rows:
    def attrs(given: Mapping[str, Any]) -> list[dict[str, Any]]:
        texts = {name: json.dumps(value) for name, value in given.items()}
        return [{"study_id": study, "key": k, "value_json": text} for k, text in texts.items()]

    return {
        "study_directions": [
            {"study_id": study, "objective": at, "direction": direction}
            for at, direction in enumerate(directions_of(draft))
        ],
        "study_user_attributes": attrs(draft.user_attrs),
        "study_system_attributes": attrs(system_attrs(draft)),
    }


def _row(trial: FrozenTrial, study: int, number: int) -> dict[str, Any]:
    return {
        "study_id": study,
        "number": number,
        "state": trial.state,
        "datetime_start": _utc(trial.datetime_start),
        "datetime_complete": _utc(trial.datetime_complete),
    }


def _rows_of_trials(models: Any, trials: Iterable[tuple[int, FrozenTrial]]) -> Rows:
    stored = models.TrialValueModel.value_to_stored_repr
    step_stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
    texts: dict[int, str] = {}  # of distributions, most of which many trials share
    made: Rows = {
        "trial_params": [],
        "trial_values": [],
        "trial_intermediate_values": [],
        "trial_user_attributes": [],
        "trial_system_attributes": [],
    }
    for own, trial in trials:
        for name, value in trial.params.items():
            of = trial.distributions[name]
            text = texts.get(key := id(of)) or distribution_to_json(of)
            texts[key] = text
            made["trial_params"].append(
                {
                    "trial_id": own,
                    "param_name": name,
                    "param_value": of.to_internal_repr(value),
                    "distribution_json": text,
                }
            )
        for at, value in enumerate(trial.values or ()):
            number, kind = stored(value)
            made["trial_values"].append(
                {"trial_id": own, "objective": at, "value": number, "value_type": kind}
            )
        for step, value in trial.intermediate_values.items():
            number, kind = step_stored(value)
            made["trial_intermediate_values"].append(
                {
                    "trial_id": own,
                    "step": step,
                    "intermediate_value": number,
                    "intermediate_value_type": kind,
                }
            )
        for name, attrs in (
            ("trial_user_attributes", trial.user_attrs),
            ("trial_system_attributes", trial.system_attrs),
        ):
            made[name] += [
                {"trial_id": own, "key": k, "value_json": json.dumps(v)} for k, v in attrs.items()
            ]
    return made


def _utc(time: datetime | None) -> datetime | None:
    """As Optuna keeps times."""
    return None if time is None else time.astimezone(UTC).replace(tzinfo=None)

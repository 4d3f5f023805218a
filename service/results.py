"""A search as one thing: a `Result`, as a search in this process has returned it, or a table.

Next: `../search/result.py`, `rows.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import FormwrightError
from ..search import Result, Trial
from .records import SearchRecord, TrialRecord
from .rows import flat, search_row, trial_row, trials_as_table

if TYPE_CHECKING:
    import pandas


def result_of(search: SearchRecord, trials: Iterable[TrialRecord]) -> Result:
    """What `as_text`, `picture`, `to_study` and `Result.save` take."""
    return Result(search.spec, tuple(map(_trial, trials)))


def to_frame(records: Result | Iterable[SearchRecord | TrialRecord]) -> pandas.DataFrame:
    """A row for each record, or each trial of a result; a column for each metric
    (`metrics.quality`) and each gene (`params.depth`). Raises FormwrightError where pandas is not
    installed."""
    try:
        import pandas
    except ModuleNotFoundError:
        raise FormwrightError("to_frame needs pandas: pip install pandas") from None
    if isinstance(records, Result):
        return pandas.DataFrame(trials_as_table(records.trials, of_service=False))
    given = list(records)
    trials = [record for record in given if isinstance(record, TrialRecord)]
    if len(trials) == len(given):
        return pandas.DataFrame(trials_as_table(trials, of_service=True))
    rows = (trial_row(r) if isinstance(r, TrialRecord) else search_row(r) for r in given)
    return pandas.DataFrame([dict(flat(row)) for row in rows])


def _trial(record: TrialRecord) -> Trial:
    return Trial(
        number=record.number,
        params=record.params,
        architecture=record.architecture,
        state=record.state,
        attempt=record.attempt,
        rung=record.rung,
        values=record.values,
        details=record.details,
        error=record.error,
    )

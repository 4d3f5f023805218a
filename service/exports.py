"""A search in files that other programs open: a study of Optuna, CSV, JSON, Parquet.

Files are written whole or not at all, and nothing is overwritten unasked. It must not know the
command line, nor how Optuna keeps a study. Next: `rows.py` says what is in a table;
`../search/propose/study_export.py` makes the study.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FormwrightError, one_line
from ..search import write_whole
from .errors import InvalidRequest, NotAllowed, SetupError
from .records import SearchRecord, TrialRecord
from .redact import redacted
from .results import result_of, to_frame
from .rows import trial_row, trials_as_table

STUDY = "optuna"
# what a spreadsheet takes for the beginning of a formula; the last four are the first ones, wide
FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
SQLITE = b"SQLite format 3\x00"

Trials = Sequence[TrialRecord]


@dataclass(frozen=True)
class Target:
    """Where to, and in which form: `optuna`, or one of `FORMS`. `place` of a study is what follows
    `optuna:`, else a file, or `-` for the standard output."""

    form: str
    place: str

    @classmethod
    def of(cls, text: str, form: str = "") -> Target:
        """As it is written, the form by the name's ending unless given. Raises InvalidRequest."""
        kind, colon, place = text.partition(":")
        if colon and kind == STUDY:
            if not place or form:
                raise InvalidRequest("wanted optuna:URL or optuna:FILE, without a format", "to")
            return cls(STUDY, place)
        form = form or Path(text).suffix.removeprefix(".").lower()
        if form not in FORMS:
            known = ", ".join([*(f"FILE.{known}" for known in FORMS), "optuna:URL", "optuna:FILE"])
            raise InvalidRequest(f"{one_line(redacted(text), 80)!r} is none of {known}", "to")
        return cls(form, text)

    @property
    def is_study(self) -> bool:
        return self.form == STUDY

    def __str__(self) -> str:
        return redacted(f"{STUDY}:{self.place}" if self.is_study else self.place)


def export(
    search: SearchRecord,
    trials: Trials,
    target: Target,
    *,
    name: str = "",
    replace: bool = False,
    beside: bool = False,
) -> None:
    """Writes it. `name` is that of the study (default: the search's id); with `replace` an earlier
    export goes; a study may be made `beside` searches of ours in their database. Raises NotAllowed
    for what must not be overwritten, SearchError where a study cannot be written, OSError."""
    if target.is_study:
        if not beside:
            _keep_out(target.place)
        study_of(search, trials, target.place, name, replace=replace)
    else:
        whole(Path(target.place), FORMS[target.form](trials), replace)


def study_of(
    search: SearchRecord,
    trials: Trials,
    storage: Any = None,
    name: str = "",
    *,
    replace: bool = False,
) -> Any:
    """The `optuna.Study` that `to_study` makes of a search of a service: called by its id, with its
    times, and where it is from in the study's attributes `search`, `display_name` and `state`."""
    from ..search import to_study  # loads Optuna, which tables do not need

    attrs = {"search": search.id, "state": search.state.value, "display_name": search.display_name}
    return to_study(
        result_of(search, trials),
        storage,
        name or search.id,
        times={trial.number: (trial.created, trial.updated) for trial in trials},
        attrs=attrs,
        replace=replace,
    )


def as_csv(trials: Trials) -> bytes:
    """RFC 4180 in UTF-8, a row for each trial. A text that a spreadsheet would take for a formula
    stands behind an apostrophe."""
    table = trials_as_table(trials, of_service=True)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(table)
    writer.writerows(zip(*(map(_cell, cells) for cells in table.values()), strict=True))
    return out.getvalue().encode(errors="backslashreplace")


def _cell(value: object) -> object:
    is_formula = isinstance(value, str) and value.startswith(FORMULA)
    return f"'{value}" if is_formula else "" if value is None else value


def as_json(trials: Trials) -> bytes:
    """An array with an object for each trial, each on a line of its own."""
    lines = (json.dumps(trial_row(trial), sort_keys=True) for trial in trials)
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def as_parquet(trials: Trials) -> bytes:
    """The table of `to_frame`; where the values of a gene are of several kinds they are text.
    Raises FormwrightError where pandas or pyarrow is not installed."""
    frame = to_frame(trials)
    for name in [name for name in frame if str(frame[name].dtype) == "object"]:
        frame[name] = [None if value is None else str(value) for value in frame[name]]
    out = io.BytesIO()
    try:
        frame.to_parquet(out, engine="pyarrow", index=False)
    except ImportError:
        raise FormwrightError("Parquet needs pyarrow: pip install pyarrow") from None
    return out.getvalue()


FORMS: Mapping[str, Callable[[Trials], bytes]] = {
    "csv": as_csv,
    "json": as_json,
    "parquet": as_parquet,
}


def whole(path: Path, data: bytes, replace: bool) -> None:
    """Writes a file, whole or not at all. Raises NotAllowed, OSError."""
    if path.exists():
        with path.open("rb") as file:
            if file.read(len(SQLITE)) == SQLITE:
                raise NotAllowed(f"{path} is a database; nothing is written over it")
        if not replace:
            raise NotAllowed(f"{path} is there already; --replace writes over it")
    write_whole(path, data)


def _keep_out(place: str) -> None:
    """Of a database with searches, whose tables do not mind, but whose users may. Raises
    NotAllowed."""
    from ..search import study_url

    url = study_url(place)
    if not url.startswith(("sqlite", "postgresql")):
        return
    from .store.examine import examine  # loads SQLAlchemy, which Optuna needs anyway

    with suppress(SetupError):  # a driver that is not ours
        if examine(url).found:
            said = "holds searches; a study can live beside them, in tables of its own: --beside"
            raise NotAllowed(f"{redacted(place)} {said}")

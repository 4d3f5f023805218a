"""The log of every process of the service, on standard error: as text for people, or as JSON.

`set_up` is called once, when a process begins. Everything goes through one handler: what we log,
what uvicorn, alembic and SQLAlchemy do, warnings, and exceptions that nobody caught. It adds the
labels that hold (`labels.py`) and hides what must not be read (`redact.py`). Ours, uvicorn's and
alembic's loggers have the level that is set; others are heard from WARNING on, for at INFO
SQLAlchemy would print every statement with its values. It must not know what is logged.
Next: `calls.py`, the line of each call.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from .configured import resolve
from .labels import IDS, current
from .redact import redacted
from .settings import SETTINGS

OURS = ("formwright", "uvicorn", "alembic")  # whose level is the one that is set
# libraries that may bring handlers of their own
GUESTS = (*OURS, "uvicorn.access", "uvicorn.error", "grpc", "sqlalchemy", "asyncio", "py.warnings")
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
_CONTROLS = {code: repr(chr(code))[1:-1] for code in (*range(32), 127, 0x85, 0x2028, 0x2029)}
_ERRORS = logging.Formatter()  # makes the text of a traceback
log = logging.getLogger("formwright.service")

Fault = tuple[type[BaseException], BaseException, TracebackType | None]


class Redacting(logging.Filter):
    """Lets every record pass, without what must not be read: in its message, arguments, exception
    and whatever else it carries. A message that its arguments do not fit is written without."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            said = record.getMessage()
        except Exception:  # a log must not raise, nor print its arguments elsewhere
            said = f"{record.msg} (with arguments that do not fit)"
        record.msg, record.args = redacted(said), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = _ERRORS.formatException(record.exc_info)
        for name in ("exc_text", "stack_info"):
            if text := getattr(record, name):
                setattr(record, name, redacted(text))
        for name in _carried(record):
            value = getattr(record, name)
            if not isinstance(value, bool | int | float | None):
                setattr(record, name, redacted(str(value)))
        return True


class AsText(logging.Formatter):
    """One line, with labels where there are any; a traceback has lines of its own. What is no
    letter is written out, so that nobody can make a line by what he sends."""

    def format(self, record: logging.LogRecord) -> str:
        said = f"{record.name}: {record.getMessage().rstrip()}"
        if ids := _labels():
            said = f"{said} [{' '.join([f'{name}={value}' for name, value in ids.items()])}]"
        if not said.isprintable():
            said = said.translate(_CONTROLS)
        return "\n".join(filter(None, (said, record.exc_text, record.stack_info)))


class AsJson(logging.Formatter):
    """One object a line: `time` (UTC), `level`, `logger`, `message`, `pid`, the labels, what the
    record carries, and a traceback as the text `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        said = {
            "time": time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        more = {name: vars(record)[name] for name in _carried(record) - said.keys()}
        faults = {"exception": record.exc_text, "stack": record.stack_info}
        told = said | _labels() | {name: _json(more[name]) for name in sorted(more)}
        return json.dumps(told | {name: text for name, text in faults.items() if text})


FORMATS: Mapping[str, type[logging.Formatter]] = {"text": AsText, "json": AsJson}


def _carried(record: logging.LogRecord) -> set[str]:
    """What whoever logged gave it besides; a library, Ray for one, may mark every record."""
    return {name for name in vars(record).keys() - _PLAIN if not name.startswith("_")}


def _labels() -> dict[str, str]:
    """In their order, those that no table has last."""
    ids = {name: redacted(value) for name, value in current().items()}
    return {name: ids[name] for name in IDS if name in ids} | ids


def _json(value: Any) -> Any:
    """JSON has no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


class Handler(logging.StreamHandler[TextIO]):
    """Writes, and counts what it wrote by level."""

    def __init__(self, format: str, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(FORMATS[format]())
        self.addFilter(Redacting())
        self.format_name = format
        self.counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.counts[record.levelname] += 1
        super().emit(record)


_handler: Handler | None = None  # a process has one log


def set_up(format: str = "text", level: str = "warning", stream: TextIO | None = None) -> None:
    """From here on this process logs so; a second call takes the place of the first. `level` is
    one of `SETTINGS["log_level"]`."""
    global _handler
    _handler = Handler(format, stream or sys.stderr)
    root = logging.getLogger()
    root.handlers[:] = [_handler]
    root.setLevel(logging.WARNING)
    for name in GUESTS:
        guest = logging.getLogger(name)
        guest.handlers.clear()
        guest.propagate, guest.disabled = True, False
    for name in OURS:
        logging.getLogger(name).setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def set_up_as_told() -> None:
    """The same, as the environment or the file says. Raises SettingError."""
    format, level = (resolve(SETTINGS[name]).value for name in ("log_format", "log_level"))
    set_up(str(format), str(level))


def passed_on() -> dict[str, str]:
    """The environment for a process of ours, which is to log as this one does: its arguments would
    be seen by everybody on the machine."""
    ours = {row.variable for row in SETTINGS.values() if row.secret}
    inherited = {name: value for name, value in os.environ.items() if name not in ours}
    if _handler is None:
        return inherited
    level = logging.getLevelName(logging.getLogger(OURS[0]).getEffectiveLevel()).lower()
    told = {"log_format": _handler.format_name, "log_level": level}
    return {**inherited, **{SETTINGS[name].variable: value for name, value in told.items()}}


def counts() -> dict[str, int]:
    """How many records this process has written, by level."""
    return dict(_handler.counts) if _handler else {}


def _uncaught(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):  # whoever runs it wants it to end
        sys.__excepthook__(kind, error, trace)
    else:
        log.critical("an exception that nobody caught", exc_info=(kind, error, trace))


def _uncaught_in_thread(given: threading.ExceptHookArgs) -> None:
    if given.exc_type is SystemExit or given.exc_value is None:
        return
    name = given.thread.name if given.thread else "that is gone"
    fault: Fault = (given.exc_type, given.exc_value, given.exc_traceback)
    log.critical("an exception that nobody caught in the thread %s", name, exc_info=fault)


def _unraisable(given: sys.UnraisableHookArgs) -> None:
    if given.exc_value is not None:
        fault: Fault = (given.exc_type, given.exc_value, given.exc_traceback)
        said = given.err_msg or "an exception that nobody could catch"
        log.error("%s: %r", said, given.object, exc_info=fault)

"""A log in memory, for tests that read it, and what must never be read in one."""

import io
import json
import logging
import sys
import threading
from contextlib import contextmanager

from formwright.service import logs

ID = "00112233aabb"
SECRET = "s3cr-et_" * 5 + "abc"  # of 43 characters, as in a token
TOKEN = f"fw_{ID}_{SECRET}"
URL = f"postgresql+psycopg://me:{SECRET}@host:5432/name"


@contextmanager
def logged(format="json", level="info"):
    """A log in memory; everything is as it was before afterwards."""
    names = (*logs.GUESTS, "formwright.test")
    loggers = [logging.getLogger(), *map(logging.getLogger, names)]
    before = [(each, each.level, each.handlers[:], each.propagate) for each in loggers]
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    stream = io.StringIO()
    logs.set_up(format, level, stream)
    try:
        yield stream
    finally:
        logs._handler = None
        logging.captureWarnings(False)
        sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
        for each, old, handlers, propagate in before:
            each.setLevel(old)
            each.handlers[:], each.propagate = handlers, propagate


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def of(stream, logger):
    return [line for line in lines(stream) if line["logger"] == logger]

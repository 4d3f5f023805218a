"""Searches that are run for real with a cheap evaluation, and how they came to their end."""

import io
from dataclasses import replace

from rich.console import Console

from formwright.search import BlockSpec, Board, Measurement, MemoryLog, Result, SearchSpec, drive
from formwright.search.run.pool import SerialPool

SPEC = SearchSpec(trials=24, sampler="random", target="eager")


def values_of(architecture, until=1.0):
    """A pure function of the architecture: more training, more quality, in another order."""
    number = int(architecture.fingerprint()[3:11], 16)
    noise = number // 97 % 31 / 31
    quality = (number % 97 / 97) * until + noise * (1 - until)
    return {"quality": quality, "latency_ms": number % 89 + 1.0, "params": float(number % 83)}


def evaluate(evaluation):
    number = int(evaluation.architecture.fingerprint()[3:11], 16)
    if number % 11 == 0:
        raise RuntimeError(f"diverged in step {number % 7}")
    values = values_of(evaluation.architecture, evaluation.until)
    seconds = {"train": 2.0 * evaluation.until, "compile": 0.5}
    details = {"machine": {"fingerprint": "m"}, "seconds": seconds}
    return Measurement(values, {**details, "proxies": {"odd": float(number % 5), "bad": None}})


def searched(spec=SPEC, evaluate=evaluate, seen=lambda trial: None):
    """The result of a search, whose transitions `seen` saw."""
    log = MemoryLog()
    drive(spec, SerialPool(evaluate), log, seen)
    return Result(spec, tuple(log.history()))


def transitions(spec=SPEC, evaluate=evaluate):
    events = []
    searched(spec, evaluate, events.append)
    return events


def with_block(trial, name):
    """The trial with a block of that name, which nobody has."""
    (stage,) = trial.architecture.stages
    layer = replace(stage.layers[0], mixer=BlockSpec(name))
    stage = replace(stage, layers=(layer, *stage.layers[1:]))
    return replace(trial, architecture=replace(trial.architecture, stages=(stage,)))


def fed(events, spec=SPEC, step=2.0):
    """A board that saw an event every `step` seconds, and when it saw the last one."""
    board = Board(spec)
    for at, event in enumerate(events):
        board.add(event, step * at)
    return board, step * (len(events) - 1)


def text(renderable, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue()

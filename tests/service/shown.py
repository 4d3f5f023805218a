"""What the tests of the page look at: searches with trials that could have been, untrained."""

import random
from functools import cache

from formwright.search import SPACES, TASKS, Measurement, SearchSpec, Trial
from formwright.service.records import SearchState

SPEC = SearchSpec(trials=60, objectives=("quality", "latency_ms", "params"), target="eager")
MACHINE = {"fingerprint": "m1:4f0c", "cpu": "Some CPU at 2.5 GHz", "cores": 2}
DECLINED = [
    ("layers.2.mixer", "softmax", "attention.py:88", "scale_not_constant", "it is a tensor"),
    ("head", "mean", "classes.py:31", "mean_read", "another operator reads the mean"),
]


def report():
    """As the compiler writes it."""
    names = ("where", "op", "source", "code", "reason")
    declined = [dict(zip(names, row, strict=True)) for row in DECLINED]
    rows = [
        ("capture", 1, 1, []),
        ("fused_attention", 4, 3, declined[:1]),
        ("norm_equivalence", 9, 7, [declined[1]] * 2),
        ("padding_removal", 0, 0, []),
    ]
    passes = [
        {"name": name, "sites": sites, "rewritten": done, "declined": left, "ms": 1.25 * sites}
        for name, sites, done, left in rows
    ]
    variants = [{"graph": 0, "name": "plain", "state": "compiled"}]
    return {
        "graphs": 1, "graph_hash": "9f3a1c77e01b22d4", "variants": variants,
        "prepared_bytes": 0, "passes": passes,
    }  # fmt: skip


@cache
def architectures(space="metaformer", task="digits", count=40):
    rng, made = random.Random(3), []
    of, signature = SPACES.load(space), TASKS.load(task).signature
    fitted = of.fitted(signature)
    while len(made) < count:
        genes = fitted.sample(rng)
        made.append((genes, fitted.decode(genes, signature)))
    return made


def a_trial(number):
    genes, spec = architectures()[number % len(architectures())]
    return Trial(number, genes, spec)


def measured(number, machine=MACHINE):
    """Better with each number, more or less."""
    rng = random.Random(f"shown {number}")
    params = round(3000 * 1.9 ** rng.uniform(0, 6))
    skill = min(0.35 + 0.05 * (params / 3000) ** 0.45 + number / 400, 0.93)
    quality = max(min(skill + rng.gauss(0, 0.05), 0.995), 0.1)
    values = {
        "quality": quality, "latency_ms": 0.2 + params / 60_000 * rng.uniform(0.6, 1.7),
        "params": params, "flops": 64.0 * params,
    }  # fmt: skip
    details = {
        "machine": machine, "seconds": {"train": rng.uniform(2, 9), "compile": 4.2, "measure": 0.8},
        "report": report(), "steps": 300, "lr": 0.006, "seed": number, "train_loss": 1.2 - quality,
        "data": {"train": 1437, "sha256": "5d41402abc4b2a76b9719d911017c592"},
    }  # fmt: skip
    return Measurement(values, details)


def moves(number):
    """The way of a trial: most succeed, some fail or break a constraint."""
    trial = a_trial(number)
    started = trial.started()
    if number % 11 == 4:
        end = started.failed(f"loss is not finite after {50 + number} steps")
    elif number % 13 == 7:
        end = started.failed("CUDA out of memory")
    elif number % 7 == 5:
        end = started.pruned(f"params is {40_000 + number}, not <= 40000")
    else:
        end = started.succeeded(measured(number))
    return [trial, started, end]


def write(log, first, count):
    for number in range(first, first + count):
        log.append(*moves(number))


def running(store, trials=0, name="", owner="runner", spec=SPEC):
    """A search that runs, and its log."""
    made = store.create_search(spec, "", name)
    claim = store.claim(owner, 3600)
    assert claim.search.id == made.id
    log = store.log(claim)
    write(log, 0, trials)
    return claim, log


def ended(store, trials, name="", state=SearchState.SUCCEEDED, error="", spec=SPEC):
    claim, _ = running(store, trials, name, spec=spec)
    store.finish(claim, state, error)
    return claim.search.id

"""`report_page`: a search as one page that needs nothing else, neither a server nor a network.

The page says so itself: its content security policy allows the scripts that are in it, by their
hashes, and no request. Next: `report.html`; `../findings.py`, which computes what is on it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from .... import __version__
from ...front import same_machine
from ...objective import METRICS
from ...result import Result
from ...trial import TrialState
from ...whole import write_whole
from ..command import command
from ..findings import DRAWN, LISTED, Findings, listed
from ..growths import Beside
from ..panels import name_of
from ..tables import number
from .assets import asset
from .templates import templates

SCRIPTS = ("plotly.min.js", "figures.js")
POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


def report_page(
    result: Result, beside: Beside = (), *, title: str = "", state: str = "", name: str = ""
) -> str:
    """HTML of what the search has found: its front, how it came to it, what to think of it; beside
    other searches if there are any. `title` is for people, `name` that of the search in a service,
    `state` where it is. Raises SpecError where the searches do not compare."""
    from markupsafe import Markup  # jinja2's own

    scripts = [asset(script) for script in SCRIPTS]
    findings = Findings.of(result, beside)
    return (
        templates()
        .get_template("report.html")
        .render(
            found=findings,
            tiles=list(_tiles(findings)),
            undrawn=_undrawn(findings),
            title=title or f"{result.spec.space} on {result.spec.task}",
            state=state,
            name=name,
            version=__version__,
            command=command(result.spec),
            spec=result.spec.to_json(),
            drawn=DRAWN,
            most=LISTED,
            listed=listed(findings.front),
            policy=POLICY.format(scripts=" ".join(map(_hash, scripts))),
            style=Markup(asset("page.css")),
            scripts=list(map(Markup, scripts)),
            drawing_of=Markup,
        )
    )


def save_report(
    result: Result,
    path: str | Path,
    beside: Beside = (),
    *,
    title: str = "",
    state: str = "",
    name: str = "",
) -> Path:
    """Writes `report_page`, whole or not at all. Raises OSError beside what it raises."""
    return write_whole(path, report_page(result, beside, title=title, state=state, name=name))


def _tiles(found: Findings) -> Iterator[tuple[str, str, str]]:
    """What one sees first: name, number, what more is to be said."""
    result = found.result
    ended = sum(trial.state.final for trial in result.trials)
    yield "trials ended", number(float(ended)), ", ".join(f"{n} {what}" for what, n in found.counts)
    if not found.front:
        return
    yield "on the front", str(len(found.front)), f"of {len(result.succeeded)} that succeeded"
    for metric, trials in found.orders[:-1][:3]:
        best = trials[0]
        said = ", ".join(filter(None, (METRICS[metric].unit, f"trial {best.number}")))
        yield f"best {name_of(METRICS[metric])}", number(best.values[metric]), said
    if found.hypervolume is not None:
        said = "share of the box, estimated" if found.estimated else "share of the box"
        about = "about " if found.estimated else ""
        yield "hypervolume", f"{about}{found.hypervolume:.3f}", said


def _undrawn(found: Findings) -> str:
    """Trials that are in no figure of the front, in words."""
    counts = dict(found.counts)
    succeeded = counts.pop(TrialState.SUCCEEDED.lower(), 0)
    here = same_machine(found.result.succeeded, found.result.metrics, found.machine)
    words = [f"{count} {state}" for state, count in counts.items()]
    if elsewhere := succeeded - len(here):
        words.append(f"{elsewhere} of other machines")
    return ", ".join(words) or "none"


def _hash(script: str) -> str:
    return f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'"

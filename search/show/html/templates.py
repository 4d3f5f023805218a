"""Templates with everything escaped, and the words that they share with what a terminal shows.

The one file that knows jinja2. Next: `parts.html`; `../tables.py`, whose words these are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ....extras import needs
from ..tables import arrow, clock, number, what
from .assets import HERE

if TYPE_CHECKING:
    from jinja2 import Environment


def templates(*folders: Path) -> Environment:
    """Those of the `folders`, and those of this one. A name that is not known is an error, not
    nothing. Raises MissingExtraError where jinja2 is not installed."""
    with needs("report", "a page for a browser"):
        from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader([*folders, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(number=_number, clock=clock, arrow=arrow, what=what)
    made.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    return made


def _number(value: float) -> str:
    """As everywhere, but with room for digits: no powers of ten below a million.

    >>> _number(20000.0), _number(21051.4), _number(0.98765)
    ('20,000', '21,051', '0.9877')
    """
    return number(float(round(value)) if 1e3 <= abs(value) < 1e6 else value)

"""The graph compiler: `torch.compile(model, backend="formwright")`.

It knows torch and nothing else of this package. The whole flow is one function,
`compile_graph` in `backend.py`: capture -> pipeline -> dispatch -> lowering.
Next: `pipeline.py` (the ordered list of passes), `dispatch.py` (what is decided at run time).
"""

if __name__ != "formwright.compiler":
    raise ImportError("import formwright.compiler, not compiler")

from ..extras import needs
from .errors import (
    ConversionError,
    FormwrightError,
    FormwrightWarning,
    OptionError,
    UnknownNameError,
)

with needs("compiler", __name__):
    from .backend import backend
    from .conversion import convert
    from .explain import explain
    from .export import transform
    from .options import Options
    from .prepared import refresh
    from .report import Decline, PassReport, Reason, Report, collect

__all__ = [
    "backend",
    "convert",
    "explain",
    "collect",
    "refresh",
    "transform",
    "Options",
    "Report",
    "PassReport",
    "Decline",
    "Reason",
    "ConversionError",
    "FormwrightError",
    "FormwrightWarning",
    "OptionError",
    "UnknownNameError",
]

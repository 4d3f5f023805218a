"""What the extras of this package install, and one line for whoever uses a part without its extra.

It must not import any of it. Next: `errors.py`; pyproject.toml declares the extras.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import FormwrightError

# what is imported -> the distribution that has it
GUESTS = {
    "alembic": "alembic",
    "cryptography": "cryptography",
    "google": "protobuf",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "optuna": "optuna",
    "packaging": "packaging",
    "plotext": "plotext",
    "plotly": "plotly",
    "prometheus_client": "prometheus-client",
    "psutil": "psutil",
    "psycopg": "psycopg",
    "ray": "ray",
    "safetensors": "safetensors",
    "shtab": "shtab",
    "sklearn": "scikit-learn",
    "sqlalchemy": "sqlalchemy",
    "starlette": "starlette",
    "torch": "torch",
    "uvicorn": "uvicorn",
    "yaml": "pyyaml",
}


class MissingExtraError(FormwrightError, ModuleNotFoundError):
    """What an extra of this package installs is not there; the message names the extra."""


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Turns the failed import of a guest into a line that says which extra to install. Where one
    of these stands inside another, the outer one knows better what is wanted. Raises
    MissingExtraError.

    >>> with needs("compiler", "the compiler"):
    ...     raise ModuleNotFoundError("No module named 'torch'", name="torch")
    Traceback (most recent call last):
    formwright.extras.MissingExtraError: the compiler needs torch, which is not installed; try: \
pip install 'formwright[compiler]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        guest = GUESTS.get((error.name or "").partition(".")[0])
        if guest is None:
            raise
        said = f"{what} needs {guest}, which is not installed"
        try_this = f"{said}; try: pip install 'formwright[{extra}]'"
        raise MissingExtraError(try_this, name=error.name) from error

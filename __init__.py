"""Formwright: a graph compiler for Transformers, and an architecture search service over them.

This package root only names its parts. It must not import torch, ray or grpc: the parts do, and
are loaded on first use (PEP 562).
Next: `formwright.compiler`, the backend behind `torch.compile(model, backend="formwright")`;
`formwright.search`; `formwright.service`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# name -> the module that owns it
_LAZY = {
    "explain": "formwright.compiler",
    "refresh": "formwright.compiler",
    "transform": "formwright.compiler",
    "Options": "formwright.compiler",
    "Report": "formwright.compiler",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'formwright' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])

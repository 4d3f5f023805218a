"""The examples in docstrings are true. (`--doctest-modules` would import a second copy of each
module, under its bare name; so we walk the package.)"""

import doctest
import importlib
import pkgutil

import pytest

import formwright.compiler
import formwright.search
import formwright.service

PARTS = (formwright.compiler, formwright.search, formwright.service)
MODULES = ["formwright.errors", "formwright.extras"] + [
    m.name for part in PARTS for m in pkgutil.walk_packages(part.__path__, part.__name__ + ".")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name):
    result = doctest.testmod(importlib.import_module(name), raise_on_error=False)

    assert result.failed == 0


def test_there_are_some():
    assert "formwright.compiler.options" in MODULES

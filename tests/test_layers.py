"""The house rules that a machine can check: who may import whom, and how long a file may be."""

import ast
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("compiler", "search", "service")
LONGEST = 350

# left may import right, never the reverse
MAY_IMPORT = {
    "compiler": {"compiler"},
    "search": {"compiler", "search"},
    "service": {"search", "service"},
}
# guest -> the files that may import it (a folder ends in /)
ONLY = {
    "ray": ("search/run/ray_look.py", "search/run/ray_pool.py"),
    "optuna": (
        "search/propose/optuna_study.py",
        "search/propose/study_draft.py",
        "search/propose/study_export.py",
        "search/propose/study_tables.py",
        "search/propose/study_writer.py",
        "search/propose/tpe.py",
        "search/propose/nsga2.py",
    ),
    "jinja2": ("search/show/html/templates.py",),
    "plotly": ("search/show/html/assets.py",),
    "matplotlib": ("search/show/picture.py", "search/show/panels.py"),
    "prometheus_client": ("service/metrics.py",),
    "sqlalchemy": ("service/store/",),
    "cryptography": ("service/certs.py", "service/checks/certificates.py"),
    "grpc": (
        "service/client/",
        "service/testing_unit.py",
        "service/guard.py",
        "service/health.py",
        "service/host.py",
        "service/probe.py",
        "service/server.py",
        "service/servicer.py",
        "service/status.py",
        "service/tls.py",
        "service/wire/",
    ),
    "starlette": ("service/web/",),
    "uvicorn": ("service/web/site.py",),
    "torch._": ("compiler/torch_compat.py", "compiler/torch_inductor.py"),
}


def sources():
    return [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]


@cache
def nodes(path):
    """Of the syntax tree of a file, itself first; several tests look at each."""
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def imports(path):
    """`(module, names)` of every import in a file, relative ones resolved from the root."""
    package = path.relative_to(ROOT).parent.parts
    for node in nodes(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            yield ".".join((*base, *filter(None, [node.module]))), [a.name for a in node.names]


def attributes(path):
    """Dotted names such as `torch._dynamo` that are used without an import."""
    for node in nodes(path):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way(path):
    part = path.relative_to(ROOT).parts[0]
    for module, _ in imports(path):
        top = module.split(".")[0]
        assert top not in PARTS or top in MAY_IMPORT[part], f"{part} imports {module}"
        assert top != "formwright", f"inside the package imports are relative: {module}"


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_service_uses_what_the_search_exports(path):
    if path.relative_to(ROOT).parts[0] == "service":
        for module, _ in imports(path):
            assert not module.startswith("search."), f"{module} is not exported by the search"


def test_one_file_of_the_search_knows_the_compiler():
    knows = {
        str(path.relative_to(ROOT))
        for path in sources()
        if path.relative_to(ROOT).parts[0] == "search"
        and any(module.split(".")[0] == "compiler" for module, _ in imports(path))
    }
    assert knows == {"search/evaluate/latency.py"}


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_guests_stay_in_their_files(path):
    place = str(path.relative_to(ROOT))
    used = {module for module, _ in imports(path)} | set(attributes(path))
    for guest, files in ONLY.items():
        here = any(place == f or (f.endswith("/") and place.startswith(f)) for f in files)
        for name in used:
            is_guest = (
                name.startswith(guest) if guest.endswith("_") else name.split(".")[0] == guest
            )
            assert here or not is_guest, f"{place} uses {name}; only {files} may"


@pytest.mark.parametrize(
    "path",
    [
        p
        for d in (*PARTS, "tests", "examples", "benchmarks")
        for p in sorted((ROOT / d).rglob("*.py"))
        if not p.stem.endswith(("_pb2", "_pb2_grpc"))  # generated
    ],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_no_file_is_too_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_read_that_could_run_code(path):
    """What comes from elsewhere is JSON, protobuf, SQL or safetensors. Ray pickles between its own
    processes, and does so by itself."""
    runs = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    assert not {module.partition(".")[0] for module, _ in imports(path)} & runs
    for node in nodes(path):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert "weights_only=True" in ast.unparse(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("eval", "exec", "compile"):
            raise AssertionError(f"{path} line {node.lineno} runs what it is given")


@pytest.mark.parametrize("part", PARTS)
def test_no_exported_name_is_a_module_too(part):
    """Importing the module would put it in the place of what is exported lazily."""
    exported = set(import_module(f"formwright.{part}").__all__)
    assert not exported & {p.stem for p in (ROOT / part).iterdir()} - {"backend", "explain"}


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_it_is(path):
    if path.stem.endswith(("_pb2", "_pb2_grpc")):
        return
    assert ast.get_docstring(nodes(path)[0])


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("service.client", {"torch", "ray", "optuna", "sqlalchemy"}),
        ("service.server", {"torch", "ray", "optuna"}),  # it is up again in a second
        # what a server draws a page with
        ("search.show.figures", {"torch", "numpy", "plotly"}),
        ("search.show.html.templates", {"torch", "numpy", "plotly", "jinja2"}),
    ],
)
def test_what_is_loaded_with_a_module(module, without):
    code = f"import sys, formwright.{module}; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not {name.partition(".")[0] for name in done.stdout.split()} & without


def test_pytest_does_not_put_the_root_on_the_path():
    assert not (ROOT / "conftest.py").exists()
    assert not list((ROOT / "tests").rglob("__init__.py"))

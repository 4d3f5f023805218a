"""The extra `client` brings neither torch nor ray, and whoever lacks an extra is told which."""

import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from formwright.__main__ import COMMANDS, EXTRAS
from formwright.extras import GUESTS

ROOT = Path(__file__).resolve().parents[2]
# what is declared today; what was written when the package was installed may be older
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OURS = PROJECT["optional-dependencies"]


def declared(name, extra):
    """What a distribution requires."""
    if name != PROJECT["name"]:
        return metadata.requires(name) or []
    return PROJECT["dependencies"] + (OURS[extra] if extra else [])


def closure(*extras):
    """Every distribution that `pip install formwright[extras]` brings."""
    todo = [(PROJECT["name"], extra) for extra in ("", *extras)]
    done = set()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in done:
            continue
        done.add((name, extra))
        for requirement in map(Requirement, declared(name, extra)):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                found = canonicalize_name(requirement.name)
                todo += [(found, wanted) for wanted in ("", *requirement.extras)]
    return {name for name, _ in done}


@cache
def modules(*extras):
    """What can be imported then, beside the standard library."""
    names = closure(*extras)
    return {
        module
        for module, distributions in metadata.packages_distributions().items()
        if names & set(map(canonicalize_name, distributions))
    } | {"formwright"}


BLOCK = """
import sys
from importlib.abc import MetaPathFinder

allowed = set(sys.argv.pop(1).split(",")) | sys.stdlib_module_names

class Block(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and not top.startswith("_sysconfigdata"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
"""


def only_with(extras, code, *arguments, **given):
    """Runs code where nothing but these extras can be imported."""
    command = [sys.executable, "-P", "-c", BLOCK + code, ",".join(modules(*extras)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **given)


def formwright(extras, *arguments, **given):
    code = "from formwright.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    return only_with(extras, code, *arguments, **given)


def test_what_a_client_installs():
    client = closure("client")

    assert {"rich", "grpcio", "protobuf"} <= client
    assert not client & {"torch", "numpy", "ray", "optuna", "sqlalchemy", "alembic", "psutil"}
    assert not closure() & {"grpcio", "protobuf", "numpy"}


def test_each_extra_has_what_its_part_needs():
    assert closure("compiler") < closure("search") < closure("service")
    assert closure("client") < closure("service")
    assert "torch" in closure("compiler")
    assert "ray" not in closure("compiler")


def test_the_guests_are_what_the_extras_declare():
    wanted = {
        canonicalize_name(Requirement(text).name)
        for extra in ("compiler", "search", "report", "client", "service", "postgresql")
        for text in OURS[extra]
    }
    names = {canonicalize_name(name) for name in GUESTS.values()}

    # the last has the messages of errors, in the namespace of protobuf
    assert names == wanted - {"formwright", "googleapis-common-protos"}
    assert {EXTRAS[beginning] for beginning in EXTRAS} <= set(OURS)
    for module, _, _ in COMMANDS.values():
        assert any(module.startswith(beginning) for beginning in EXTRAS)


def test_a_client_works_with_its_extra_alone(server):
    code = """
import formwright.service as service
from formwright.search import SearchSpec

for name in service.__all__:
    if name not in ("serve", "backup", "restore"):
        getattr(service, name)
with service.Client(sys.argv[1]) as client:
    counts = {"objectives": ("params", "flops"), "sampler": "random"}
    made = client.submit(SearchSpec(trials=500, **counts))
    assert client.plan(made.spec).samples[0].fingerprint()
    assert client.cancel(made.id).id == made.id
    assert list(client.watch(made.id))
    assert made.id in {search.id for search in client.searches()}
    assert client.best(made.id) is not None
    list(client.trials(made.id))
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
    done = only_with(["client"], code, server)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & {"torch", "numpy", "ray", "optuna", "sqlalchemy"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "--help"],
        ["submit", "--trials=1", "--objectives", "params", "--sampler=random", "--watch"],
        ["submit", "--dry-run"],
        ["searches"],
        ["searches", "-o", "yaml"],
        ["best"],
        ["best", "--all", "-o", "csv"],
        ["trials"],
        ["pareto"],
        ["spaces"],
        ["config"],
        ["completion", "bash"],
    ],
    ids=" ".join,
)
def test_the_commands_of_a_client(server, arguments):
    asks = arguments[0] in ("submit", "searches", "best", "trials", "pareto")
    done = formwright(["client"], *arguments, *(["--server", server] if asks else []))

    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr == ""


def test_the_doctor_of_a_client(server):
    done = formwright(["client"], "doctor", "--server", server)

    assert "is SERVING" in done.stdout
    assert "the store needs sqlalchemy" in done.stdout.replace("\n", "")


@pytest.mark.parametrize(
    ("extras", "arguments", "extra"),
    [
        (["client"], ["serve"], "service"),
        (["client", "compiler"], ["scheduler", "--database", "x.db"], "service"),
        (["client"], ["backup", "x.db"], "service"),
        (["client"], ["prune", "--older-than", "1d"], "service"),
        (["client"], ["blocks"], "search"),
        (["client"], ["describe", "{}"], "search"),
        (["client"], ["compile-report", "a:b"], "compiler"),
        ([], ["searches"], "client"),
        ([], ["submit"], "client"),
        ([], ["completion", "bash"], "client"),
        ([], ["doctor"], "client"),
        (["compiler"], ["best"], "client"),
    ],
    ids=str,
)
def test_a_command_without_its_extra_is_one_line(tmp_path, extras, arguments, extra):
    done = formwright(extras, *arguments, cwd=tmp_path)

    assert done.returncode == 2
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []
    assert done.stderr.startswith(f"formwright {arguments[0]}: it needs ")
    assert done.stderr.endswith(f"try: pip install 'formwright[{extra}]'\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("extras", "statement", "says"),
    [
        ([], "import formwright.compiler", "formwright.compiler needs torch"),
        ([], "import formwright.compiler", "formwright[compiler]"),
        ([], "import formwright.compiler.backend", "formwright[compiler]"),
        ([], "import formwright; formwright.explain", "formwright[compiler]"),
        ([], "from formwright.search import run_search", "formwright.search.run_search needs"),
        ([], "from formwright.search import run_search", "formwright[search]"),
        ([], "from formwright.search import TASKS; TASKS.load('recall')", "formwright[search]"),
        ([], "from formwright.service import Client", "formwright[client]"),
        (["client"], "from formwright.service import serve", "formwright[service]"),
        (["client"], "from formwright.service import restore", "formwright[service]"),
        (["client"], "import formwright.service.store", "the store needs sqlalchemy"),
        (
            ["compiler"],
            "from formwright.search import SAMPLERS; SAMPLERS.load('tpe')",
            "the sampler 'tpe' needs optuna, which is not installed; try: "
            "pip install 'formwright[search]'",
        ),
    ],
    ids=str,
)
def test_a_part_without_its_extra_says_which(extras, statement, says):
    code = f"""
from formwright.extras import MissingExtraError
try:
    {statement}
except MissingExtraError as error:
    assert isinstance(error, ImportError)
    print(error)
"""
    done = only_with(extras, code)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout

"""What the files in `deploy/` and docs/operations.md call is there: commands, options, settings,
extras, ports and paths."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from formwright.__main__ import COMMANDS, parser_of
from formwright.service.configured import read_file
from formwright.service.host import DRAIN_S, LAME_S
from formwright.service.settings import PORT, SETTINGS
from formwright.service.supervisor import LETTING_GO_S

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VARIABLES = {setting.variable for setting in SETTINGS.values()}
TEXTS = [DEPLOY / "README.md", ROOT / "docs" / "operations.md"]


def text(name):
    """A file with its broken lines joined, without comments."""
    joined = (DEPLOY / name).read_text(encoding="utf-8").replace("\\\n", " ")
    return "\n".join(line for line in joined.splitlines() if not line.startswith("#"))


def instructions(kind):
    """Of the Containerfile, the last stage's last where it matters."""
    return re.findall(rf"^\s*{kind} +(.*)$", text("Containerfile"), re.MULTILINE)


def directives(name):
    """Of the unit."""
    return re.findall(rf"^{name}=(.*)$", text("formwright.service"), re.MULTILINE)


def check_command(words):
    """That `formwright` takes them."""
    assert words[0] in COMMANDS, words
    parser_of(words[0]).parse_args(words[1:])


def commands(path):
    """Every line of a code block that begins with `formwright`, as words."""
    shown = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for block in re.findall(r"^```\w*\n(.*?)^```", shown, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            line = line.removeprefix("$ ").strip()
            while re.match(r"[A-Z_]+=\S* ", line):  # variables
                line = line.partition(" ")[2]
            line = line.removeprefix("podman exec formwright ")
            if line.startswith("formwright "):
                words = shlex.split(line.split(" | ")[0].split(" && ")[0], comments=True)
                yield words[1 : words.index(">")] if ">" in words else words[1:]


# the image


def test_what_is_copied_is_the_package():
    copied = {word for row in instructions("COPY") for word in row.split()[:-1]}
    copied -= {"--from=build", "/opt/formwright"}
    assert all((ROOT / name).exists() for name in copied)
    modules = {path.name for path in ROOT.glob("*.py")} | {"compiler", "search", "service"}
    assert copied == modules | {
        "pyproject.toml",
        "constraints.txt",
        "README.md",
        "LICENSE",
        "py.typed",
    }


def test_what_is_installed_is_declared():
    (install,) = re.findall(r"pip install (.*)$", text("Containerfile"), re.MULTILINE)
    assert install == "-c constraints.txt '.[service,postgresql]'"
    assert {"service", "postgresql"} <= set(PROJECT["optional-dependencies"])


def test_the_image_runs_a_server_as_nobody():
    (user,) = instructions("USER")
    assert re.search(rf"useradd .*{user}", text("Containerfile"))
    assert instructions("ENTRYPOINT") == ['["formwright"]']
    check_command(eval(instructions("CMD")[-1]))
    (health,) = re.findall(r"HEALTHCHECK .*CMD (\[.*\])", text("Containerfile"))
    assert eval(health)[0] == "formwright"
    check_command(eval(health)[1:])


def test_variables_and_ports_of_the_image():
    given = dict(re.findall(r"(\w+)=(\S+)", " ".join(instructions("ENV"))))
    ours = {name: value for name, value in given.items() if name.startswith("FORMWRIGHT_")}
    assert set(ours) <= VARIABLES
    assert ours["FORMWRIGHT_SERVER"] == f"localhost:{PORT}"
    assert str(PORT) in instructions("EXPOSE")[0].split()
    assert instructions("VOLUME") == ["/data"]
    assert Path(ours["FORMWRIGHT_DATABASE"]).parent == Path("/data")
    for name in ("CERTIFICATE", "KEY", "CA"):  # mounted, so not a part of it
        assert ours[f"FORMWRIGHT_{name}"].startswith("/run/secrets/")
        assert Path(ours[f"FORMWRIGHT_{name}"]).name in text("README.md")


# the unit


def test_the_unit_calls_what_is_there():
    (command,) = directives("ExecStart")
    path, *words = shlex.split(command)
    assert Path(path).name in PROJECT["scripts"]
    check_command(words)
    names = [row.partition("=")[0] for row in directives("Environment")]
    assert {name for name in names if name.startswith("FORMWRIGHT_")} <= VARIABLES
    loaded = {row.partition(":")[0] for row in directives("LoadCredential")}
    used = set(re.findall(r"=%d/(\S+)", text("formwright.service")))
    assert used == loaded
    assert {name for name in loaded if name not in text("README.md")} == set()


def test_the_unit_waits_for_a_server_that_drains():
    (patience,) = directives("TimeoutStopSec")
    assert float(patience) > LAME_S + DRAIN_S + LETTING_GO_S
    assert directives("KillMode") == ["mixed"]  # the server tells its scheduler


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path):
    unit = tmp_path / "formwright.service"
    shown = (DEPLOY / "formwright.service").read_text(encoding="utf-8")
    unit.write_text(shown.replace("/opt/formwright/bin/formwright", sys.executable))
    command = ["systemd-analyze", "verify", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# settings and pages


@pytest.mark.parametrize("all_of_them", [False, True])
def test_the_settings_can_be(tmp_path, monkeypatch, all_of_them):
    """With what stands behind a # too."""
    shown = (DEPLOY / "formwright.toml").read_text(encoding="utf-8")
    path = tmp_path / "formwright.toml"
    path.write_text(re.sub(r"^# (\w+ = )", r"\1", shown, flags=re.M) if all_of_them else shown)
    monkeypatch.setenv("FORMWRIGHT_CONFIG", str(path))
    name, values = read_file()
    assert name == str(path)
    assert len(values) >= (5, 10)[all_of_them]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_commands_that_are_shown(path, capsys):
    found = list(commands(path))
    for words in found:
        check_command(words)
    assert len(found) > 1
    shown = path.read_text(encoding="utf-8")
    named = set(re.findall(r"`formwright ([a-z]+)", shown))
    assert named <= set(COMMANDS)
    assert set(re.findall(r"\bFORMWRIGHT_[A-Z_]+\b", shown)) <= VARIABLES


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_files_that_are_linked(path):
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert "://" in link or os.path.exists(path.parent / link), link
    for name in re.findall(r"`(deploy/[\w./-]+)`", path.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name


def test_keys_of_settings_that_are_named():
    keys = {setting.key for setting in SETTINGS.values() if setting.key}
    shown = TEXTS[1].read_text(encoding="utf-8")
    assert set(re.findall(r"`((?:serve|client)\.\w+)`", shown)) <= keys

"""The scripts of `formwright completion`, in a real shell where there is one."""

import re
import shutil
import subprocess
import sys

import pytest

from formwright.__main__ import COMMANDS, parser_of
from formwright.search import METRICS, SPACES

TRY = r"""
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9; COMP_KEY=9
COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
[[ $(complete -p formwright) =~ -F\ ([^ ]+) ]]
"${BASH_REMATCH[1]}" formwright "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
(( ${#COMPREPLY[@]} )) && printf '%s\n' "${COMPREPLY[@]}" || true
"""


def script(shell):
    command = [sys.executable, "-P", "-m", "formwright", "completion", shell]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """What bash offers for words, of which the last is being typed."""
    path = tmp_path_factory.mktemp("completion") / "formwright.bash"
    path.write_text(script("bash"))

    def offered(*words, **given):
        bash = ["bash", "--norc", "-c", TRY, "bash", str(path), "formwright", *words]
        done = subprocess.run(bash, capture_output=True, text=True, timeout=60, **given)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.split()

    return offered


def test_commands(complete):
    assert set(complete("")) == {*COMMANDS}
    assert complete("sub") == ["submit"]
    assert set(complete("s")) == {name for name in COMMANDS if name.startswith("s")}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command(complete, command):
    options = {text for action in parser_of(command)._actions for text in action.option_strings}

    assert set(complete(command, "--")) == {text for text in options if text.startswith("--")}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["searches", "-o", ""], {"table", "json", "yaml", "csv"}),
        (["searches", "--output", "j"], {"json"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        (["submit", "--space", ""], {*SPACES.names()}),
        (["submit", "--space", "hyb"], {"hybrid_mamba"}),
        (["submit", "--objectives", "quality", "par"], {"params"}),
        (["best", "--objectives", ""], {*METRICS}),
        (["submit", "--sampler", "tp"], {"tpe"}),
    ],
    ids=lambda v: " ".join(sorted(v) if isinstance(v, set) else v),
)
def test_what_an_option_may_be(complete, words, offered):
    assert set(complete(*words)) == offered


def test_files(complete, tmp_path):
    (tmp_path / "spec.json").write_text("{}")
    (tmp_path / "folder").mkdir()

    assert complete("submit", "-f", "sp", cwd=tmp_path) == ["spec.json"]
    assert [w.rstrip("/") for w in complete("keep", "--to", "", cwd=tmp_path)] == ["folder"]


def test_a_setting_that_cannot_be_stops_no_shell(tmp_path):
    (tmp_path / "formwright.toml").write_text("[serve")
    command = [sys.executable, "-P", "-m", "formwright", "completion", "bash"]

    assert subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=120).returncode == 0


def test_it_loads_nothing_slow():
    code = """
        import sys
        from formwright.__main__ import main
        main(["completion", "zsh"])
        print(*sorted({name.split(".")[0] for name in sys.modules}))
    """
    lines = [line.strip() for line in code.splitlines()]
    command = [sys.executable, "-c", "\n".join(lines)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    modules = set(loaded.splitlines()[-1].split())

    assert "formwright" in modules
    assert not modules & {"torch", "numpy", "ray", "optuna", "sqlalchemy", "grpc"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_can_read_its_script(shell, tmp_path):
    text = script(shell)
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", text)
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    path = tmp_path / "script"
    path.write_text(text)
    subprocess.run([shell, "-n", str(path)], check=True, timeout=60)


def test_a_shell_that_is_not_known_is_one_line():
    command = [sys.executable, "-P", "-m", "formwright", "completion", "csh"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert done.returncode == 2
    assert done.stderr.startswith("formwright completion: argument shell: invalid choice: 'csh'")

"""What is installed is what is in the folders, and the wheel holds nothing else."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_package_list_is_the_folders():
    folders = {"formwright"}
    for part in ("compiler", "search", "service"):
        for init in (ROOT / part).rglob("__init__.py"):
            folders.add(".".join(("formwright", *init.parent.relative_to(ROOT).parts)))

    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders


def test_the_version_is_the_same_everywhere():
    import formwright

    assert formwright.__version__ == PROJECT["project"]["version"]


def test_the_pins_are_inside_the_declared_ranges():
    from packaging.requirements import Requirement

    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    extras = PROJECT["project"]["optional-dependencies"].values()
    declared = [*PROJECT["project"]["dependencies"], *(r for extra in extras for r in extra)]
    for text in declared:
        requirement = Requirement(text)
        if requirement.name in pins:
            assert requirement.specifier.contains(pins[requirement.name]), text


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    copy = tmp_path / "source"  # a `build` folder left in the checkout would leak into the wheel
    # and what others compile in it meanwhile comes and goes
    left_out = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, copy, ignore=left_out)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--disable-pip-version-check", "-w", str(tmp_path), str(copy)],
        check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    modules = {n for n in names if n.endswith(".py")}
    roots = ("__init__", "__main__", "errors", "extras", "parsers", "testing_processes")
    expected = {f"formwright/{name}.py" for name in roots}
    for part in ("compiler", "search", "service"):
        expected |= {f"formwright/{p.relative_to(ROOT)}" for p in (ROOT / part).rglob("*.py")}

    assert modules == expected
    assert "formwright/py.typed" in names
    for folder in ("search/show/html", "service/web/templates", "service/web/static"):
        for page in (ROOT / folder).iterdir():
            if page.suffix in (".html", ".css", ".js", ".svg"):
                assert f"formwright/{page.relative_to(ROOT)}" in names
    entry_points = next(n for n in names if n.endswith("entry_points.txt"))
    text = zipfile.ZipFile(wheel).read(entry_points).decode()
    assert "[torch_dynamo_backends]\nformwright = formwright.compiler.backend:backend" in text
    assert "[console_scripts]\nformwright = formwright.__main__:main" in text

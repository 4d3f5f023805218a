"""Where the value of a setting comes from: option > environment > file > default.

The file is TOML and the first of these, alone: what FORMWRIGHT_CONFIG names (it must be there),
`formwright.toml` in the current folder, `formwright/config.toml` in $XDG_CONFIG_HOME (by default
~/.config). The only place of the service that reads the environment. An empty variable is none.
It must not know what a setting is for. Next: `settings.py`, the table; `cli/config.py` shows all.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import unknown
from .errors import SettingError
from .redact import redacted
from .settings import SETTINGS, Scalar, Setting

HERE = "formwright.toml"
DEFAULT, ENVIRONMENT = "default", "environment"


@dataclass(frozen=True)
class Value:
    """A value and where it came from: `default`, `environment`, or the name of the file."""

    value: Scalar
    source: str
    secret: bool = False

    def shown(self) -> Scalar:
        """Without the password of a URL.

        >>> Value("postgresql://me:secret@host/name", DEFAULT).shown()
        'postgresql://me:***@host/name'
        """
        if not isinstance(self.value, str):
            return self.value
        if self.secret and self.value:
            return "***"
        return redacted(self.value)


def resolve(setting: Setting, file: tuple[str, Mapping[str, Scalar]] | None = None) -> Value:
    """As it is now, where no option says otherwise; `file` is what `read_file` returned. Raises
    SettingError."""
    if text := os.environ.get(setting.variable):
        try:
            return Value(setting.read(text), ENVIRONMENT, setting.secret)
        except ValueError:
            raise SettingError(
                f"{setting.variable}: wanted {setting.wanted()}, got {text!r}"
            ) from None
    if setting.key:
        name, values = read_file() if file is None else file
        if setting.key in values:
            return Value(values[setting.key], name)
    return Value(setting.default, DEFAULT)


def taken(setting: Setting) -> str:
    """A text that whoever started this process has put into the environment, and that no process
    which it starts itself is to see. Raises SettingError."""
    found = str(resolve(setting).value)
    os.environ.pop(setting.variable, None)
    return found


def is_of_folder(value: Value) -> bool:
    """Whether it comes from a file that lies in the current folder, and that nobody has named."""
    return value.source == HERE and not os.environ.get(SETTINGS["config"].variable)


def resolve_all() -> dict[str, Value]:
    """Every setting by its name. Raises SettingError."""
    file = read_file()
    return {name: resolve(setting, file) for name, setting in SETTINGS.items()}


def read_file() -> tuple[str, Mapping[str, Scalar]]:
    """The file's name and its values by their keys; an empty name if there is no file. Raises
    SettingError, which names the file and the key."""
    path = _found()
    if path is None:
        return "", {}
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"cannot read the settings in {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError(f"{path} is not TOML: {error}") from error
    return str(path), _checked(path, data)


def _found() -> Path | None:
    if named := os.environ.get(SETTINGS["config"].variable):
        return Path(named).expanduser()
    user = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config")
    with suppress(RuntimeError):  # who has no home has no file there
        user = user.expanduser()
    for path in (Path(HERE), user / "formwright" / "config.toml"):
        if os.path.exists(path):  # whatever cannot be looked at is not there
            return path
    return None


def _checked(path: Path, data: Mapping[str, Any]) -> dict[str, Scalar]:
    known = {setting.key: setting for setting in SETTINGS.values() if setting.key}
    tables = {key.partition(".")[0] for key in known}
    found: dict[str, Scalar] = {}
    for key, value in _flat(data):
        if key in tables and value == {}:
            continue
        if key not in known:
            raise SettingError(f"{path}: {unknown('setting', key, known)}")
        if not known[key].may_be(value):
            raise SettingError(f"{path}: {key}: wanted {known[key].wanted()}, got {value!r}")
        found[key] = known[key].kind(value)
    return found


def _flat(data: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """`table.name` and its value, for all there is."""
    rows: list[tuple[str, Any]] = []
    for name, value in data.items():
        nested = isinstance(value, Mapping) and value and not before
        rows += _flat(value, f"{name}.") if nested else [(before + name, value)]
    return rows

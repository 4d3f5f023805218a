"""`write_whole`: a file that is there whole or not at all, and errors that name what was asked for.

It must not know what is written. Next: `result.py` and `show/html/report.py`, which save.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path


def write_whole(path: str | Path, text: str) -> Path:
    """Writes the text beside the place and puts it there at once; what was there stays if it
    fails. Raises OSError that names `path`."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    made = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        made.write_text(text, encoding="utf-8")
        return made.replace(path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        made.unlink(missing_ok=True)

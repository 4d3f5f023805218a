"""`write_whole`: a file that is there whole or not at all, and errors that name what was asked for.

It must not know what is written. Next: `result.py` and `show/html/report.py`, which save, as the
service does.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path


def write_whole(path: str | Path, content: str | bytes, mode: int = 0o666) -> Path:
    """Writes it beside the place, to the disk, and puts it there at once; what was there stays if
    that fails. A file of this `mode`, less what the umask takes, is never open to more people than
    that. Raises OSError that names `path`."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    made = path.with_name(f".{path.name}.{os.getpid()}")
    data = content.encode() if isinstance(content, str) else content
    try:
        made.unlink(missing_ok=True)  # of a process of the same number, which was killed
        with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return made.replace(path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        made.unlink(missing_ok=True)

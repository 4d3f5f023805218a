"""`python -m formwright.search.run.ray_look [ADDRESS]`: which Ray is here, and what the cluster at
an address has. One line of JSON; a process of its own, which whoever asks can end.

It starts no Ray, and joins the cluster as a pool would, for a moment. It must not know searches.
Next: `ray_pool.py`.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout

import ray

from ..errors import PoolError
from . import ray_pool


def look(address: str) -> dict[str, object]:
    """`version` is the package's; of a cluster `cpus`, `free` and `nodes`, or `error`."""
    found: dict[str, object] = {"version": ray.__version__}
    if not address:
        return found
    try:
        leave = ray_pool.connect(address)
    except PoolError as error:
        return found | {"error": str(error)}
    try:
        found["cpus"] = ray.cluster_resources().get("CPU", 0)
        found["free"] = ray.available_resources().get("CPU", 0)
        found["nodes"] = sum(bool(node["Alive"]) for node in ray.nodes())
    finally:
        leave()
    return found


if __name__ == "__main__":
    with redirect_stdout(sys.stderr):
        said = look(sys.argv[1] if len(sys.argv) > 1 else "")
    print(json.dumps(said))

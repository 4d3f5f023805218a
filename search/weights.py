"""A trained architecture on disk: `spec.json`, and `model.safetensors` beside it.

Only numbers and text are read back, never code. It must not know how the model was trained. Next:
`model.py`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_model

from .errors import SpecError
from .model import Model, build
from .spec import ArchSpec

SPEC, WEIGHTS = "spec.json", "model.safetensors"


def save(folder: str | Path, spec: ArchSpec, model: Model) -> None:
    """Writes both files, and the folder if it is missing. Tables that are tied are kept once."""
    where = Path(folder)
    where.mkdir(parents=True, exist_ok=True)
    save_model(model, str(where / WEIGHTS), metadata={"architecture": spec.fingerprint()})
    (where / SPEC).write_text(spec.to_json() + "\n", encoding="utf-8")


def load(folder: str | Path) -> tuple[ArchSpec, Model]:
    """What `save` wrote, the model in evaluation. Raises SpecError, naming the file, where one is
    missing or malformed, or the weights are those of another architecture."""
    where = Path(folder)
    try:
        spec = ArchSpec.from_json((where / SPEC).read_text(encoding="utf-8"))
        with torch.random.fork_rng(devices=[]):  # what is drawn is replaced
            model = build(spec)
    except (OSError, UnicodeDecodeError, SpecError) as error:
        raise SpecError(str(error), str(where / SPEC)) from error
    path = str(where / WEIGHTS)
    try:
        with safe_open(path, "pt") as kept:
            whose = (kept.metadata() or {}).get("architecture")
            floats = {kept.get_tensor(name).dtype for name in kept.keys()}  # noqa: SIM118
        if whose != spec.fingerprint():
            raise SpecError(f"no weights of {spec.short()}, but of {whose}", path)
        (dtype, *others) = [dtype for dtype in floats if dtype.is_floating_point]
        if not others:  # else it has several, and each weight its own as it was made
            model.to(dtype)
        load_model(model, path)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        if isinstance(error, SpecError):
            raise
        first = str(error).strip().splitlines()[0]
        raise SpecError(f"no weights of {spec.short()}: {first}", path) from error
    return spec, model.eval()

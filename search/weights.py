"""A trained architecture on disk: `spec.json`, and `model.safetensors` beside it.

Only numbers and text are read back, never code. It must not know how the model was trained. Next:
`model.py`.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
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
    (where / SPEC).write_text(spec.to_json() + "\n")


def load(folder: str | Path) -> tuple[ArchSpec, Model]:
    """What `save` wrote, the model in evaluation. Raises SpecError, naming the file, where one is
    missing or malformed, or the weights are those of another architecture."""
    where = Path(folder)
    try:
        spec = ArchSpec.from_json((where / SPEC).read_text())
    except (OSError, UnicodeDecodeError, SpecError) as error:
        raise SpecError(str(error), str(where / SPEC)) from error
    model = build(spec)
    try:
        load_model(model, str(where / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0]
        raise SpecError(f"no weights of {spec.short()}: {first}", str(where / WEIGHTS)) from error
    return spec, model.eval()

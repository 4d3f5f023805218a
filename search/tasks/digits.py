"""Handwritten digits: 1797 grey images of 8 x 8, ten classes, read from scikit-learn's own files.

"Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998). Small enough that a
candidate trains in seconds, and nothing is downloaded. Importing this must import neither torch
nor scikit-learn: the server lists tasks without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from ..spec import Signature
from .pins import PINS
from .task import Split, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

DARKEST = 16.0  # the images count dark pixels in fields of 4 x 4
MEAN = 0.3  # of all pixels, after scaling


@cache
def load() -> Mapping[str, Split]:
    """Three fifths to train, one each for validation and test; every class in every split by its
    share, always the same images."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images, labels = digits.images / DARKEST - MEAN, digits.target

    def cut(rows: Any, share: float) -> Any:
        return train_test_split(rows, test_size=share, stratify=labels[rows], random_state=0)

    train, rest = cut(range(len(labels)), 0.4)
    validation, test = cut(rest, 0.5)
    rows = {"train": train, "validation": validation, "test": test}
    return {name: _split(images[of], labels[of]) for name, of in rows.items()}


def _split(images: NDArray[Any], labels: NDArray[Any]) -> Split:
    import torch

    pixels = torch.tensor(images, dtype=torch.float32).unsqueeze(1)
    return Split(pixels, torch.tensor(labels, dtype=torch.int64))


TASK = Task(
    name="digits",
    signature=Signature.of_images((1, 8, 8), classes=10),
    load=load,
    pretrain="masked",
    pins=PINS["digits"],
)

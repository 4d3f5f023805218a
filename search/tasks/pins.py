"""Which data the built-in tasks are known to have: `Task.data_hash`, and whose that is.

A hash that is missing is other data under the same name: of a version that nobody has looked at, or
of other settings. Next: `task.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

GENERATED = "NumPy 1.26 to 2.4"  # the streams of its generators

PINS: Mapping[str, Mapping[str, str]] = {
    "compression": {"3f6a7e35320ad213": GENERATED},
    "digits": {"3d54724f7988f3e7": "scikit-learn 1"},
    "fuzzy_recall": {"889237fc08981da4": GENERATED},
    "memorization": {"9143f178f44c84a7": GENERATED},
    "noisy_recall": {"806d23f838ab3af2": GENERATED},
    "python_chars": {
        "2fb515900b2a5cb9": "Python 3.11.2, Debian's",
        "a88e70f9b25a5db0": "Python 3.11.7",
        "45473d25f51157be": "Python 3.12.1",
        "5cf104230589d229": "Python 3.12.10",
        "77832a276487f474": "Python 3.13.0",
    },
    "recall": {"9f87b41d8ef4e2c3": GENERATED},
    "recall_small": {"8af49531ad833053": GENERATED},
    "selective_copying": {"36d6ef114d4f4855": GENERATED},
}

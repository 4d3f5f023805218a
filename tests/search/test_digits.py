"""The digits: shapes, shares, and that nobody sees an image of another split."""

import hashlib

import pytest
import torch

from formwright.search.tasks import TASKS

TASK = TASKS.load("digits")
SIZES = {"train": 1078, "validation": 359, "test": 360}


def test_the_splits():
    splits = TASK.load()

    assert {name: len(split.targets) for name, split in splits.items()} == SIZES
    for split in splits.values():
        assert split.inputs.shape == (len(split.targets), *TASK.signature.image)
        assert split.inputs.dtype == torch.float32
        assert split.targets.dtype == torch.int64


def test_pixels_are_about_zero_with_a_range_of_one():
    for split in TASK.load().values():
        assert abs(split.inputs.mean()) < 0.02
        assert (split.inputs.max() - split.inputs.min()).item() == pytest.approx(1)


def test_every_class_has_its_share_of_every_split():
    for split in TASK.load().values():
        counts = torch.bincount(split.targets)
        assert len(counts) == TASK.signature.classes
        assert counts.min() > 0.9 * counts.max()


def test_no_image_is_in_two_splits():
    seen = [{image.numpy().tobytes() for image in s.inputs} for s in TASK.load().values()]

    assert sum(map(len, seen)) == len(set.union(*seen)) == 1797


def test_the_split_is_pinned():
    """Results of searches are comparable only while this stays."""
    digest = hashlib.sha256()
    for split in TASK.load().values():
        digest.update(split.targets.numpy().tobytes() + split.inputs.numpy().tobytes())

    assert digest.hexdigest()[:16] == "3d54724f7988f3e7"


def test_it_is_loaded_once():
    assert TASK.load() is TASK.load()

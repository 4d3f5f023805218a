"""Every built-in task keeps the contract, and a task says what data it has."""

import subprocess
import sys
import types
from dataclasses import replace

import pytest
import torch

from formwright.search import SpecError
from formwright.search.space import SPACES
from formwright.search.tasks import TASKS, Split
from formwright.search.tasks.pins import PINS
from formwright.search.testing_tasks import TaskContract, found_at

DIGITS = TASKS.load("digits")


class TestBuiltIn(TaskContract):
    beside = tuple(TASKS.names())

    @pytest.fixture(autouse=True, params=TASKS.names())
    def _named(self, request):
        self.task = request.param

    def test_the_data_is_pinned(self):
        """Results of searches are comparable only while this stays; sources of Python differ."""
        record = TASKS.load(self.task).record()

        assert self.task in PINS
        assert record["whose"] or self.task == "python_chars"


def test_naming_spaces_and_tasks_loads_no_torch():
    loads = "import sys\nfrom formwright.search.space import SPACES\n"
    loads += "from formwright.search.tasks import TASKS\n"
    loads += f"for n in {SPACES.names()}: SPACES.load(n)\nfor n in {TASKS.names()}: TASKS.load(n)\n"
    loads += "sys.exit(bool({'torch', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", loads], check=False).returncode == 0


def test_other_data_is_nobodys():
    train, *rest = DIGITS.load().items()
    fewer = {train[0]: replace(train[1], targets=train[1].targets + 1), **dict(rest)}
    other = replace(DIGITS, load=lambda: fewer)

    assert DIGITS.record() == {
        "name": "digits",
        "data": DIGITS.data_hash(),
        "whose": "scikit-learn 1",
    }
    assert other.record()["whose"] == ""
    assert other.data_hash() != DIGITS.data_hash()


@pytest.mark.parametrize("given", [{"score": "f1"}, {"pretrain": "yes"}])
def test_what_is_not_known_is_refused(given):
    (field,) = given
    with pytest.raises(SpecError, match=f"digits.{field}: wanted one of"):
        replace(DIGITS, **given)


# --- the contract itself --------------------------------------------------------------------------


class TestByItsPlace(TaskContract):
    task = "formwright.search.tasks.recall:SMALL"


def broken(**changed):
    """Small recall with other parts of its validation split."""
    splits = dict(TASKS.load("recall_small").load())
    made = {**vars(splits["validation"]), **{name: f(splits) for name, f in changed.items()}}
    return replace(TASKS.load("recall_small"), load=lambda: splits | {"validation": Split(**made)})


@pytest.mark.parametrize(
    ("changed", "law"),
    [
        (
            {"inputs": lambda s: torch.cat([s["validation"].inputs[1:], s["train"].inputs[:1]])},
            "no_example_is_in_two_splits",
        ),
        ({"inputs": lambda s: s["validation"].inputs + 9}, "inputs_are_those_of_the_stem"),
        ({"inputs": lambda s: s["validation"].inputs[:, 1:]}, "inputs_are_those_of_the_stem"),
        (
            {"targets": lambda s: torch.full_like(s["validation"].targets, -100)},
            "targets_are_those_of_the_head",
        ),
        ({"targets": lambda s: s["validation"].targets.int()}, "targets_are_those_of_the_head"),
        ({"targets": lambda s: s["validation"].targets[:, 0]}, "targets_are_those_of_the_head"),
        ({"targets": lambda s: s["validation"].targets.clamp(min=-1)}, "what_is_judged"),
    ],
)
def test_the_contract_sees_what_is_broken(changed, law, monkeypatch):
    place = types.ModuleType("a_broken_task")
    place.TASK = broken(**changed)
    monkeypatch.setitem(sys.modules, place.__name__, place)
    contract = TaskContract()
    contract.task = "a_broken_task:TASK"
    (test,) = [getattr(contract, name) for name in dir(contract) if law in name]
    found_at.cache_clear()

    with pytest.raises(AssertionError):
        test()

"""The generated tasks, by their laws: each is solved here from its inputs alone, token by token."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from formwright.search import ArchSpec, BlockSpec, LayerSpec, SpecError, StageSpec, build
from formwright.search.tasks.compression import compression
from formwright.search.tasks.digits import TASK as DIGITS
from formwright.search.tasks.fuzzy_recall import _codes, _motifs, fuzzy_recall
from formwright.search.tasks.generated import first_of
from formwright.search.tasks.memorization import memorization
from formwright.search.tasks.recall import recall
from formwright.search.tasks.selective_copying import selective_copying
from formwright.search.tasks.task import UNASKED

JUDGED = ("validation", "test")
SOME = 200  # examples of a split that are solved


def rows(split, count=SOME):
    """Inputs and targets as lists."""
    return zip(split.inputs[:count].tolist(), split.targets[:count].tolist(), strict=True)


def shifted(inputs, targets):
    """Whether each target is the next token; the last one's is not among the inputs."""
    return targets[:-1] == inputs[1:]


# --- recall ---------------------------------------------------------------------------------------


def recalled(tokens, keys, content):
    """What recall asks for: at a key that was there before, what stood behind it last."""
    last, asked = {}, []
    for at, token in enumerate(tokens):
        is_key = at % 2 == 0 and token < keys
        asked.append(last.get(token, UNASKED) if is_key else UNASKED)
        if is_key and at + 1 < len(tokens):
            assert keys <= tokens[at + 1] < content
            last[token] = tokens[at + 1]
    return asked


RECALLS = {
    "recall": (recall(), 16, 0),
    "small": (recall(length=64, train=3200, name="recall_small"), 16, 0),
    "wide": (recall(vocabulary=128, length=256, train=100), 128, 0),
    "noisy": (recall(vocabulary=32, noise=0.2, noise_vocabulary=16, name="noisy_recall"), 16, 0.2),
    "noisier": (recall(vocabulary=80, train=100, noise=0.8, noise_vocabulary=16), 64, 0.8),
}


@pytest.mark.parametrize("name", RECALLS)
def test_recall_asks_for_the_value_of_a_key_that_was_there(name):
    task, content, _ = RECALLS[name]
    splits = task.load()
    for split in JUDGED:
        for inputs, targets in rows(splits[split]):
            assert targets == recalled(inputs, content // 2, content)
            assert targets[-1] != UNASKED
    for inputs, targets in rows(splits["train"]):
        assert shifted(inputs, targets)
        assert targets[-1] == recalled(inputs, content // 2, content)[-1]


@pytest.mark.parametrize("name", RECALLS)
def test_noise_is_in_pairs_and_as_much_as_said(name):
    task, content, share = RECALLS[name]
    for split in task.load().values():
        noisy = split.inputs >= content
        pairs = noisy[:, :-1].unflatten(1, (-1, 2))
        assert (pairs[..., 0] == pairs[..., 1]).all()
        assert not noisy[:, -1].any()
        assert not pairs[..., 0].all(1).any()  # a pair at least is a key and its value
        # one of them is never noise
        wanted = share * (1 - 1 / pairs.shape[1])
        assert abs(pairs[..., 0].float().mean() - wanted) < 0.02


def test_what_is_asked_last_is_any_key_that_was_there():
    """However often it was there: keys that were there once are as likely as any other."""
    once = expected = 0
    for inputs, _ in rows(RECALLS["small"][0].load()["train"], 3200):
        keys = inputs[0:-1:2]
        counts = {key: keys.count(key) for key in keys}
        rare = min(counts, key=counts.get)
        once += inputs[-1] == rare
        expected += 1 / len(counts)
    assert abs(once - expected) < 4 * expected**0.5


def test_judged_examples_do_not_depend_on_what_is_trained_on():
    whole, less = recall(), recall(train=800)
    for split in JUDGED:
        assert torch.equal(whole.load()[split].inputs, less.load()[split].inputs)
    assert len(less.load()["train"].inputs) == 800


def test_nothing_is_drawn_from_the_process():
    np.random.seed(1)
    torch.manual_seed(1)
    states = np.random.get_state()[1].copy(), torch.get_rng_state()
    one = selective_copying(train=50, name="a").data_hash()
    assert (np.random.get_state()[1] == states[0]).all()
    assert torch.equal(torch.get_rng_state(), states[1])
    np.random.seed(2)

    assert selective_copying(train=50, name="a").data_hash() == one
    assert selective_copying(train=50, name="b").data_hash() != one


# --- fuzzy recall ---------------------------------------------------------------------------------


def motifs(tokens, keys, padding):
    """The pairs of a sequence and where their values begin: runs of keys, then runs of values."""
    at = next(at for at, token in enumerate(tokens) if token != padding)
    pairs = []
    while at < len(tokens):
        key, value = [], []
        while at < len(tokens) and tokens[at] < keys:
            key.append(tokens[at])
            at += 1
        begins = at
        while at < len(tokens) and keys <= tokens[at] < padding:
            value.append(tokens[at])
            at += 1
        assert key, "padding or a value where a key was to be"
        pairs.append((tuple(key), tuple(value), begins))
    return pairs


def looked_up(tokens, keys, padding):
    """What fuzzy recall asks for: each token of a value whose key was there before. The last token
    of the last value is not among the inputs."""
    asked, known = [UNASKED] * len(tokens), {}
    *before, last = motifs(tokens, keys, padding)
    for key, value, begins in before:
        if key in known:
            assert known[key] == value
            asked[begins - 1 : begins - 1 + len(value)] = value
        known.setdefault(key, value)
    key, value, begins = last
    assert known[key][:-1] == value
    asked[begins - 1 :] = known[key]
    return asked, before


FUZZY = {
    "fuzzy": (fuzzy_recall(), 7, 15, 3),
    "wide": (fuzzy_recall(vocabulary=64, length=256, train=200), 31, 63, 3),
    "short": (fuzzy_recall(length=32, train=200, motif=2), 7, 15, 2),
}


@pytest.mark.parametrize("name", FUZZY)
def test_fuzzy_recall_asks_for_the_value_of_a_motif_that_was_there(name):
    task, keys, padding, motif = FUZZY[name]
    splits = task.load()
    sizes = {"train": set(), "validation": set(), "test": set()}
    for split in splits:
        for inputs, targets in rows(splits[split]):
            asked, pairs = looked_up(inputs, keys, padding)
            if split == "train":
                assert shifted(inputs, targets)
                assert targets[-1] == asked[-1]
            else:
                assert targets == asked
            for key, value, _ in pairs:
                assert len(set(key)) == len(key)
                assert len(set(value)) == len(value)
                sizes[split].add((len(key), len(value)))
    any_size = range(1, motif + 1)
    assert sizes["train"] == {(k, v) for k in any_size for v in any_size}
    assert sizes["validation"] == sizes["test"] == {(motif, v) for v in any_size}


def test_motifs_are_drawn_without_repeats_and_all_alike():
    drawn = _motifs(np.random.default_rng(0), 4, (24, 1000), 3).reshape(-1, 3)
    seen, counts = np.unique(drawn, axis=0, return_counts=True)

    assert len(seen) == 4 * 3 * 2
    assert all(len(set(row)) == 3 for row in seen.tolist())
    assert abs(counts - 1000).max() < 5 * 1000**0.5


def test_the_largest_motifs_and_vocabularies_are_told_apart():
    rng = np.random.default_rng(0)
    keys = _motifs(rng, 62, (50, 40), 10)  # 63^10 is below 2^63, 64^11 is not
    sizes = rng.integers(1, 11, size=(50, 40))
    codes = _codes(keys, sizes, 62)
    wanted = [
        [tuple(key[:size]) for key, size in zip(*row, strict=True)]
        for row in zip(keys.tolist(), sizes.tolist(), strict=True)
    ]
    assert codes.min() > 0
    assert len(np.unique(codes)) == len({key for row in wanted for key in row})

    split = fuzzy_recall(vocabulary=1 << 15, length=24, train=1, name="large").load()["test"]
    assert split.inputs.min() >= 0
    assert split.inputs.max() == (1 << 15) - 1
    assert split.targets.max() > 1 << 14


def test_the_first_with_a_code():
    codes = np.random.default_rng(0).integers(5, size=(50, 9))

    assert first_of(codes).tolist() == [[list(row).index(code) for code in row] for row in codes]


# --- copying, compression, memorization -----------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "vocabulary", "copied"),
    [
        (selective_copying(), 16, 16),
        (selective_copying(vocabulary=64, length=512, train=100, copied=96), 64, 96),
        (selective_copying(vocabulary=8, length=20, train=100, copied=4), 8, 4),
    ],
    ids=["published", "long", "short"],
)
def test_selective_copying_asks_for_the_content_in_its_order(task, vocabulary, copied):
    blank, copy = vocabulary - 2, vocabulary - 1
    gaps = set()
    for split in task.load().values():
        for inputs, targets in rows(split):
            at = inputs.index(copy)
            content = [token for token in inputs[:at] if token != blank]

            assert len(content) == copied
            assert max(content) < blank
            assert inputs[at - 1] == content[-1]
            assert inputs[at + 1 :] == [blank] * copied
            assert targets == [UNASKED] * (len(inputs) - copied) + content
            gaps.add(inputs.index(content[0]))
    assert len(gaps) > 3  # blanks are in random places


def test_compression_asks_for_everything():
    task = compression(vocabulary=32, train=200)
    for split in task.load().values():
        assert torch.equal(split.inputs, split.targets)
        assert (split.inputs[:, -1] == 31).all()
        assert split.inputs[:, :-1].unique().tolist() == list(range(31))


@pytest.mark.parametrize("vocabulary", [256, 512])
def test_memorization_has_one_map(vocabulary):
    keys, insert = (vocabulary - 1) // 2, vocabulary - 1
    value_of = {}
    for split in memorization(vocabulary).load().values():
        for inputs, targets in rows(split, 1280):
            assert set(inputs[1::2]) == {insert}
            assert set(targets[0::2]) == {UNASKED}
            for key, value in zip(inputs[0::2], targets[1::2], strict=True):
                assert 0 <= key < keys <= value < insert
                assert value_of.setdefault(key, value) == value
    assert len(value_of) == len(set(value_of.values())) == keys
    assert [value_of[key] for key in range(keys)] != sorted(value_of.values())


# --- what makes no task ---------------------------------------------------------------------------


STAGE = StageSpec(16, (LayerSpec(BlockSpec.of("pool", size=3), None, BlockSpec("rms")),))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: recall(vocabulary=15), "wanted an even number of each"),
        (lambda: recall(length=63), "wanted an even number of each"),
        (lambda: recall(noise=0.2), "noise below 1 with tokens for it; got 16 keys and values"),
        (lambda: recall(vocabulary=16, noise_vocabulary=16, noise=0.1), "recall.vocabulary"),
        (lambda: ArchSpec.of(DIGITS.signature, (STAGE,), patch=0), "^patch: wanted a positive"),
        (lambda: ArchSpec.of(DIGITS.signature, (STAGE,), patch="2"), "^patch: wanted a positive"),
        (lambda: recall(train=0), "recall.train: wanted a whole number from 1, got 0"),
        (lambda: fuzzy_recall(vocabulary=6), "no motif of 3 tokens in 2 keys"),
        (lambda: fuzzy_recall(length=20), "fuzzy_recall.length"),
        (lambda: fuzzy_recall(vocabulary=True), "fuzzy_recall.vocabulary: wanted a whole number"),
        (lambda: fuzzy_recall(motif=1.0), "fuzzy_recall.motif: wanted a whole number"),
        (lambda: fuzzy_recall(vocabulary=32_769), "vocabulary: wanted 32768 at most, got 32769"),
        (
            lambda: fuzzy_recall(vocabulary=128, motif=11),
            "fuzzy_recall.motif: motifs of up to 11 of 63 keys are too many",
        ),
        (lambda: selective_copying(length=32), "selective_copying.length"),
        (lambda: compression(length=1), "compression.length"),
        (lambda: memorization(vocabulary=4), "memorization.vocabulary"),
    ],
)
def test_sizes_that_make_no_task_are_refused(make, said):
    with pytest.raises(SpecError, match=said):
        make()


def test_more_examples_than_there_are():
    with pytest.raises(SpecError, match="recall has no 1280 examples more that differ"):
        recall(vocabulary=4, length=6, train=10).load()


# --- learning -------------------------------------------------------------------------------------

TINY = recall(vocabulary=8, length=32, train=3200, name="tiny")
STEPS, BATCH, WIDTH = 600, 32, 32
MLP = BlockSpec.of("mlp", hidden=2 * WIDTH, activation="gelu")
CONV = BlockSpec.of("conv", size=3)
ATTENTION = BlockSpec.of(
    "attention", heads=2, kv_heads=2, head_width=16, positions="none", span=1 << 20
)


def accuracy(*mixers):
    """On the validation split, after a short training."""
    layers = tuple(LayerSpec(mixer, None, BlockSpec("rms")) for mixer in mixers)
    torch.manual_seed(0)
    model = build(ArchSpec.of(TINY.signature, (StageSpec(WIDTH, layers),)))
    splits, generator = TINY.load(), torch.Generator().manual_seed(0)
    train, judged = splits["train"], splits["validation"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, STEPS)
    for _ in range(STEPS):
        picked = torch.randint(len(train.inputs), (BATCH,), generator=generator)
        outputs, targets = model(train.inputs[picked]), train.targets[picked]
        loss = F.cross_entropy(outputs.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    asked = judged.targets != UNASKED
    with torch.no_grad():
        right = model(judged.inputs).argmax(-1) == judged.targets
    return right[asked].float().mean().item()


def test_recall_is_learnt_by_attention_and_not_without_looking_back():
    chance = 1 / 4

    assert accuracy(CONV, ATTENTION) > 0.9
    assert accuracy(BlockSpec("identity"), MLP) < chance + 0.05

"""Which layer of a hybrid is what: an even placement of attention and of channel mixers.

The rule behind the 8B hybrid of "An Empirical Study of Mamba-based Language Models" (Waleffe et
al., 2024): attention first, evenly, with state-space layers before the first and behind the last;
then channel mixers evenly over what is left. It must not know what the letters stand for.
Next: `hybrid_mamba.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

MIXER, ATTENTION, CHANNEL = "M", "*", "-"


def even(layers: int, attention: float, channel: float) -> str:
    """A letter for each of `layers`, `attention` and `channel` being their shares of all.

    >>> even(56, 0.07, 0.5)
    'M-M-M--M-M*-M-M-M-M--M*-M-M-M-M-M*--M-M-M-M-M*-M--M-M-M-'
    >>> even(6, 0, 0.5), even(3, 1, 0)
    ('M-M-M-', '***')
    """
    attentions, channels = round(layers * attention), round(layers * channel)
    channels = min(channels, layers - attentions)
    placed = [MIXER] * layers
    for at in _spread(range(layers), attentions, (layers - attentions) / (attentions + 1)):
        placed[at] = ATTENTION
    free = [at for at, letter in enumerate(placed) if letter == MIXER]
    gap = (len(free) - channels) / channels if channels else 0.0
    for at in _spread(free, channels, gap):
        placed[at] = CHANNEL
    return "".join(placed)


def _spread(places: Iterable[int], marks: int, gap: float) -> Iterator[int]:
    """`marks` of the places, each after `gap` others: what is left of a gap is carried on."""
    left = gap
    for at in places:
        if marks and left < 0.5:
            yield at
            marks, left = marks - 1, left + gap
        else:
            left -= 1

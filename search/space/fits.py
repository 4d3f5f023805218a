"""What fits which signature: patches where there are any, mixers where tokens lie and are seen as
they need, stages where tokens may be merged.

Without torch, so mixers are known by name. Next: `metaformer.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import SpecError
from ..signature import PATCHED
from ..spec import Signature

Fits = Callable[[Any, Signature], bool]
"""Whether a choice of a knob means anything there."""

AHEAD = ("manhattan", "simple_attention")  # see later tokens
PLANE = ("manhattan",)  # want two dimensions


def patch_fits(patch: int, signature: Signature) -> bool:
    """Whether it cuts the inputs without a rest. What has no patches has those of one."""
    if signature.stem.name not in PATCHED:
        return patch == 1
    return not any(side % patch for side in signature.sides)


def mixer_misfit(name: str, signature: Signature) -> str:
    """Why a mixer cannot stand there, in words; nothing if it can.

    >>> from ..spec import BlockSpec
    >>> mixer_misfit("simple_attention", Signature.of_tokens(16, 8, head=BlockSpec("language")))
    'simple_attention sees later tokens; the task is causal'
    """
    if name in AHEAD and signature.causal:
        return f"{name} sees later tokens; the task is causal"
    if name in PLANE and len(signature.sides) != 2:
        return f"{name} wants images, not {signature}"
    return ""


def mixer_fits(name: str, signature: Signature) -> bool:
    """Whether a mixer can stand there."""
    return not mixer_misfit(name, signature)


def check_mixers(names: list[str], signature: Signature) -> None:
    """Raises SpecError for the first that cannot stand there."""
    for at, name in enumerate(names):
        if said := mixer_misfit(name, signature):
            raise SpecError(said, f"mixer{at}")


def stages_fit(stages: int, signature: Signature) -> bool:
    """Whether tokens may be merged as often: never where each is asked, or sees no later one."""
    return stages == 1 or not (signature.causal or signature.per_token)


def check_merges(stages: int, patch: int, signature: Signature) -> None:
    """Raises SpecError where the tokens cannot be merged, two (each way) to one, between so many
    stages."""
    if not stages_fit(stages, signature):
        why = "no token sees a later one" if signature.causal else "each token is asked"
        raise SpecError(f"nothing can be merged in {signature}: {why}", "stages")
    scale = (patch if signature.stem.name in PATCHED else 1) * 2 ** (stages - 1)
    if any(side % scale for side in signature.sides):
        raise SpecError(f"{signature} have no {stages} stages of patches of {patch}", "stages")

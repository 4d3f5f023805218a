"""Which small models a large one's latency is added up from.

    skeleton    the same stem, merges, last norm and head, no layers: what every call costs
    opened      what any layer costs once: without one, stem, norm and head are fused
    piece       a layer, or half of one, twice in a plain model of its own (its carrier), and the
                carrier without it: half the difference is what the piece adds

A layer `x + mixer(norm(x))`, `x + channel(norm(x))` is exactly two layers of one block each, so it
is cut in half: there are fewer halves than layers. Where both blocks share a norm it stays whole.
Carriers have a layer of a small channel mixer (below, S), so that they are opened. A mixer that had
a channel mixer behind it has S there too (S M S M S): two pools in a row are fused, and slower than
two by themselves. Carriers do not depend on the task, so layers measured for one serve another. It
must not know how anything is measured. Next: `layer_latency.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..blocks import Site
from ..errors import EvaluationError
from ..layout import lay_out
from ..spec import ArchSpec, BlockSpec, LayerSpec, StageSpec


@dataclass(frozen=True)
class Piece:
    """What one part of an architecture, at `path`, adds: the sum of these multiples of small
    models' latencies."""

    path: str
    terms: tuple[tuple[float, ArchSpec], ...]


def skeleton(spec: ArchSpec) -> ArchSpec:
    """The architecture without its layers."""
    return replace(spec, stages=tuple(replace(stage, layers=()) for stage in spec.stages))


def pieces(spec: ArchSpec) -> Iterator[Piece]:
    """Of the whole architecture, in order; equal layers differ in their path only. Raises SpecError
    for a spec that cannot be laid out, EvaluationError for tokens that lie on no grid of ours."""
    yield Piece("skeleton", ((1.0, skeleton(spec)),))
    sites = [s.site for s in lay_out(spec).stages for _ in s.layers]
    opened = False
    for site, path, layer in zip(sites, spec.paths(), spec.layers, strict=True):
        for name, half in halves(layer):
            small = _small(half, site.width)
            none, one, three = (carrier(site, half.norm, (small,) * n) for n in (0, 1, 3))
            if not opened:
                yield Piece("opened", ((1.5, one), (-1.0, none), (-0.5, three)))
                opened = True
            cut = half.mixer is not None and half.channel is None and layer.channel is not None
            within = (small, half, small, half, small) if cut else (small, half, half)
            full = carrier(site, half.norm, within)
            yield Piece(f"{path}{name}", ((0.5, full), (-0.5, three if cut else one)))


def halves(layer: LayerSpec) -> Iterator[tuple[str, LayerSpec]]:
    """What a layer is cut into, and how each half is called; nothing if it has no blocks. How far a
    scale is from 0 is no matter of time."""
    layer = replace(layer, scale=1.0 if layer.scale else 0.0)
    if layer.mixer is None and layer.channel is None:
        return
    if layer.residual == "parallel" and layer.mixer is not None and layer.channel is not None:
        yield "", layer
        return
    if layer.mixer is not None:
        yield ".mixer", replace(layer, channel=None)
    if layer.channel is not None:
        yield ".channel", replace(layer, mixer=None)


def _small(half: LayerSpec, width: int) -> LayerSpec:
    """A layer of a small channel mixer, as `half` else."""
    block = BlockSpec.of("mlp", hidden=width, activation="gelu")
    return replace(half, mixer=None, channel=block)


def carrier(site: Site, norm: BlockSpec, layers: tuple[LayerSpec, ...]) -> ArchSpec:
    """A plain model whose tokens are as many and as wide as at `site`, and see what they see
    there."""
    if len(site.grid) == 2:
        down, across = site.grid
        sizes = {"channels": 1, "height": down, "width": across, "patch": 1}
        stem = BlockSpec.of("image", **sizes, positions=True)
    elif len(site.grid) == 1:
        sizes = {"vocabulary": 16, "length": site.tokens}
        stem = BlockSpec.of("tokens", **sizes, causal=site.causal, positions=False)
    else:
        raise EvaluationError(f"tokens on a grid of {len(site.grid)} dimensions have no carrier")
    head = BlockSpec.of("classes", classes=2)
    return ArchSpec(stem, (StageSpec(site.width, layers),), norm, head)

"""From a graph to edits: which weights change, and how, so that the norms may be replaced.

The streams of the graph (`../passes/streams.py`) are taken if nothing has to be centred in a call:
tables of embeddings are weights that can be centred too, for good. Every value that a stream begins
with is followed to parameters. A parameter that something else reads as well (a tied head) is held
apart first. It must not touch the model. Next: `edits.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from ..errors import ConversionError, Declined
from ..facts import Facts
from ..graph import where
from ..passes.axes import Unreadable, shape_of
from ..passes.centring import has_no_mean, scaled_writer, writes_with
from ..passes.fold_norms import LINEARS, read_linears
from ..passes.mean_free import operands
from ..passes.norms import Norm, layer_norms
from ..passes.streams import Stream, Streams
from ..report import Reason
from .edits import Absorb, Centre, Edit, Name, Read, Replace, Shorten, Untie
from .owners import Owners

Use = tuple[fx.Node, fx.Node]  # a parameter and the call that reads it


class Plan:
    """The edits that convert `model`, whose one graph is `graph` and takes `real`."""

    def __init__(self, graph: fx.Graph, real: Sequence[Any], model: nn.Module, norm: str) -> None:
        self.model, self.norm, self.graph = model, norm, graph
        self.owners = Owners(graph, real, model)
        self.norms = layer_norms(graph)
        facts = Facts(graph)
        self.streams = Streams(graph, facts, self.norms, tables=True)
        self.facts = facts
        self.axis: dict[fx.Node, int] = {}  # of each parameter that loses its mean
        self.uses: set[Use] = set()  # of those parameters
        self.between: dict[fx.Node, None] = {}  # what is computed of them, and used in their place
        self.read: set[Use] = set()  # of the weights and biases that read a folded norm
        self.scales: list[tuple[Absorb, int]] = []  # each with the axis that is D long
        self.reads: list[Read] = []
        self.replaced: dict[str, Replace] = {}

    def edits(self) -> list[Edit]:
        """All edits in order. Raises ConversionError if a LayerNorm has to stay."""
        refused: dict[str, None] = {}
        if not self.norms:
            raise ConversionError("the model has no LayerNorm over its last axis")
        for stream in self.streams.found():
            try:
                self._take(stream)
            except (Declined, Unreadable) as declined:
                for norm in stream.norms:
                    refused[f"{where(norm.node) or norm.node.name}: {declined}"] = None
        for path, module in self.model.named_modules(remove_duplicate=False):
            if isinstance(module, nn.LayerNorm) and path not in self.replaced and not refused:
                refused[f"{path}: it is not called with these inputs"] = None
        if refused:
            raise ConversionError("a LayerNorm has to stay\n  " + "\n  ".join(refused))
        try:
            apart = self._apart()
        except Declined as declined:
            raise ConversionError(str(declined)) from declined
        changed = [(tuple(self._names(n, self.uses)), axis) for n, axis in self.axis.items()]
        edits: list[Edit] = [*apart, *(absorb for absorb, _ in self.scales), *self.reads]
        edits += [Centre(names[0], axis) for names, axis in changed]
        if self.norm == "crms":
            edits += [Shorten(names, axis) for names, axis in changed]
            edits += [Shorten((absorb.scale,), axis) for absorb, axis in self.scales]
        return [*edits, *self.replaced.values()]

    # --- a stream ---------------------------------------------------------------------------------

    def _take(self, stream: Stream) -> None:
        for norm in stream.norms:
            self.streams.veto(norm, stream)
        if stream.explicit:
            name = stream.explicit[0]
            reason = f"the branch begins with `{name.name}`, whose mean no weight can leave out"
            raise Declined(Reason.MEAN_WRITTEN, reason)
        for node in stream.values:
            if self.streams.is_kept(node):
                for operand, axis in self.streams.free.operands[node]:
                    if operand in self.streams.weights:
                        self._centre(operand, axis, node)
            else:
                self._centre(node, self.streams.free.axis[node], node)
        for norm in stream.norms:
            self._replace(norm)

    def _centre(self, node: fx.Node, axis: int, user: fx.Node) -> None:
        """Let parameters change so that `node` comes without its mean along `axis`."""
        known = self.streams.weights
        self.uses.add((node, user))
        if node.op == "placeholder":
            self.owners.check(node)
            if self.axis.setdefault(node, axis) != axis:
                raise Declined(Reason.OTHER_READERS, f"`{node.name}` is read along two of its axes")
            return
        if node in known:
            self.between[node] = None
        weights = writes_with(node, axis, known, tables=True)
        if weights is not None:
            for i, dim in weights:
                self._centre(node.args[i], dim, node)  # type: ignore[arg-type]
            return
        scaled = scaled_writer(node, axis, known, self.facts)
        if scaled is not None:
            self._scaled(*scaled, node, axis)
            return
        if has_no_mean(node, axis) and self.norm == "rms":
            return
        for operand, own in operands(node, axis):
            self._centre(operand, own, node)

    def _scaled(self, writer: fx.Node, scale: fx.Node, node: fx.Node, axis: int) -> None:
        weights = writes_with(writer, axis, self.streams.weights)
        assert weights is not None
        parts = [(writer.args[i], dim) for i, dim in weights]
        if scale.op != "placeholder" or any(p.op != "placeholder" for p, _ in parts):  # type: ignore[union-attr]
            raise Declined(Reason.OTHER_READERS, "a layer scale is not a parameter as it is")
        if set(scale.users) != {node} or any(set(p.users) != {writer} for p, _ in parts):  # type: ignore[union-attr]
            reason = "a layer scale, or a weight in front of it, is read by something else too"
            raise Declined(Reason.OTHER_READERS, reason)
        into = tuple((self.owners.held_by(p, writer), dim) for p, dim in parts)  # type: ignore[arg-type]
        self.owners.check(scale)
        (name,) = self.owners.names(scale)[:1]
        sizes = list(shape_of(scale))
        longest = max(range(len(sizes)), key=sizes.__getitem__)
        self.scales.append((Absorb(name, into), longest))
        for part, dim in parts:
            self._centre(part, dim, writer)  # type: ignore[arg-type]

    # --- norms ------------------------------------------------------------------------------------

    def _replace(self, norm: Norm) -> None:
        path = where(norm.node)
        if norm.weight is not None:
            path = self.owners.held_by(norm.weight, norm.node).module
        module = self.model.get_submodule(path)
        if type(module) is not nn.LayerNorm:
            reason = f"it is computed in a {type(module).__name__}, not in an nn.LayerNorm"
            raise Declined(Reason.OTHER_READERS, reason)
        if module._forward_hooks or module._forward_pre_hooks:
            raise Declined(Reason.OTHER_READERS, "it has hooks, which would be lost")
        whole = self.norm == "rms" or not self._folds(norm)
        replace = Replace(path, self.norm, whole)
        if self.replaced.setdefault(path, replace) != replace:
            raise Declined(Reason.OTHER_READERS, "it is called twice, and read in two ways")

    def _folds(self, norm: Norm) -> bool:
        """Whether all that reads a norm are linears whose weights can change with it; if so, they
        are to do so."""
        calls = [n for n in self.norms if n.weight is norm.weight and n.weight is not None]
        if len(calls) > 1:
            return False
        try:
            found = read_linears(norm, self.streams.weights)
            reads = [self._read(linear, norm) for linear in found.linears]
        except Declined:
            return False
        if found.scales or not reads or len({r.weight for r, _ in reads}) < len(reads):
            return False
        for read, uses in reads:
            self.reads.append(read)
            self.read |= set(uses)
        return True

    def _read(self, linear: fx.Node, norm: Norm) -> tuple[Read, list[Use]]:
        at = LINEARS[linear.target]
        weight: Any = linear.args[at[1]]
        given: Any = linear.args[at[2]] if at[2] is not None and len(linear.args) > at[2] else None
        affine = [n for n in (norm.weight, norm.bias) if n is not None]
        wanted = [n for n in (weight, given, *affine) if n is not None]
        if any(n.op != "placeholder" for n in wanted):
            raise Declined(Reason.OTHER_READERS, "its weights are not parameters as they are")
        name = self.owners.held_by(weight, linear)
        if name in self._names(weight, self.uses):
            raise Declined(Reason.OTHER_READERS, "it writes the branch that it reads")
        bias = None if given is None else self.owners.held_by(given, linear)
        if bias is None and norm.bias is not None:
            if not isinstance(self.model.get_submodule(name.module), nn.Linear):
                raise Declined(Reason.OTHER_READERS, "there is no place for a bias")
            bias = Name(name.module, "bias")
        scale, shift = (
            None if n is None else self.owners.held_by(n, norm.node)
            for n in (norm.weight, norm.bias)
        )
        uses = [(weight, linear)] + ([(given, linear)] if given is not None else [])
        return Read(name, at[3], bias, scale, shift), uses

    # --- shared parameters ------------------------------------------------------------------------

    def _apart(self) -> list[Edit]:
        """A parameter that changes is held apart by the modules that need it as it is."""
        found: dict[Name, None] = {}
        for node in self.between:
            for user in node.users:
                if (node, user) not in self.uses:
                    reason = f"`{node.name}`, which would change, is also read by `{user.name}`"
                    raise Declined(Reason.OTHER_READERS, reason)
        for node in self.axis:
            found |= dict.fromkeys(self._others(node, self.uses))
        for node, _ in self.read:
            self._others(node, self.read)
            both = set(self._names(node, self.read)) & set(self._names(node, self.uses))
            if both:
                reason = f"{both.pop()} reads a norm and writes the branch"
                raise Declined(Reason.OTHER_READERS, reason)
        return [Untie(name) for name in found]

    def _others(self, node: fx.Node, uses: set[Use]) -> list[Name]:
        """Who else holds a parameter than the modules of these `uses`, called or not."""
        mine = self._names(node, uses)
        for user in node.users:
            name = self.owners.held_by(node, user)
            if (node, user) not in uses and name in mine:
                reason = f"{name} is also read by `{user.name}`, which needs it as it is"
                raise Declined(Reason.OTHER_READERS, reason)
        modules = [self.model.get_submodule(n.module) for n in mine]
        names = self.owners.names(node)
        return [n for n in names if self.model.get_submodule(n.module) not in modules]

    def _names(self, node: fx.Node, uses: set[Use]) -> list[Name]:
        """The modules that hold a parameter and read it in `uses`, in order."""
        users = [u for u in node.users if (node, u) in uses]
        return list(dict.fromkeys(self.owners.held_by(node, u) for u in users))

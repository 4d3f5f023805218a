"""Streams: values without a mean that flow into each other, and the norms that read them.

    x = table[i] + positions;   x = x + f(LN(x));   x = x + g(LN(x));   y = LN(x)

The main branch of a Pre-LN Transformer is one stream: f and g end in linears, whose weights can
leave the mean out, and x is centred explicitly once, at its beginning. Forward over the facts of
`mean_free.py`: a value comes *clean* if weights write it so, if it is a sum (or the like) of clean
values, or if it is centred explicitly because a LayerNorm reads it. A stream pays if that is done
fewer times than it has norms. It must not write anything. Next: `equate_norms.py` makes RMSNorms
of the norms, `shorten_norms.py` drops a channel of the stream besides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import fx

from ..errors import Declined
from ..facts import Facts, draws_random
from ..graph import fake, op_name
from ..report import Reason
from .axes import shape_of
from .centring import Weights, has_no_mean, scaled_writer, writes_with
from .identities import DROPOUTS
from .mean_free import MeanFree, mean_free
from .norms import Norm
from .subgraph import weight_only

# the linear and the scale of a layer scale, if it is one, and the weights that write a value
Written = tuple[tuple[fx.Node, fx.Node] | None, Weights | None]


@dataclass
class Stream:
    """Values without a mean that flow into each other, and the norms that read them. Those in
    `explicit` have it taken off in each call."""

    norms: list[Norm] = field(default_factory=list)
    values: list[fx.Node] = field(default_factory=list)
    explicit: list[fx.Node] = field(default_factory=list)

    @property
    def pays(self) -> bool:
        """Whether fewer means are computed than before."""
        return bool(self.values) and len(self.explicit) < len(self.norms)


class Streams:
    """What can be kept without a mean in `graph`, and at what price. `tables`: those of embeddings
    can be centred too."""

    def __init__(
        self, graph: fx.Graph, facts: Facts, norms: list[Norm], *, tables: bool = False
    ) -> None:
        self._tables = tables
        self.graph = graph
        self.norms = norms
        self.facts = facts
        self.weights = weight_only(graph, facts)
        self.free: MeanFree = mean_free(graph, facts)
        self.explicit: set[fx.Node] = set()
        self._parent: dict[fx.Node, fx.Node] = {}
        read = {n.x for n in norms}
        for node in graph.nodes:
            if self._is_written_without(node):
                self._parent[node] = node
            elif node in self.free.operands and self._kept(node):
                self._parent[node] = node
                for operand, _ in self.free.operands[node]:
                    self._join(node, operand)
            elif node in read and node not in self.weights and not facts.is_written(node):
                self._parent[node] = node
                self.explicit.add(node)

    def found(self) -> list[Stream]:
        """The streams that a norm reads, in order."""
        streams: dict[fx.Node, Stream] = {}
        for norm in self.norms:
            key = self._find(norm.x) if norm.x in self._parent else norm.x
            streams.setdefault(key, Stream()).norms.append(norm)
        for node in self._parent:
            stream = streams.get(self._find(node))
            if stream is not None:
                stream.values.append(node)
                if node in self.explicit:
                    stream.explicit.append(node)
        return list(streams.values())

    def is_kept(self, node: fx.Node) -> bool:
        """Whether `node` is a call that keeps its operands' lack of a mean."""
        return node in self._parent and node not in self.explicit and node in self.free.operands

    def written(self, node: fx.Node) -> Written:
        """How weights write a value of a stream, in the graph as it is."""
        axis = self.free.axis[node]
        scaled = scaled_writer(node, axis, self.weights, self.facts)
        writer = node if scaled is None else scaled[0]
        return scaled, writes_with(writer, axis, self.weights, tables=self._tables)

    def veto(self, norm: Norm, stream: Stream) -> None:
        """Raises Declined if the norm stays a LayerNorm."""
        if stream.pays:
            return
        if norm.x in self.weights:
            raise Declined(Reason.NOT_WORTH_IT, "what it reads depends on weights only")
        if norm.x not in self.free.axis:
            who = self.free.why.get(norm.x, "something else")
            raise Declined(Reason.MEAN_READ, f"the mean of what it reads is also read by {who}")
        raise Declined(Reason.MEAN_WRITTEN, self._blame(norm.x))

    def _is_written_without(self, node: fx.Node) -> bool:
        """Whether `node` is written without a mean by other weights, and nobody minds."""
        axis = self.free.axis.get(node)
        if axis is None or node in self.weights or node in self.free.operands:
            return False
        if fake(node) is None:
            return False
        return self.written(node)[1] is not None or has_no_mean(node, axis)

    def _kept(self, node: fx.Node) -> bool:
        return all(self._is_clean(o, axis) for o, axis in self.free.operands[node])

    def _is_clean(self, operand: fx.Node, axis: int) -> bool:
        """Whether `operand` comes without its mean along `axis`, at no further price."""
        if operand in self.weights:
            value = fake(operand)
            return value is not None and value.is_floating_point()
        if operand in self.explicit:
            return axis == len(shape_of(operand)) - 1
        return operand in self._parent and self.free.axis[operand] == axis

    def _blame(self, x: fx.Node) -> str:
        """Why the mean has to be taken off explicitly: the first operand that brings one."""
        seen = x
        while seen in self.free.operands:
            brings = [o for o, axis in self.free.operands[seen] if not self._is_clean(o, axis)]
            if not brings:
                break
            seen = brings[0]
        name = f"`{op_name(seen)}`"
        if seen.target in DROPOUTS and draws_random(seen):
            return f"dropout strikes out single numbers, so {name} writes a mean"
        return f"{name} writes a mean, and taking it off costs what the norm would save"

    def _find(self, node: fx.Node) -> fx.Node:
        while self._parent[node] is not node:
            node = self._parent[node]
        return node

    def _join(self, node: fx.Node, operand: fx.Node) -> None:
        if operand in self._parent:
            self._parent[self._find(operand)] = self._find(node)

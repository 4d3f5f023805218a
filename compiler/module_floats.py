"""Float attributes of modules (a scale, an epsilon, a dropout rate) are kept as plain numbers.

Under `dynamic=True` Dynamo hands over every float of every module as a symbol. Passes could prove
nothing about a scale then, and Inductor would find out late that it cannot use most of them and
have the whole model traced again. So we ask for numbers at once, before anything is compiled. An
attribute that has another value when its code is compiled again does vary, and stays symbolic.
It must not know the passes.
"""

from __future__ import annotations

from torch import fx

from .torch_compat import current_frame, forget_constants, module_floats, restart_with_constants


class ModuleFloats:
    """Remembers which value each float attribute was compiled with, per piece of user code."""

    def __init__(self) -> None:
        self._compiled: dict[tuple[int, str], float] = {}
        self._asked: set[str] = set()

    def make_constant(self, gm: fx.GraphModule) -> None:
        """Returns if nothing is to be done; or else Dynamo's restart leaves through here."""
        frame = current_frame()
        if frame is None:
            return
        symbols = []
        for source, (symbol, value) in module_floats(gm).items():
            if self._compiled.setdefault((frame, source), value) == value:
                symbols.append(symbol)
        if symbols:
            self._asked.update(symbols)
            restart_with_constants(symbols)

    def compiled(self) -> None:
        """The frame is compiled: what we asked for is not to bind its next compilation."""
        forget_constants(self._asked)
        self._asked.clear()

    def forget(self) -> None:
        """Start anew, as `torch._dynamo.reset` does."""
        self._compiled.clear()

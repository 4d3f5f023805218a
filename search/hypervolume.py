"""How much of objective space is dominated: hypervolume, and what each point alone adds to it.

"Multiobjective optimization using evolutionary algorithms" (Zitzler and Thiele, 1998). Exact: in
two and three dimensions by sweeps in O(n log n), beyond by the exclusive volumes of "A fast way of
calculating exact hypervolumes" (While et al., 2012). Pure. It must not know what the points are of.
Next: `span.py`, which makes points of trials.

    points     [n][d], lower is better in each coordinate
    reference  [d]; what is not below it in every coordinate dominates nothing
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

from .errors import SpecError

Point = Sequence[float]
Row = tuple[float, ...]


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The volume between the points and the reference. Raises SpecError where their lengths differ.

    >>> hypervolume([(0, 2), (1, 1), (2, 2)], (3, 3))
    5.0
    """
    inside = [tuple(points[at]) for at in _inside(points, reference)]
    if not inside:
        return 0.0
    if len(reference) == 1:
        return float(reference[0] - min(inside)[0])
    if len(reference) == 2:
        return _area(_front(inside), tuple(reference))
    if len(reference) == 3:
        return _volume(inside, reference)
    front = _front(inside)
    return sum(_exclusive(point, front[at + 1 :], reference) for at, point in enumerate(front))


def contributions_by_definition(points: Sequence[Point], reference: Point) -> list[float]:
    """By how much the hypervolume falls without each point; n + 1 hypervolumes. What
    `contributions` must be equal to."""
    whole = hypervolume(points, reference)
    others = ([*points[:at], *points[at + 1 :]] for at in range(len(points)))
    return [whole - hypervolume(rest, reference) for rest in others]


def contributions(points: Sequence[Point], reference: Point) -> list[float]:
    """The volume that each point dominates and no other does; of equal points none does.

    >>> contributions([(0, 2), (1, 1), (2, 2), (1, 1)], (3, 3))
    [1.0, 0.0, 0.0, 0.0]
    """
    found = [0.0] * len(points)
    inside = _inside(points, reference)
    among = [tuple(points[at]) for at in inside]
    if (more := 3 - len(reference)) >= 0:
        # a plane or a line is a slab of thickness 1
        alone = _volumes([(*p, *[0.0] * more) for p in among], (*reference, *[1.0] * more))
    else:
        front = set(_front(among))
        alone = [
            _exclusive(p, [*among[:at], *among[at + 1 :]], reference) if p in front else 0.0
            for at, p in enumerate(among)
        ]
    for at, volume in zip(inside, alone, strict=True):
        found[at] = volume
    return found


def over_time(points: Sequence[Point], reference: Point) -> list[float]:
    """The hypervolume after each point, [n], never falling.

    >>> over_time([(1, 1), (2, 2), (0, 2)], (3, 3))
    [4.0, 4.0, 5.0]
    """
    volumes: list[float] = []
    front: list[Row] = []
    for point in map(tuple, points):
        if any(all(a <= b for a, b in zip(o, point, strict=True)) for o in front):
            volumes.append(volumes[-1])
            continue
        front = _front([*front, point])
        volumes.append(hypervolume(front, reference))
    return volumes


def _inside(points: Sequence[Point], reference: Point) -> list[int]:
    if any(len(point) != len(reference) for point in points) or not len(reference):
        raise SpecError(f"wanted points of {len(reference)} coordinates, 1 or more", "reference")
    return [
        at
        for at, point in enumerate(points)
        if all(x < most for x, most in zip(point, reference, strict=True))
    ]


def _front(points: Sequence[Row]) -> list[Row]:
    """The points that no other dominates, each once, in the order of their coordinates."""
    front: list[Row] = []
    if points and len(points[0]) == 2:
        for point in sorted(points):
            if not front or point[1] < front[-1][1]:
                front.append(point)
        return front
    for point in sorted(points):
        # whoever dominates it stands before it
        if not any(all(a <= b for a, b in zip(o, point, strict=True)) for o in front):
            front.append(point)
    return front


def _exclusive(point: Row, others: Sequence[Row], reference: Point) -> float:
    """What the point dominates and the others do not: its box without their parts of it."""
    box = 1.0
    for x, most in zip(point, reference, strict=True):
        box *= most - x
    parts = [tuple(map(max, point, other)) for other in others]
    return box - hypervolume(parts, reference)


# --- two dimensions -----------------------------------------------------------------------------


def _area(stairs: Sequence[Row], corner: Row) -> float:
    """Of points with x rising and y falling, up to the corner."""
    ends = [*(x for x, _ in stairs[1:]), corner[0]]
    return float(sum((end - x) * (corner[1] - y) for (x, y), end in zip(stairs, ends, strict=True)))


# --- three dimensions: a plane goes up through the points ---------------------------------------


def _volume(points: Sequence[Row], reference: Point) -> float:
    """The plane keeps the stairs of x and y that the points below it make, and their area."""
    right, top, end = reference
    xs: list[float] = []
    ys: list[float] = []
    area, volume, below = 0.0, 0.0, 0.0
    for x, y, z in sorted(points, key=lambda point: point[2]):
        volume += area * (z - below)
        below = z
        at = bisect_right(xs, x) - 1
        if at >= 0 and ys[at] <= y:
            continue
        first = last = bisect_left(xs, x)
        left, height = x, ys[first - 1] if first else top
        while last < len(xs) and ys[last] >= y:
            area += (xs[last] - left) * (height - y)
            left, height = xs[last], ys[last]
            last += 1
        area += ((xs[last] if last < len(xs) else right) - left) * (height - y)
        xs[first:last], ys[first:last] = [x], [y]
    return volume + area * (end - below)


@dataclass
class _Step:
    """A point on the stairs. `within` are the stairs of points that it alone dominates in the
    plane: below them the area is not its own. `area` holds since the height `since`."""

    at: int
    x: float
    y: float
    since: float
    area: float = 0.0
    within: list[Row] = field(default_factory=list)


def _volumes(points: Sequence[Row], reference: Point) -> list[float]:
    """What each point alone dominates: "Computing hypervolume contributions in low dimensions"
    (Emmerich and Fonseca, 2011), with a list instead of boxes for what is within a step.

    A step's own area is the rectangle between its neighbours without what is within it. A point
    that two steps dominate changes nobody's."""
    right, top, end = reference
    found = [0.0] * len(points)
    stairs: list[_Step] = []
    xs: list[float] = []

    def settle(step: _Step, z: float) -> None:
        found[step.at] += step.area * (z - step.since)
        step.since = z

    def measure(at: int) -> None:
        step = stairs[at]
        edge = xs[at + 1] if at + 1 < len(xs) else right
        roof = stairs[at - 1].y if at else top
        taken = _area(step.within, (edge, roof)) if step.within else 0.0
        step.area = (edge - step.x) * (roof - step.y) - taken

    for number in sorted(range(len(points)), key=lambda at: points[at][::-1]):
        x, y, z = points[number]
        at = bisect_right(xs, x) - 1
        if at >= 0 and stairs[at].y <= y:
            if at == 0 or stairs[at - 1].y > y:
                settle(stairs[at], z)
                stairs[at].within = _front([*stairs[at].within, (x, y)])
                measure(at)
            continue
        first = last = bisect_left(xs, x)
        while last < len(xs) and stairs[last].y >= y:
            settle(stairs[last], z)
            last += 1
        step = _Step(number, x, y, z, within=[(s.x, s.y) for s in stairs[first:last]])
        stairs[first:last], xs[first:last] = [step], [x]
        if first:
            before = stairs[first - 1]
            settle(before, z)
            before.within = [inner for inner in before.within if inner[0] < x]
            measure(first - 1)
        measure(first)
        if first + 1 < len(stairs):
            after = stairs[first + 1]
            settle(after, z)
            after.within = [inner for inner in after.within if inner[1] < y]
            measure(first + 1)
    for step in stairs:
        settle(step, end)
    return found

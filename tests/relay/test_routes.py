"""RouteTable: which route is the best one, and what of it changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moqt_trio.path import BroadcastPath
from moqt_trio.relay.routes import RelayRoute, RouteTable, fnv1a, path_hash

PATH = BroadcastPath.parse("live/cam")


def route(source: str, *, path: BroadcastPath = PATH, number: int = 0, **fields) -> RelayRoute[str]:
    return RelayRoute(path=path, source=source, number=number, **fields)


BETTER = {
    "known hops": ({"hops": (1, 2, 3), "cost": 9}, {"hops": (1, 0)}),
    "cost": ({"hops": (1, 2, 3), "cost": 1}, {"hops": (1,), "cost": 2}),
    "cold cost": ({"hops": (1, 2), "cost": 1, "cold_cost": 1}, {"hops": (1,), "cost": 1, "cold_cost": 2}),
    "local": ({"local": True}, {"hops": ()}),
    "fewer hops": ({"hops": (1, 2)}, {"hops": (1, 2, 3)}),
    "newer": ({"hops": (1,), "number": 2}, {"hops": (2,), "number": 1}),
}


@pytest.mark.parametrize("name", BETTER)
@pytest.mark.parametrize("turned", [False, True])
def test_order(name, turned):
    """Each rule decides where those before it do not, in whatever order the routes came."""
    better, worse = BETTER[name]
    table: RouteTable[str] = RouteTable(10, 10)
    routes = [route("better", **better), route("worse", **worse)]
    for item in reversed(routes) if turned else routes:
        assert table.put(item)
    assert table.best(PATH).source == "better"
    assert [item.source for item in table.of(PATH)] == ["better", "worse"]
    assert table.best(PATH, lambda item: item.source != "better").source == "worse"


def test_forwarded_routes_are_ordered_alike_everywhere():
    """Between equal routes that relays forwarded, a hash of path and hops decides, and not which came first."""
    one, other = route("one", hops=(1, 2), number=1), route("other", hops=(1, 3), number=2)
    first = min((one, other), key=lambda item: path_hash("live/cam", item.hops))
    for pair in ((one, other), (other, one)):
        table: RouteTable[str] = RouteTable(10, 10)
        for item in pair:
            table.put(item)
        assert table.best(PATH) is first


@pytest.mark.parametrize(
    ("data", "value"),
    [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)],
)
def test_hash(data, value):
    """The published test values of FNV-1a, which begin with its usual offset."""
    assert fnv1a(data, 0xCBF29CE484222325) == value


def test_a_route_replaces_that_of_its_source():
    """The same again is no change."""
    table: RouteTable[str] = RouteTable(10, 10)
    assert table.put(route("a", cost=1))
    assert not table.put(route("a", cost=1, number=5))
    assert table.put(route("a", cost=2))
    assert len(table) == 1
    assert table.best(PATH).cost == 2
    assert table.drop(PATH, "a")
    assert not table.drop(PATH, "a")
    assert (len(table), list(table), table.best(PATH)) == (0, [], None)


def test_bounds():
    """The best ones of a path are kept, and no more of all than `max_routes`."""
    table: RouteTable[str] = RouteTable(4, 2)
    assert table.put(route("a", cost=5))
    assert table.put(route("b", cost=4))
    assert not table.put(route("c", cost=6))
    assert table.put(route("d", cost=3))
    assert [item.source for item in table.of(PATH)] == ["d", "b"]
    for number in range(2):
        assert table.put(route("e", path=BroadcastPath.parse(f"other/{number}")))
    assert not table.put(route("e", path=BroadcastPath.parse("other/2")))
    assert len(table) == 4


SOURCES = st.sampled_from("abc")
PATHS = st.sampled_from([BroadcastPath.parse(text) for text in ("a", "a/b", "c")])
STEPS = st.one_of(
    st.tuples(st.just("put"), PATHS, SOURCES, st.lists(st.integers(0, 5), max_size=4).map(tuple), st.integers(0, 3)),
    st.tuples(st.just("drop"), PATHS, SOURCES),
)


@given(st.lists(STEPS, max_size=40))
def test_against_a_plain_model(steps):
    """After any steps: one route for each source and path, the count, and the best one first."""
    table: RouteTable[str] = RouteTable(1000, 1000)
    model: dict[tuple[BroadcastPath, str], RelayRoute[str]] = {}
    for number, step in enumerate(steps):
        if step[0] == "put":
            _, path, source, hops, cost = step
            added = route(source, path=path, hops=hops, cost=cost, number=number)
            before = model.get((path, source))
            changed = before is None or (before.hops, before.cost) != (hops, cost)
            assert table.put(added) is changed
            if changed:
                model[path, source] = added
        else:
            _, path, source = step
            assert table.drop(path, source) is (model.pop((path, source), None) is not None)
    assert len(table) == len(model)
    assert set(table) == {path for path, _ in model}
    for path in table:
        expected = sorted((item for (at, _), item in model.items() if at == path), key=lambda item: item.rank)
        assert list(table.of(path)) == expected
    for source in "abc":
        assert sorted(route.path for route in table.of_source(source)) == sorted(
            path for path, from_ in model if from_ == source
        )

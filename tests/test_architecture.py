"""Which package may import which: export -> ov2vss -> runtime, never back, and no circles.

Imports inside functions and those for type checkers count as well.
"""

from __future__ import annotations

from functools import cache

import grimp
import pytest

LAYERS = ("ov2vss_export", "ov2vss", "ov2vss_runtime")
"""From the top: each may import what stands after it."""


@cache
def imports() -> dict[str, set[str]]:
    """Module -> modules of ours that it imports."""
    graph = grimp.build_graph(*LAYERS, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected parts of more than one module: what Tarjan's algorithm finds."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        path.append(module)
        for target in sorted(edges[module]):
            if target not in number:
                visit(target)
                lowest[module] = min(lowest[module], lowest[target])
            elif target in path:
                lowest[module] = min(lowest[module], number[target])
        if lowest[module] == number[module]:
            part = path[path.index(module) :]
            del path[path.index(module) :]
            if len(part) > 1:
                found.append(sorted(part))

    for module in edges:
        if module not in number:
            visit(module)
    return found


def test_a_circle_is_found_where_there_is_one() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set()}
    assert circles(edges) == [["a", "b", "c"]]
    assert circles({**edges, "c": {"d"}}) == []


@pytest.mark.parametrize(
    ("module", "target"),
    [
        ("ov2vss_export.cli", "ov2vss_export.commands.mode"),
        ("ov2vss_export.commands.export", "ov2vss.checkpoint"),  # inside a function
        ("ov2vss_runtime", "ov2vss_runtime.stream.segmenter"),  # for type checkers
    ],
)
def test_the_graph_has_every_kind_of_import(module: str, target: str) -> None:
    assert target in imports()[module]


def test_imports_point_down_only() -> None:
    layer = {name: depth for depth, name in enumerate(LAYERS)}
    upward = [
        f"{module} imports {target}"
        for module, targets in imports().items()
        for target in targets
        if layer[target.split(".")[0]] < layer[module.split(".")[0]]
    ]
    assert not upward


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert circles(imports()) == []

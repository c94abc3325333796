"""Gates on the terminal and in JSON."""

from __future__ import annotations

from typing import Any

import click

from ov2vss_runtime.bundle.gates import Gate


def print_gates(gates: dict[str, list[Gate]]) -> None:
    """One line a gate, under the name of its variant."""
    for variant, found in gates.items():
        click.echo(f"{variant}:")
        for gate in found:
            click.echo(f"  {gate.row()}")


def gate_records(gates: dict[str, list[Gate]]) -> dict[str, list[dict[str, Any]]]:
    return {variant: [gate.record() for gate in found] for variant, found in gates.items()}

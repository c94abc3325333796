"""What ``--check`` prints, and what a training says of its data before it begins."""

from __future__ import annotations

import logging

import click

from ov2vss.data.check import Report
from ov2vss.data.check_table import as_json as report_json
from ov2vss.data.check_table import summary, table
from ov2vss.errors import OV2VSSError
from ov2vss_runtime.console import print_json

log = logging.getLogger("ov2vss")


def announce(report: Report) -> None:
    """One line of figures, and one for everything that does not fit."""
    log.info("%s", summary(report))
    for finding in report.findings:
        log.warning("%s: %s", finding.level, finding)


def print_check(report: Report, as_json: bool = False) -> None:
    """The whole table; an error, exit code 1, where the data cannot be trained on."""
    for line in table(report):
        click.echo(line)
    for finding in report.findings:
        click.echo(f"{finding.level}: {finding}")
    if not report.findings:
        click.echo("nothing is wrong with these masks")
    if as_json:
        print_json(report_json(report))
    if report.errors:
        count = len(report.errors)
        raise OV2VSSError(
            f"{report.data} cannot be used: {count} error{'s' if count > 1 else ''} above", "correct them first"
        )

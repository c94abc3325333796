"""Errors that a user can act on.

Each one says what is wrong and where, and what to do about it. The programs print them as one line and exit with 1, or
with 2 where the command itself makes no sense; ``--debug`` shows the traceback.
"""

from __future__ import annotations


class OV2VSSError(Exception):
    """A user's mistake or a broken input, not a bug.

    Args:
        problem: what is wrong, with the file, line or value.
        remedy: what to do, as an imperative without a final full stop.
        usage: the options make no sense, whatever the files hold.
    """

    def __init__(self, problem: str, remedy: str = "", usage: bool = False) -> None:
        self.problem, self.remedy, self.usage = problem, remedy, usage
        super().__init__(f"{problem}; {remedy}" if remedy else problem)


class BundleError(OV2VSSError):
    """A bundle is missing, incomplete, altered, or of another format version. Check its path; export it again."""


class VocabularyError(OV2VSSError):
    """A class list is empty, repeats a name, or has an entry that cannot be used. The message names the line."""


class VideoError(OV2VSSError):
    """A source cannot be opened or decoded, or an output cannot be written."""


class BackendError(OV2VSSError):
    """An engine is not installed, or does not offer what was asked for. The message names the command that cures it."""

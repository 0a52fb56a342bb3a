"""Every error that ddnn raises on purpose.

    DdnnError                 exit code 1
    ├── ConfigError           2   a flag, file, data set or bundle is not as it must be
    ├── LocalProtocolError    3   this program tried to send what the protocol forbids
    ├── RemoteProtocolError   4   a peer sent what the protocol forbids (counted, dropped)
    ├── NotDecodableError     5   too few answers to decode
    │   └── InconsistentAnswersError  5   answers that contradict each other
    ├── InfeasiblePlanError   6   no plan meets the constraints
    ├── SectionError          7   a section failed or returned nonsense
    └── LinkError             8   the broker, a node or the database cannot be reached

A message says what was received, what was expected, and how to mend it.
"""

from __future__ import annotations


class DdnnError(Exception):
    """Base of all; `exit_code` is what a program ends with."""

    exit_code = 1


class ConfigError(DdnnError):
    """A flag, environment variable, file, data set or bundle is not as it must be."""

    exit_code = 2


class LocalProtocolError(DdnnError):
    """This program tried to send a message that the protocol forbids: a bug here."""

    exit_code = 3


class RemoteProtocolError(DdnnError):
    """A peer sent a message that the protocol forbids: counted and dropped."""

    exit_code = 4


class NotDecodableError(DdnnError):
    """Too few answers to decode: never a wrong answer instead."""

    exit_code = 5


class InconsistentAnswersError(NotDecodableError):
    """Answers contradict each other; `workers` are those at fault, empty where that is unknown."""

    def __init__(self, message: str, workers: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.workers = workers


class InfeasiblePlanError(DdnnError):
    """No plan meets the constraints."""

    exit_code = 6


class SectionError(DdnnError):
    """A section failed or returned something other than it declared."""

    exit_code = 7


class LinkError(DdnnError):
    """The broker or a node cannot be reached."""

    exit_code = 8

"""What can go wrong around a load test. The errors of single requests are counted, never raised.

LoadError            one plain line for the person who asked for the load
├── TargetError      unreachable, not a V2 server, no such model, not ready, no size that runs
├── DataError        the data file or the inputs cannot be used with this model
├── BudgetError      more requests or connections than one process can hold
└── GeneratorError   the generator's own process died or answered nonsense
"""

from __future__ import annotations


class LoadError(Exception):
    """Base of all errors of this package; its text is one line that can be shown to the user."""


class TargetError(LoadError):
    """The server cannot be load-tested: unreachable, not V2, no such model, no size that runs."""


class DataError(LoadError):
    """The inputs cannot be made or read: a bad file, a wrong shape, an unknown datatype."""


class BudgetError(LoadError):
    """The load asks for more than one generator process can hold."""


class GeneratorError(LoadError):
    """The generator's own process died or broke the message format; carries its last words."""

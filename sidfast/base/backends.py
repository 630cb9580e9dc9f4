"""Back ends of an operator as rows of a table, and the choice among them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

from sidfast.base.errors import BackendError

AUTO = "auto"


@dataclass(frozen=True)
class Backend:
    """One implementation of a room's operators.

    The module is imported when first asked about, never before. It holds a function for each of the
    room's operators that it serves, with the arguments of the operator's schema but for the last,
    `backend`, and `reasons(op, *args) -> list[str]`: why it cannot serve the call `op(*args)`;
    empty if it can.

    Args:
        name: what users pass as `backend=`.
        module: dotted name of the module.
    """

    name: str
    module: str

    @cached_property
    def loaded(self) -> tuple[ModuleType | None, str]:
        """The module, or None and why it does not import."""
        try:
            return importlib.import_module(self.module), ""
        except ImportError as error:
            return None, f"{self.module} does not import: {error}"

    def reasons(self, op: str, *args: Any) -> list[str]:
        """Why this back end cannot serve `op(*args)`; empty if it can."""
        module, failure = self.loaded
        if module is None:
            return [failure]
        return module.reasons(op, *args) if hasattr(module, op) else [f"has no {op}"]


def serving(
    op: str, rows: Sequence[Backend], backend: str, args: Sequence[Any]
) -> Callable[..., Any] | None:
    """The function of the first row without reasons, or of `backend`; None if there is none."""
    for row in rows:
        if backend == AUTO or backend == row.name:
            module, _ = row.loaded
            function = getattr(module, op, None)
            if module and function and not module.reasons(op, *args):
                return function
    return None


def choose(
    op: str, rows: Sequence[Backend], backend: str, args: Sequence[Any]
) -> Callable[..., Any]:
    """What serves `op(*args)`, see `serving`.

    Raises:
        BackendError: nothing serves the call, or the back end asked for does not: one asked for by
            name is never replaced. The text lists every back end with every reason.
    """
    if function := serving(op, rows, backend, args):
        return function
    table = "; ".join(
        f"{row.name}: {', '.join(row.reasons(op, *args)) or 'can serve this call'}" for row in rows
    )
    asked = "no back end" if backend == AUTO else f"back end {backend!r} does not exist or"
    raise BackendError(
        f"{op}: {asked} cannot serve this call ({table}); pass backend={AUTO!r} or one that can"
    )

"""Exceptions that sidfast raises on purpose; catch `SidfastError` for all of them."""

from __future__ import annotations


class SidfastError(Exception):
    """Base of every error that sidfast raises on purpose."""


class InputError(SidfastError, ValueError):
    """A caller's argument, file or setting does not fit.

    Args:
        expected: what would have been accepted.
        got: what was passed instead.
        fix: what to do about it.
    """

    def __init__(self, *, expected: str, got: object, fix: str) -> None:
        super().__init__(f"expected {expected}, got {got}; {fix}")
        self.expected, self.got, self.fix = expected, got, fix

    def __reduce__(self) -> tuple[object, ...]:
        return _input_error, (self.expected, self.got, self.fix)


class BackendError(SidfastError, RuntimeError):
    """No back end, or not the one asked for, can serve a call."""


def _input_error(expected: str, got: object, fix: str) -> InputError:
    return InputError(expected=expected, got=got, fix=fix)

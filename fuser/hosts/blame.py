"""Whose mistake an exception is: the model's while it is invalid, ours where it is not.

Import, rewriting and verification rely on what the standard promises of a model. The host is asked only when
something went wrong, so that a model that is in order costs nothing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from fuser.errors import FuserError, InputError, OutputError
from fuser.hosts.pick import host_of

P = ParamSpec("P")
R = TypeVar("R")


class InvalidModelError(InputError):
    """An exception that `model` is to blame for; it is the cause of this one."""

    def __init__(self, message: str, model: Any) -> None:
        super().__init__(message)
        self.model = model


def blames(*parameters: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function blame the models that it is given as these parameters: see `blaming`."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        form = signature(function)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                given = form.bind(*args, **kwargs).arguments
            except TypeError:
                return function(*args, **kwargs)  # which says what is wrong with the arguments
            with blaming(*(given[name] for name in parameters)):
                return function(*args, **kwargs)

        return call

    return decorate


@contextmanager
def blaming(*models: Any) -> Iterator[None]:
    """Turn an exception into an `InputError` while one of the models is invalid.

    Args:
        models: what the caller gave.

    Raises:
        InputError: in place of any other exception, with what its host says of the first model that is
            invalid. Where all are valid the exception passes: a verification that failed, or a mistake of
            ours. So it does where a model was blamed inside that the caller did not give.
    """
    try:
        yield
    except Exception as error:
        mistake: BaseException = error
        if isinstance(error, InvalidModelError) and all(error.model is not model for model in models):
            mistake = error.__cause__ or error
        elif isinstance(error, InputError | OutputError):
            raise
        for model in models:
            reason = host_of(model).invalid(model)
            if reason is not None:
                where = os.fspath(model) if isinstance(model, str | os.PathLike) else "the model"
                known = f"; {mistake}" if isinstance(mistake, FuserError) else ""
                raise InvalidModelError(f"{where}: the model is invalid: {reason}{known}", model) from mistake
        raise mistake from mistake.__cause__

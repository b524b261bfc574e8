"""What the functions of the package have in common: arguments are checked, and errors that are the user's explained."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar, get_type_hints

from dualdistill.files import as_user_error
from dualdistill.settings import require

Given = ParamSpec("Given")
Result = TypeVar("Result")


def public(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorator: arguments must fit their annotations, and what the command line explains is raised as UserError."""
    signature, hints = inspect.signature(function), get_type_hints(function, include_extras=True)

    @wraps(function)
    def checked(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            if name in hints:  # not self
                require(value, hints[name], name)
        try:
            return function(*args, **kwargs)
        except Exception as error:
            explained = as_user_error(error)
            if explained is None or explained is error:
                raise
            raise explained from error

    return checked

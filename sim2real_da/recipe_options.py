# Copyright 2026 The sim2real_da authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the values of a recipe are of the kind that their place takes, before anything is trained with them."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints


def check_options(values: Mapping[str, Any], of: type) -> None:
    """Compare values with the annotations of a class's arguments.

    Numbers are finite and not negative; whole numbers are counts, so 0 is one only where it is the default or a first
    step. Names that the class does not have are left to the call.

    :raises ValueError: naming the option, what it is and what was expected
    """
    hints = get_type_hints(of if is_dataclass(of) else of.__init__)  # type: ignore[misc]
    parameters = inspect.signature(of).parameters
    for name, value in values.items():
        if name in parameters and name in hints:
            least = 0 if name == 'start' or parameters[name].default == 0 else 1
            if (expected := _expected(value, hints[name], least)) is not None:
                raise ValueError(f'{name} {value!r}: expected {expected}')


def _expected(value: Any, hint: Any, least: int) -> str | None:
    """Return what was expected, or None where the value will do."""
    if get_origin(hint) in (Union, types.UnionType):
        wanted = [_expected(value, one, least) for one in get_args(hint)]
        return None if None in wanted else ' or '.join(w for w in wanted if w)
    if hint is type(None):
        return None if value is None else 'null'
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is bool:
        return None if isinstance(value, bool) else 'true or false'
    if hint is int:
        return None if number and isinstance(value, int) and value >= least else f'a whole number from {least}'
    if hint is float:
        return None if number and math.isfinite(value) and value >= 0 else 'a number, not negative'
    if hint is str:
        return None if isinstance(value, str) else 'a text'
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        fits = isinstance(value, list | tuple) and len(value) == len(kinds) and all(
            _expected(one, kind, least) is None for one, kind in zip(value, kinds))
        return None if fits else f'{len(kinds)} numbers, none of them negative'
    if get_origin(hint) is Sequence:
        return None if isinstance(value, list | tuple) else 'a list'
    return None

"""Numbers on a command line."""

import math
from typing import Any

import click


class FloatRange(click.FloatRange):
    """A number within bounds: NaN is in none, though it is neither below nor above."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no number", param, ctx)
        return number

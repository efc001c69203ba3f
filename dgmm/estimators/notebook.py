"""What a notebook shows of an estimator: what was fitted, above scikit-learn's diagram."""

from __future__ import annotations

from html import escape
from typing import Any

from sklearn.exceptions import NotFittedError

from dgmm.estimators.fitted import Fitted
from dgmm.estimators.telling import facts

LEFT = 'style="text-align: left"'


class NotebookView(Fitted):
    """The hooks of notebooks; names of features and files are escaped."""

    def _repr_html_inner(self) -> str:
        return self._head() + str(super()._repr_html_inner())  # type: ignore[misc]

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        shown: dict[str, str] = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        if "text/html" in shown:
            shown["text/html"] = self._head() + shown["text/html"]
        return shown

    def _head(self) -> str:
        """A table of what a fit came to; nothing before one."""
        try:
            shown = facts(self._fitted)
        except NotFittedError:
            return ""
        lines = "".join(
            f'<tr><th scope="row" {LEFT}>{escape(name)}</th><td {LEFT}>{escape(value)}</td></tr>'
            for name, value in shown.items()
        )
        return f"<table>{lines}</table>"

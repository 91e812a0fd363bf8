"""A schema that refuses names it does not know, and says which known name was probably meant."""

import difflib
import functools
from collections.abc import Mapping
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, missing

_LISTED = 12  # known names spelled out where none is near


class StrictSchema(Schema):
    class Meta:
        unknown = RAISE

    def load(self, data: Any, **options: Any) -> Any:
        """As marshmallow's, without a look at the fields that may be left out and are: most, in most requests."""
        return super().load(data, **{**options, "partial": self._may_be_left_out})

    @functools.cached_property
    def _may_be_left_out(self) -> frozenset[str]:
        fields = self.load_fields.items()
        return frozenset(name for name, made in fields if not made.required and made.load_default is missing)

    def handle_error(self, error: ValidationError, data: Any, **kwargs: Any) -> None:
        """Rewrite marshmallow's "Unknown field." in place."""
        if isinstance(error.messages, dict) and isinstance(data, Mapping):
            for name in error.messages:
                if name in data and name not in self.load_fields:
                    error.messages[name] = [self._unknown(str(name))]

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name[:64], self.load_fields, n=1, cutoff=0.5)
        if near:
            return f"Unknown parameter. Did you mean {near[0]!r}?"
        names = list(self.load_fields)
        more = f" and {len(names) - _LISTED} more, see /docs" if len(names) > _LISTED else ""
        return f"Unknown parameter. Known are: {', '.join(names[:_LISTED])}{more}."

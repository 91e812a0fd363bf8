"""The formats that a grammar holds. JSON Schema makes every other one an annotation, which constrains nothing."""

_BASE64, _BASE64URL = "[0-9a-zA-Z+/]", "[0-9a-zA-Z_-]"
_UUID = "^[0-9a-fA-F]{{8}}-[0-9a-fA-F]{{4}}-{version}[0-9a-fA-F]{{3}}-[89abAB][0-9a-fA-F]{{3}}-[0-9a-fA-F]{{12}}$"
_PADDED = f"^(?:{_BASE64}{{4}})*(?:{_BASE64}{{2}}==|{_BASE64}{{3}}=)?$"

KNOWN = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})
"""Those that llguidance holds."""
PATTERNS = {
    **{f"uuid{version}": _UUID.format(version=version) for version in (1, 3, 4, 5, 6, 7, 8)},
    "base64": _PADDED,
    "byte": _PADDED,
    "base64url": f"^(?:{_BASE64URL}{{4}})*(?:{_BASE64URL}{{2}}(?:==)?|{_BASE64URL}{{3}}=?)?$",
}
"""Those that a pattern holds: pydantic (`uuid4`, `base64`) and OpenAPI (`byte`) write no pattern beside them."""
_SECONDS = r"\d+(?:[.,]\d+)?S"
_TIME = rf"T(?:\d+H(?:\d+M)?(?:{_SECONDS})?|\d+M(?:{_SECONDS})?|{_SECONDS})"
_DAYS = r"(?:\d+Y(?:\d+M)?(?:\d+D)?|\d+M(?:\d+D)?|\d+D)"
REGULAR = {
    # pydantic's `Decimal`
    r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$": r"^[+-]?(?:\d+\.?\d*|\.\d+)$",
    # zod's `iso.duration`
    r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$": (
        rf"^P(?:\d+W|{_DAYS}(?:{_TIME})?|{_TIME})$"
    ),
    # zod's `email` in its first releases with JSON Schema
    r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$": (
        r"^(?:[A-Za-z0-9_'+\-]+\.)*[A-Za-z0-9_'+\-]*[A-Za-z0-9_+-]@(?:[A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
    ),
}
"""Patterns that look around, and the same without."""
INTEGERS = {
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "uint32": (0, 2**32 - 1),
}
"""Formats of numbers, as OpenAPI's registry has them: the smallest and the largest."""

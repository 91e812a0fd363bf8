"""How a token is shown in log-probabilities, for every model family."""


def shown_token(piece: bytes) -> str:
    """The token's text. One that is only a part of a UTF-8 character becomes `bytes:\\xf0\\x9f`, as OpenAI writes it:
    nothing is lost, and two such tokens do not look alike.
    """
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)

"""What the clients of reward servers and of model servers share about their connections."""

from vrprm_reward.errors import InputError


def bearer_token(value: str | None, name: str) -> str | None:
    """A bearer token without the blanks and line breaks around it; None where nothing is left.

    Args:
        value: as it came from a file, a variable or a caller.
        name: where it came from, for the message.

    Raises:
        InputError: it holds what no HTTP header can. The message does not show it.
    """
    token = (value or "").strip()
    if not token.isascii() or not token.isprintable():
        raise InputError(
            f"{name} has characters that are not printable ASCII: copy it again, without line "
            "breaks and typographic signs"
        )
    return token or None

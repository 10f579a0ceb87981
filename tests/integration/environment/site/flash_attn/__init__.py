"""Stands in for flash-attn, which has no CPU build, so that OpenRLHF can be imported.

Its names exist and raise when called: nothing on a CPU may need them.
"""

__version__ = "2.8.3"


def absent(name):
    """A function that says that the real one is not here."""

    def call(*_args, **_kwargs):
        raise NotImplementedError(f"{name} needs flash-attn, which has no CPU build")

    return call

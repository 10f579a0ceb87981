"""Outcome functions as a user might write them, good and bad, for tests that name them."""

import os
import time


def half(response, reference):
    return 0.5


def endless(response, reference):
    while "stop" not in response:
        time.sleep(0.01)
    return 1.0


def dying(response, reference):
    if "die" in response:
        os._exit(3)
    return 1.0


def raising(response, reference):
    raise KeyError(reference)


def too_much(response, reference):
    return 7


def noisy(response, reference):
    print("I print to the standard output", flush=True)  # noqa: T201
    return 1.0

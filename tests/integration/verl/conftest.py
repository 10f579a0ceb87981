"""One Ray for all tests of verl."""

import pytest
from PIL import Image

from tests.integration.processes import ROOT


@pytest.fixture(scope="session")
def cluster():
    # Here: verl is not imported before pytest knows which warnings count.
    from tests.integration.verl.harness import ray_cluster

    with ray_cluster():
        yield


@pytest.fixture(scope="session")
def shapes():
    """Three red shapes, among others."""
    return Image.open(ROOT / "examples" / "shapes" / "shapes.png").convert("RGB")


@pytest.fixture(scope="session")
def other():
    """A picture with nothing in it."""
    return Image.new("RGB", (96, 96), "white")

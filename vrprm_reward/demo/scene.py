"""Scenes of the demo world: a 3 x 3 grid of coloured shapes, and their pictures."""

import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "star")
COLOURS = {
    "red": (214, 48, 49),
    "green": (39, 154, 80),
    "blue": (41, 98, 214),
    "yellow": (240, 190, 20),
}
PLACES = (
    "northwest", "north", "northeast", "west", "center", "east", "southwest", "south", "southeast",
)  # fmt: skip
"""The cells in reading order, by names of one word each."""

SIDE = 3
"""Cells in a row."""

CELL_PX = 80
IMAGE_PX = SIDE * CELL_PX


@dataclass(frozen=True)
class Thing:
    """One coloured shape."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Kind:
    """A description that things may fit: a colour, a shape, or both."""

    colour: str | None = None
    shape: str | None = None

    def fits(self, thing: Thing | None) -> bool:
        """Whether `thing` has this colour and this shape, as far as they are given."""
        return (
            thing is not None
            and self.colour in (None, thing.colour)
            and self.shape in (None, thing.shape)
        )

    def noun(self, number: int = 2) -> str:
        """The description in words: "reds", "circles", "blue square"."""
        words = " ".join(word for word in (self.colour, self.shape) if word)
        return words if number == 1 else f"{words}s"


KINDS = (
    *(Kind(colour=colour) for colour in COLOURS),
    *(Kind(shape=shape) for shape in SHAPES),
)
"""Every colour and every shape: what is counted in this world."""


@dataclass(frozen=True)
class Scene:
    """Nine cells in reading order, each with a thing or empty."""

    cells: tuple[Thing | None, ...]

    def count(self, kind: Kind) -> int:
        """How many things fit `kind`."""
        return len(self.places(kind))

    def places(self, kind: Kind) -> tuple[str, ...]:
        """Where they are, in reading order."""
        cells = zip(PLACES, self.cells, strict=True)
        return tuple(place for place, thing in cells if kind.fits(thing))

    def at(self, place: str) -> Thing | None:
        """What is at a place."""
        return self.cells[PLACES.index(place)]


def random_scene(rng: random.Random) -> Scene:
    """A scene with about half of its cells filled."""
    share = rng.uniform(0.25, 0.75)
    return Scene(
        tuple(
            Thing(rng.choice(list(COLOURS)), rng.choice(SHAPES)) if rng.random() < share else None
            for _ in PLACES
        )
    )


def draw(scene: Scene, rng: random.Random) -> Image.Image:
    """Draw a scene as an RGB picture of 240 x 240 pixels; place, size and tint vary with `rng`."""
    shade = rng.randint(228, 255)
    picture = Image.new("RGB", (IMAGE_PX, IMAGE_PX), (shade, shade, min(255, shade + 4)))
    pen = ImageDraw.Draw(picture)
    for index, thing in enumerate(scene.cells):
        if thing is None:
            continue
        radius = rng.uniform(0.26, 0.37) * CELL_PX
        slack = CELL_PX / 2 - radius - 2
        x = (index % SIDE + 0.5) * CELL_PX + rng.uniform(-slack, slack)
        y = (index // SIDE + 0.5) * CELL_PX + rng.uniform(-slack, slack)
        colour = tuple(max(0, min(255, c + rng.randint(-18, 18))) for c in COLOURS[thing.colour])
        _draw_shape(pen, thing.shape, x, y, radius, colour)
    return picture


def _draw_shape(
    pen: ImageDraw.ImageDraw,
    shape: str,
    x: float,
    y: float,
    radius: float,
    colour: tuple[int, ...],
) -> None:
    if shape == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    elif shape == "square":
        half = radius * 0.9
        pen.rectangle((x - half, y - half, x + half, y + half), fill=colour)
    else:
        points = 3 if shape == "triangle" else 10
        corners = []
        for corner in range(points):
            angle = -math.pi / 2 + 2 * math.pi * corner / points
            reach = radius * 1.1 if shape == "triangle" or corner % 2 == 0 else radius * 0.45
            corners.append((x + reach * math.cos(angle), y + reach * math.sin(angle)))
        pen.polygon(corners, fill=colour)

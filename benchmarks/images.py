"""Image encoding, once per distinct image or once per request. `python -m benchmarks.images`"""

from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import cases, measure, plain_client, random_checkpoint
from benchmarks.shapes import small
from vrprm_reward.engines.local.vision import Vision


def main(
    problems: int = 4,
    candidates: int = 4,
    repeats: int = 5,
    image_px: int = 384,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Print vision runs and seconds for `candidates` requests per image, with and without reuse."""
    torch.set_num_threads(threads)
    client = plain_client(random_checkpoint(small(layers=2, width=640)))
    asked = cases(problems, candidates, 2, image_px=image_px)
    table = Table("image encoding", "requests", "distinct", "vision runs", "seconds", "spread", "x")
    found = {}
    for name, cache_bytes in (("per request", 0), ("once each", 2**28)):
        runs = []

        def encode(cache_bytes: int = cache_bytes) -> None:
            vision = Vision(client.checkpoint.model, client.encoder, cache_bytes=cache_bytes)
            for case in asked:
                vision.features(case.images)
            runs.append(vision.encoded)  # noqa: B023

        found[name] = measure(encode, repeats)
        ratio = found["per request"].seconds / found[name].seconds
        table.add_row(
            name, str(len(asked)), str(problems), str(runs[-1]), f"{found[name].seconds:.2f}",
            f"{found[name].spread:.0%}", f"{ratio:.2f}",
        )  # fmt: skip
    Console(width=150).print(table)


if __name__ == "__main__":
    typer.run(main)

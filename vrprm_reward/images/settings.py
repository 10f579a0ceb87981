"""Which images are accepted, and from where."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

ImageFormat = Literal["PNG", "JPEG", "WEBP", "BMP"]
"""Encoded formats that can be allowed. GIF is not among them: its frames may be larger than its
header says, so its size cannot be checked before it is decoded."""


class ImageSettings(BaseModel):
    """Which images are accepted, and from where. The defaults trust the caller's own files."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(default=20 * 2**20, ge=1)
    """Largest encoded image, in bytes."""

    max_pixels_decoded: int = Field(default=50_000_000, ge=1)
    """Largest width x height, in pixels, read from the header before anything is decoded."""

    max_aspect_ratio: float = Field(default=200.0, ge=1)
    """Largest long side / short side. Qwen's processors refuse more than 200."""

    min_side: int = Field(default=4, ge=1)
    """Smallest width and height, in pixels. Images of one pixel have crashed engines."""

    max_images: int = Field(default=16, ge=1)
    """Most images of one problem."""

    formats: tuple[ImageFormat, ...] = Field(default=("PNG", "JPEG", "WEBP", "BMP"), min_length=1)
    """Encoded formats that are read; told by the bytes, not by a name or a media type."""

    allow_paths: bool = True
    """Whether paths and `file://` URLs are read."""

    root: Path | None = None
    """Folder that relative paths start from; None: the working directory. No fence:
    `allowed_folders` is."""

    allowed_folders: tuple[Path, ...] | None = None
    """Folders that files must lie in after symbolic links are resolved; None: anywhere."""

    allow_urls: bool = False
    """Whether `http://` and `https://` URLs are fetched."""

    url_hosts: tuple[str, ...] = ()
    """Exact host names that may be asked, on any port; `"*"` admits every public host."""

    url_timeout: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Seconds for one URL: name lookup, redirects and body together."""

    url_allow_private: bool = False
    """Whether hosts with private, loopback or reserved addresses may be asked. For test servers
    on this machine and trusted internal networks only."""

    @field_validator("url_hosts")
    @classmethod
    def _lower_case(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if re.search(r"[/@\\\s]|:\d+$", host) and host.count(":") < 2:
                raise ValueError(f"{host!r} is not a host name: leave out scheme, port and path")
            if "*" in host and host != "*":
                raise ValueError(
                    f'{host!r} is no exact host name: name each host, or "*" for every one'
                )
        return tuple(host.strip("[]").lower() for host in hosts)

    @model_validator(mode="after")
    def _urls_need_hosts(self) -> Self:
        if self.allow_urls and not self.url_hosts:
            raise ValueError('allow_urls needs url_hosts: name the hosts, or "*" for every one')
        return self


DEFAULT_SETTINGS = ImageSettings()
"""What functions here use when given no settings."""

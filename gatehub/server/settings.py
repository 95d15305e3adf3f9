"""What a server accepts, and how much of it at once."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields

from gatehub.backbone.images import DEFAULT_MAX_PIXELS
from gatehub.backbone.preprocessing import MAX_RESIZED_PIXELS
from gatehub.errors import ServerError

_MAY_BE_NONE = ("max_wait_ms", "failed_load_s", "drain_grace_s")


def _default_threads() -> int:
    """Decode some images while others are classified, without crowding the cores."""
    return max(2, min(4, os.cpu_count() or 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Limits of one server. Each is a whole number.

    Args:
        max_body_bytes: largest request body, as sent; base64 takes a third more than its image.
        max_pixels: largest image, width times height, checked before it is decoded; decoding
            takes about 8 bytes a pixel (WebP: 16).
        max_resized_pixels: largest image that preprocessing may make of it, before cropping.
        max_images: images of one request, where its protocol takes several.
        max_requests: requests that are answered or wait at the same time, their bodies in memory.
        max_bytes_in_flight: of all bodies that are being read, wait or are answered.
        max_connections: open connections of clients.
        deadline_s: seconds from a request's last byte until it is answered or refused.
        threads: images that are decoded at the same time.
        batch_threads: batches that are computed at the same time; each uses all of torch's threads.
        load_threads: tasks that are loaded at the same time.
        failed_load_s: seconds after a load that failed in which it is not tried again.
        max_batch: most images that are computed together.
        max_wait_ms: milliseconds that an image may wait for those that are just being decoded.
        header_timeout_s: seconds that a client may take to send a request's headers.
        body_timeout_s: seconds that a client may take to send a body.
        retry_after_s: seconds that a client is told to wait when the server is full.
        drain_grace_s: seconds between the signal to stop and the last request that is accepted, for
            whoever sends requests to notice that the server is not ready.
        drain_timeout_s: seconds that requests in flight have to finish once the server stops.

    Raises:
        ServerError: a value is not a whole number, or is below its minimum.
    """

    max_body_bytes: int = 20_000_000
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_resized_pixels: int = MAX_RESIZED_PIXELS
    max_images: int = 64
    max_requests: int = 128
    max_bytes_in_flight: int = 256_000_000
    max_connections: int = 512
    deadline_s: int = 30
    threads: int = field(default_factory=_default_threads)
    batch_threads: int = 1
    load_threads: int = 2
    failed_load_s: int = 5
    max_batch: int = 8
    max_wait_ms: int = 5
    header_timeout_s: int = 10
    body_timeout_s: int = 60
    retry_after_s: int = 1
    drain_grace_s: int = 0
    drain_timeout_s: int = 30

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            minimum = 0 if setting.name in _MAY_BE_NONE else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
                raise ServerError(
                    f"ServerSettings.{setting.name} is {value!r}; "
                    f"it must be a whole number of at least {minimum}."
                )

    @property
    def most_images(self) -> int:
        """Images of one request for which there can be places at all."""
        return min(self.max_images, self.max_requests)

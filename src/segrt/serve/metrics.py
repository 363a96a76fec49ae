"""The metrics of the server, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one server.

    Attributes:
        requests: responses, by path and status.
        seconds: from the headers of a request to the end of its response, by path.
        encoding: seconds to encode the JSON of a result.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "segrt_requests", "Responses.", ["path", "status"], registry=registry
        )
        self.seconds = Histogram(
            "segrt_request_seconds",
            "Time to respond.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.encoding = Histogram(
            "segrt_encode_seconds",
            "Time to encode the JSON of a result.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "segrt_batch_images",
            "Images per batch.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self._run = Histogram(
            "segrt_batch_seconds", "Time per batch.", buckets=_SECONDS, registry=registry
        )
        self._in_flight = Gauge(
            "segrt_requests_in_flight", "Requests waiting or running.", registry=registry
        )
        self._waiting = Gauge(
            "segrt_images_waiting", "Images waiting for the network.", registry=registry
        )

    def watch(self, in_flight: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Set the functions that return the requests in progress and the images in the queue."""
        self._in_flight.set_function(in_flight)
        self._waiting.set_function(waiting)

    def batch(self, images: int, seconds: float) -> None:
        """Record a batch."""
        self._batches.observe(images)
        self._run.observe(seconds)

    def expose(self) -> bytes:
        """The metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

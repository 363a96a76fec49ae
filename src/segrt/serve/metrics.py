"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one server.

    Attributes:
        requests: answers by path and status.
        seconds: from the headers of a request to the end of its answer, by path.
        encoding: seconds to write the JSON of an answer.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("segrt_requests", "Answers.", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            "segrt_request_seconds",
            "Time to answer.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.encoding = Histogram(
            "segrt_encode_seconds",
            "Time to write the JSON of an answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "segrt_batch_images",
            "Images of a batch.",
            buckets=(1, 2, 4, 8, 16, 32, 64),
            registry=registry,
        )
        self._run = Histogram(
            "segrt_batch_seconds", "Time of a batch.", buckets=_SECONDS, registry=registry
        )
        self._in_flight = Gauge(
            "segrt_requests_in_flight", "Requests that wait or run.", registry=registry
        )
        self._waiting = Gauge(
            "segrt_images_waiting", "Images that wait for the network.", registry=registry
        )

    def watch(self, in_flight: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Ask these whenever the metrics are read."""
        self._in_flight.set_function(in_flight)
        self._waiting.set_function(waiting)

    def batch(self, images: int, seconds: float) -> None:
        """Count a batch."""
        self._batches.observe(images)
        self._run.observe(seconds)

    def expose(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self._registry)

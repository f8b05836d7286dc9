"""What Prometheus may ask: how many, how fast, how sure, of which class."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from api.model import MAX_BATCH

FIRST_SECONDS, RATIO, BOUNDS = 0.001, 1.3, 40
SHARES = [share / 20 for share in range(1, 21)]

MEDIA_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """The process's own, in a registry of their own: no garbage collector's, no platform's."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("airlock_requests", "Requests answered.", ["path", "status"], registry=self._registry)
        self.predict_seconds = Histogram(
            "airlock_predict_seconds",
            "From a picture that is received whole to its answer, waiting for others included.",
            # Bounds so close that a p99 can be told from them within 30 %.
            buckets=[FIRST_SECONDS * RATIO**number for number in range(BOUNDS)],
            registry=self._registry,
        )
        self.pictures = Gauge(
            "airlock_pictures_in_work", "Pictures being received, waiting or worked on.", registry=self._registry
        )
        self.batch_size = Histogram(
            "airlock_batch_size",
            "Pictures in one run of the model.",
            buckets=range(1, MAX_BATCH + 1),
            registry=self._registry,
        )
        self.predictions = Counter(
            "airlock_predictions", "Pictures by the class that was answered.", ["label"], registry=self._registry
        )
        self.confidence = Histogram(
            "airlock_confidence", "Probability of the class that was answered.", buckets=SHARES, registry=self._registry
        )

    def text(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self._registry)

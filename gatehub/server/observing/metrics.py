"""Figures for Prometheus, in the manner of Triton and vLLM; the names are in docs/serving.md.

Everything is counted in plain numbers of this application's own and written out when it is asked
for, so any number of applications live in one process. (prometheus-client's own counters go to
files of the whole process where the environment has PROMETHEUS_MULTIPROC_DIR.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gatehub import __version__
from gatehub.runtime.durations import DurationReport, Durations
from gatehub.server.observing.record import STAGES, RequestRecord

if TYPE_CHECKING:
    from starlette.types import Scope

    from gatehub.runtime.engine import Engine

# Beyond this many tasks one more gets no line of its own; a name of a task has no brackets.
MAX_TASKS = 10_000
_OTHERS = "(others)"
_OPEN_METRICS = "application/openmetrics-text"
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)

_HELP = {
    "queue": "Seconds that requests waited for a thread that decodes, and for their batch.",
    "decode": "Seconds that decoding and preparing an image took.",
    "load": "Seconds that requests waited for their task to be loaded.",
    "inference": "Seconds that the batches of requests took in the engine.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """How a server stands at a moment.

    Args:
        queued: requests that wait for a batch.
        in_flight: requests that have a place.
        body_bytes: of all bodies that are held.
        unavailable: tasks that could not be had a few seconds ago.
        ready: whether it takes more requests.
    """

    queued: int
    in_flight: int
    body_bytes: int
    unavailable: int
    ready: bool


class Family(NamedTuple):
    """A metric of a process, as it is sent to another.

    Args:
        name: of the metric.
        text: what it says.
        kind: of Prometheus, such as "counter".
        samples: name, labels and value of each.
    """

    name: str
    text: str
    kind: str
    samples: list[tuple[str, dict[str, str], float]]


Figures = list[Family]


def add_label(figures: Figures, name: str, value: object) -> Figures:
    """Return figures with one more label on each sample."""
    return [
        family._replace(
            samples=[(n, {**labels, name: str(value)}, v) for n, labels, v in family.samples]
        )
        for family in figures
    ]


class _Gathered(Collector):
    """Figures of several processes, those of one name together."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        metrics: dict[str, Metric] = {}
        for family in self._figures:
            metric = metrics.setdefault(family.name, Metric(family.name, family.text, family.kind))
            for name, labels, value in family.samples:
                metric.add_sample(name, labels, value)
        yield from metrics.values()


class Metrics(Collector):
    """Counts requests, and tells how the engine and the server stand.

    Args:
        engine: whose tasks are served.
        find_facts: returns how the server stands.
    """

    def __init__(self, engine: Engine, find_facts: Callable[[], ServerFacts]) -> None:
        self._engine = engine
        self._find_facts = find_facts
        self._requests: Counter[tuple[str, str]] = Counter()
        self._tasks: set[str] = set()
        self._total = Durations()
        self._stages = {name: Durations() for name in STAGES if name in _HELP}
        self._images = Durations(_BATCHES)
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def begin(self, record: RequestRecord, scope: Scope) -> None:
        """Nothing is counted before a request has ended."""

    def end(self, record: RequestRecord) -> None:
        """Count a request, unless its route has nothing to do with tasks."""
        if record.route and record.asked is None:
            return
        self._requests[self._label(record.task), record.outcome] += 1
        self._total.observe(record.ended - record.began)
        for name, durations in self._stages.items():
            if (seconds := record.seconds(name)) is not None:
                durations.observe(seconds)
        if record.images:
            self._images.observe(record.images)

    def figures(self) -> Figures:
        """Return everything, the process's own figures included; callable from any thread."""
        return [
            Family(
                metric.name,
                metric.documentation,
                metric.type,
                [(sample.name, dict(sample.labels), sample.value) for sample in metric.samples],
            )
            for metric in self.registry.collect()
        ]

    def collect(self) -> Iterator[Metric]:
        """Make metrics of everything; callable from any thread."""
        yield _gauge(
            "gatehub_build",
            "The version and the backbone.",
            [((__version__, self._engine.backbone.identity.name), 1)],
            ("version", "backbone"),
        )
        yield from self._collect_requests()
        yield from self._collect_tiers()
        facts = self._find_facts()
        for name, text, value in (
            ("gatehub_queue_depth", "Requests that wait for their batch.", facts.queued),
            ("gatehub_requests_in_flight", "Requests that have a place.", facts.in_flight),
            ("gatehub_body_bytes", "Bytes of all bodies in memory.", facts.body_bytes),
            ("gatehub_tasks", "Tasks that are known.", len(self._engine.names())),
            ("gatehub_tasks_unavailable", "Tasks that could not be had.", facts.unavailable),
            ("gatehub_ready", "1 while requests should be sent.", int(facts.ready)),
        ):
            yield _gauge(name, text, [((), value)])

    def _label(self, task: str | None) -> str:
        """Return what a request is counted under: only tasks that are served have a name."""
        if task is None:
            return ""
        if task not in self._tasks:
            if len(self._tasks) >= MAX_TASKS:
                return _OTHERS
            self._tasks.add(task)
        return task

    def _forget(self) -> None:
        """Let go of tasks that are not served any more, which may be others every day."""
        known = set(self._engine.names())
        for task in self._tasks - known:
            self._tasks.discard(task)
            for key in [key for key in list(self._requests) if key[0] == task]:
                del self._requests[key]

    def _collect_requests(self) -> Iterator[Metric]:
        self._forget()
        requests = dict(self._requests)  # requests go on being counted meanwhile
        yield _counter(
            "gatehub_requests",
            "Requests by task and outcome: ok, the code of a refusal, or client_gone.",
            sorted(requests.items()),
            ("task", "outcome"),
        )
        yield _histogram("gatehub_request_seconds", "Seconds of requests.", [((), self._total)])
        for name, durations in self._stages.items():
            yield _histogram(f"gatehub_{name}_seconds", _HELP[name], [((), durations)])
        yield _histogram(
            "gatehub_batch_images", "Images in requests' batches.", [((), self._images)]
        )

    def _collect_tiers(self) -> Iterator[Metric]:
        tiers = {(tier.name,): tier for tier in self._engine.memory()}
        made = [(name, tier.made) for name, tier in tiers.items()]
        text = "Seconds that bringing a task's weights into a tier took."
        yield _histogram("gatehub_swap_seconds", text, made, ("tier",))
        for name, text, values in (
            ("gatehub_hits", "Uses of weights that were there.", "hits"),
            ("gatehub_evictions", "Weights that had to go for others.", "evictions"),
        ):
            counts = [(tier, getattr(report, values)) for tier, report in tiers.items()]
            yield _counter(name, text, counts, ("tier",))
        held = [(name, tier.bytes) for name, tier in tiers.items()]
        yield _gauge("gatehub_resident_bytes", "Bytes of weights in memory.", held, ("tier",))
        budgets = [
            (name, tier.budget_bytes)
            for name, tier in tiers.items()
            if tier.budget_bytes is not None
        ]
        yield _gauge("gatehub_budget_bytes", "Bytes that a tier may have.", budgets, ("tier",))


def render_metrics(figures: Figures, accepted: str) -> tuple[bytes, str]:
    """Write figures out.

    Args:
        figures: of one process or several.
        accepted: the Accept header, which may ask for OpenMetrics; anything else gets the text form
            that every scraper reads.

    Returns:
        The text, and its content type.
    """
    # Only the media type: what else is in the header can make prometheus-client fail (0.26), and it
    # writes it into the answer.
    types = [part.partition(";")[0].strip().lower() for part in accepted.split(",")]
    encode, media_type = choose_encoder(_OPEN_METRICS if _OPEN_METRICS in types else "")
    registry = CollectorRegistry()
    registry.register(_Gathered(figures))
    return encode(registry), media_type


_Labelled = Sequence[tuple[tuple[str, ...], float]]


def _counter(name: str, text: str, values: _Labelled, labels: Sequence[str]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for label, value in values:
        family.add_metric(label, value)
    return family


def _gauge(name: str, text: str, values: _Labelled, labels: Sequence[str] = ()) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label, value in values:
        family.add_metric(label, value)
    return family


def _histogram(
    name: str,
    text: str,
    values: Sequence[tuple[tuple[str, ...], Durations | DurationReport]],
    labels: Sequence[str] = (),
) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for label, value in values:
        report = value.report() if isinstance(value, Durations) else value
        bounds: Mapping[str, int] = dict(
            zip([*map(str, map(float, report.bounds)), "+Inf"], report.counts, strict=True)
        )
        family.add_metric(label, list(bounds.items()), sum_value=report.total)
    return family

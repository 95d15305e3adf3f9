"""Traces for OpenTelemetry: a span for each request, with its stages as children.

A request's stages are measured anyway, so their spans are made when it has ended: nothing is handed
from thread to thread. Without a tracer there is no sink, and nothing of OpenTelemetry is imported.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import Scope

from gatehub import __version__
from gatehub.errors import ServerError
from gatehub.server.observing.record import OK, RequestRecord

if TYPE_CHECKING:
    from opentelemetry.trace import Span, TracerProvider

_LOG = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_SHUTDOWN_S = 3.0


class Tracing:
    """Makes a span of each request that its sampler wants.

    Args:
        provider: of OpenTelemetry.
        owned: whether to end it with the server.
    """

    def __init__(self, provider: TracerProvider, *, owned: bool = False) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._owned = owned
        self._tracer = provider.get_tracer("gatehub.server", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._spans: dict[RequestRecord, tuple[Span, int]] = {}

    def begin(self, record: RequestRecord, scope: Scope) -> None:
        """Begin a span, as a child of the one that the W3C header `traceparent` names."""
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind

        headers = Headers(scope=scope)
        carried = {name: headers[name] for name in self._propagator.fields if name in headers}
        # Only what the request brings: the program's own context is another request's, or none.
        parent = self._propagator.extract(carried, context=Context())
        now = time.time_ns()
        span = self._tracer.start_span(
            record.method[:20], context=parent, kind=SpanKind.SERVER, start_time=now
        )
        if span.is_recording():
            # Stages are on the clock that never jumps; this brings them to the one on the wall.
            self._spans[record] = span, now - int(record.began * 1e9)
            record.trace_id = f"{span.get_span_context().trace_id:032x}"

    def end(self, record: RequestRecord) -> None:
        """End a request's span, and make those of its stages."""
        from opentelemetry.context import Context
        from opentelemetry.trace import Status, StatusCode, set_span_in_context

        span, offset = self._spans.pop(record, (None, 0))
        if span is None:
            return
        inside = set_span_in_context(span, Context())
        for name, began, ended in sorted(record.stages, key=lambda stage: stage.began):
            child = self._tracer.start_span(
                name, context=inside, start_time=offset + int(began * 1e9)
            )
            child.end(offset + int(ended * 1e9))
        if record.route:
            span.update_name(f"{record.method[:20]} {record.route}")
        span.set_attributes(_describe(record))
        if record.status >= 500 or not record.status:
            span.set_status(Status(StatusCode.ERROR))
        span.end(offset + int(record.ended * 1e9))

    def close(self) -> None:
        """Send what is left, for a few seconds at most, if the provider was made here."""
        if self._owned:
            # In a thread: a collector that is away has a patience of its own, and no bound on it.
            closing = threading.Thread(target=self._provider.shutdown, daemon=True)  # type: ignore[attr-defined]
            closing.start()
            closing.join(_SHUTDOWN_S)


def _describe(record: RequestRecord) -> dict[str, str | int]:
    """Return a span's attributes, by OpenTelemetry's conventions where there are some."""
    known: dict[str, str | int] = {
        "http.request.method": record.method[:20],
        "http.route": record.route,
        "http.response.status_code": record.status,
        "error.type": "" if record.outcome == OK else record.outcome,
        "gatehub.request_id": record.request_id,
        "gatehub.task": record.task or "",
        "gatehub.digest": record.digest,
        "gatehub.generation": record.generation,
        "gatehub.batch": record.images,
    }
    return {name: value for name, value in known.items() if value}


def open_tracing(provider: TracerProvider | None = None) -> Tracing | None:
    """Return what makes traces, if anybody wants them.

    Args:
        provider: of a program that has one; None to see what the environment says. It wants traces
            where it names an endpoint: OTEL_EXPORTER_OTLP_ENDPOINT or …_TRACES_ENDPOINT. All other
            variables of the SDK and of the OTLP exporter are read by these.

    Raises:
        ServerError: the environment's variables are not what OpenTelemetry expects.
    """
    if provider is not None:
        return Tracing(provider)
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() not in ("", "otlp"):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _LOG.warning("No traces are sent: install them with pip install 'gatehub[otel]'.")
        return None
    try:
        resource = Resource.create()
        if str(resource.attributes.get(SERVICE_NAME)).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "gatehub"}))
        made = Provider(resource=resource, shutdown_on_exit=False)
        made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise ServerError(
            f"OpenTelemetry cannot be set up: {error}.",
            hint="Look at the variables of the environment that begin with OTEL_.",
        ) from error
    return Tracing(made, owned=True)

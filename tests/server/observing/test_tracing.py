"""Spans, as a collector gets them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from gatehub.errors import ServerError
from gatehub.server import running_server
from gatehub.server.observing.tracing import open_tracing
from tests.server.connections import until
from tests.server.linear_engine import LinearEngine
from tests.server.pictures import picture

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture
def engine() -> Any:
    return LinearEngine(pets=["cat", "dog"])


@contextmanager
def traced(engine: Any) -> Iterator[tuple[httpx.Client, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with (
        running_server(engine, tracer_provider=provider) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        yield client, exporter


def ask(client: httpx.Client, parent: str | None, body: bytes = picture(1)) -> httpx.Response:
    headers = {"X-Request-Id": "a-1"} | ({} if parent is None else {"traceparent": parent})
    return client.post("/tasks/pets", content=body, headers=headers)


def finished(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, dict[str, ReadableSpan]]:
    """The one server span, and its children by name."""
    until(lambda: any(s.kind is SpanKind.SERVER for s in exporter.get_finished_spans()))
    spans = {span.name: span for span in exporter.get_finished_spans()}
    (server,) = [span for span in spans.values() if span.kind is SpanKind.SERVER]
    return server, {name: span for name, span in spans.items() if span is not server}


def test_a_request_is_a_span_with_its_stages_below_the_clients(engine: Any) -> None:
    with traced(engine) as (client, exporter):
        assert ask(client, f"00-{TRACE}-{PARENT}-01").status_code == 200
        server, children = finished(exporter)
    assert server.name == "POST /tasks/{task}"
    assert f"{server.context.trace_id:032x}" == TRACE
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == PARENT
    assert server.parent.is_remote
    info = engine.task("pets")
    assert dict(server.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/tasks/{task}",
        "http.response.status_code": 200,
        "gatehub.request_id": "a-1",
        "gatehub.task": "pets",
        "gatehub.digest": info.digest,
        "gatehub.generation": info.generation,
        "gatehub.batch": 1,
    }
    assert children.keys() == {"load", "queue", "decode", "inference", "rank"}
    for child in children.values():
        assert child.parent is not None
        assert child.parent.span_id == server.context.span_id
        assert server.start_time <= child.start_time <= child.end_time <= server.end_time  # type: ignore[operator]
    assert children["decode"].end_time <= children["inference"].start_time  # type: ignore[operator]


def test_a_span_of_a_refusal_names_its_code(engine: Any) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with traced(engine) as (client, exporter):
        assert ask(client, None, b"no image").status_code == 422
        server, children = finished(exporter)
        assert (server.attributes or {})["error.type"] == "invalid_image"
        assert server.status.status_code is StatusCode.UNSET  # it is the client's error
        assert children.keys() == {"load", "queue", "decode"}
        exporter.clear()
        engine.run = fail
        assert ask(client, "nonsense").status_code == 500
        server, _ = finished(exporter)
        assert server.parent is None
        assert server.status.status_code is StatusCode.ERROR


def test_who_is_not_sampled_upstream_is_not_traced(engine: Any) -> None:
    with traced(engine) as (client, exporter):
        ask(client, f"00-{TRACE}-{PARENT}-00")
    assert exporter.get_finished_spans() == ()


@contextmanager
def collector(path: str) -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    got: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == path:
                got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", got
        finally:
            server.shutdown()
            thread.join()


def test_the_environment_says_where_traces_go(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with collector("/v1/traces") as (address, got):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        with running_server(engine) as url, httpx.Client(base_url=url, trust_env=False) as client:
            ask(client, f"00-{TRACE}-{PARENT}-01")
        # At its end the server sends what is left.
        spans = [s for r in got for a in r.resource_spans for b in a.scope_spans for s in b.spans]
        (resource,) = {str(a.resource) for r in got for a in r.resource_spans}
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert {"POST /tasks/{task}", "decode"} <= {span.name for span in spans}
    assert '"gatehub"' in resource
    assert '"deployment.environment"' in resource


def test_without_an_endpoint_or_told_off_nothing_is_traced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)  # as if not installed
    assert open_tracing() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9")
    for name, value in (("OTEL_SDK_DISABLED", "True"), ("OTEL_TRACES_EXPORTER", "none")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert open_tracing() is None
    assert not caplog.records
    assert open_tracing() is None
    assert "pip install 'gatehub[otel]'" in caplog.text


def test_variables_that_opentelemetry_refuses_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    with pytest.raises(ServerError, match="OpenTelemetry cannot be set up: max_queue_size"):
        open_tracing()

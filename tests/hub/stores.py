"""Folder hubs on every kind of storage that the tests reach: disk, memory, and S3 by moto."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

KINDS = ("disk", "memory", "s3")
BUCKET = "adapters"


@contextmanager
def serve_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An S3 on a loopback port, with an empty bucket, which the environment leads to."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        with socket.create_connection((host, port), 5):
            pass
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        fsspec.get_filesystem_class("s3").clear_instance_cache()  # of another server
        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        fs.makedirs(BUCKET, exist_ok=True)  # moto keeps what it has for the whole process
        yield
    finally:
        server.stop()


def place(kind: str, tmp_path: Path) -> str:
    """A hub of that kind that nobody has used."""
    name = f"hub-{secrets.token_hex(6)}"
    return {
        "disk": str(tmp_path / name),
        "memory": f"memory://{name}",
        "s3": f"s3://{BUCKET}/{name}",
    }[kind]

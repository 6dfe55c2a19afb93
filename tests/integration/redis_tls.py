"""A real Redis that speaks TLS only, with a password: the system's, since the embedded one is built without TLS."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from tests.integration.cluster_processes import free_port

PASSWORD = "not-in-any-message"
_START_S = 10.0


@contextmanager
def redis_over_tls(folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Its URL, and what kills it. Skips the test where the system has no redis-server, or one without TLS."""
    server, openssl = shutil.which("redis-server"), shutil.which("openssl")
    if server is None or openssl is None:
        pytest.skip("no redis-server with TLS, or no openssl: apt-get install redis-server openssl")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    port = free_port()
    options = ["--port", "0", "--tls-port", str(port), "--tls-cert-file", certificate,
               "--tls-key-file", key, "--tls-ca-cert-file", certificate, "--tls-auth-clients", "no",
               "--requirepass", PASSWORD,
               "--dir", folder, "--save", "", "--appendonly", "yes"]  # fmt: skip
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen([server, *options], stdout=log, stderr=log)
    url = f"rediss://:{PASSWORD}@localhost:{port}/0?ssl_ca_certs={certificate}"

    def kill() -> None:
        process.kill()
        process.wait()

    try:
        deadline = time.monotonic() + _START_S
        while True:
            if process.poll() is not None:
                pytest.skip(f"{server} does not speak TLS: {(folder / 'redis.log').read_text()[-300:]}")
            with suppress(redis.exceptions.ConnectionError), redis.Redis.from_url(url) as client:
                if client.ping():
                    break
            assert time.monotonic() < deadline, "the Redis with TLS does not answer"
            time.sleep(0.02)
        yield url, kill
    finally:
        kill()

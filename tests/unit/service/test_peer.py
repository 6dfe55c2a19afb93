from __future__ import annotations

import pytest

from service.transport.peer import client_name


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_one_client_has_one_name(host: str, name: str) -> None:
    assert client_name(host) == name

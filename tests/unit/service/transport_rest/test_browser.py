"""What a browser asks for: pages of other origins, and the address without a path."""

from __future__ import annotations

import httpx

from service.transport.rest import create_app, open_to_pages
from tests.fakes.engine import FakeEngine

PAGE = "https://page.example"


def browser(*cors_origins: str, broken: bool = False) -> httpx.AsyncClient:
    engine = FakeEngine()
    engine.failure = RuntimeError("a defect") if broken else None
    app = open_to_pages(create_app(engine, max_image_bytes=1000, metrics=lambda: b"", version="0"), cors_origins)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://s2spp", headers={"Origin": PAGE})


async def test_a_page_of_an_allowed_origin_may_open_sessions_and_read_the_headers() -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "idempotency-key"}
    async with browser(PAGE) as http:
        preflight = await http.options("/v1/sessions", headers=asks)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert "idempotency-key" in preflight.headers["access-control-allow-headers"]
        answer = await http.get("/v1/models")
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert {"S2spp-Objects", "Location", "Retry-After"} <= set(
            answer.headers["access-control-expose-headers"].split(", ")
        )
        refused = await http.get("/v1/sessions/unknown")
        assert refused.status_code == 404 and refused.headers["access-control-allow-origin"] == PAGE


async def test_a_page_hears_of_a_fault_too() -> None:
    async with browser(PAGE, broken=True) as http:
        answer = await http.get("/readyz")
        assert answer.status_code == 500 and answer.json()["reason"] == "INTERNAL"
        assert answer.headers["access-control-allow-origin"] == PAGE


async def test_no_other_page_may() -> None:
    for http in (browser(), browser("https://another.example")):
        async with http:
            assert "access-control-allow-origin" not in (await http.get("/v1/models")).headers


async def test_the_bare_address_leads_to_the_docs() -> None:
    async with browser() as http:
        answer = await http.get("/")
        assert (answer.status_code, answer.headers["location"]) == (307, "/docs")

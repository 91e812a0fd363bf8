from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.api.response_headers import HEADERS
from app.config.server import ServerConfig
from app.config.settings import AuthConfig, Config
from tests.app.api.conftest import KEYS, MODEL, MakeApp
from tests.app.api.scripted_worker import ScriptedWorker
from tests.valkey import Valkey

APP = "https://app.example.org"
PREFLIGHT = {"Origin": APP, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}

MakeClient = Callable[..., FlaskClient]


@pytest.fixture
def make_client(make_app: MakeApp, valkey: Valkey) -> MakeClient:
    def make(*, keys: tuple[str, ...] = (), **server: tuple[str, ...]) -> FlaskClient:
        auth, served = AuthConfig(api_keys=keys), ServerConfig(**server)
        return make_app(Config(model_name=MODEL, redis_url=valkey.url, auth=auth, server=served)).test_client()

    return make


def generate(client: FlaskClient, **headers: str) -> TestResponse:
    """Make a job as a page can, without asking the browser first: with the content type of a form's text."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post("/agenerate", data=b'{"prompt": "x"}', content_type="text/plain", headers=names)


def refusal(response: TestResponse) -> tuple[int, str]:
    return response.status_code, response.get_json()["code"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "null"},
        {"Origin": "http://localhost.evil.example"},
        {"Origin": "chrome-extension://localhost"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"},
        {"Sec_Fetch_Site": "cross-site", "Origin": "http://localhost"},
    ],
)
def test_without_keys_a_page_of_another_site_makes_no_job(
    client: FlaskClient, worker: ScriptedWorker, headers: dict[str, str]
) -> None:
    assert refusal(generate(client, **headers)) == (403, "cross_site_request")
    assert client.get("/jobs").get_json()["data"] == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost"},
        {"Origin": "http://localhost:80"},
        {"Origin": "https://LOCALHOST:443"},
        {"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"},
        {"Sec_Fetch_Site": "same-origin", "Origin": "http://localhost"},
        {"Sec_Fetch_Site": "none"},
    ],
)
def test_programs_and_pages_of_the_service_itself_make_jobs(
    client: FlaskClient, worker: ScriptedWorker, headers: dict[str, str]
) -> None:
    assert generate(client, **headers).status_code == 202


def test_an_upload_of_another_sites_page_is_refused_in_openais_shape(client: FlaskClient) -> None:
    form = {"purpose": "batch", "file": (__file__, "x.jsonl")}
    response = client.post("/v1/files", data=form, headers={"Origin": "https://evil.example"})
    assert (response.status_code, response.get_json()["error"]["code"]) == (403, "cross_site_request")
    assert "server.allowed_origins" in response.get_json()["error"]["message"]


def test_a_link_of_another_site_opens_a_page_here(client: FlaskClient) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert client.get("/docs", headers=headers).status_code == 200
    assert client.get("/jobs", headers={**headers, "Sec-Fetch-Mode": "no-cors"}).status_code == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "localhost.evil",
        "[evil.example]",
        "[::1.x",
        "x.host.docker.internal",
    ],
)
def test_without_keys_an_unknown_host_is_refused(client: FlaskClient, host: str) -> None:
    response = client.get("/jobs", headers={"Host": host})
    assert refusal(response) == (403, "unknown_host")
    assert "server.allowed_hosts" in response.get_json()["detail"]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LOCALHOST.",
        "me.localhost",
        "api",
        "api:8000",
        "10.0.0.1:80",
        "host.docker.internal:8000",
        "host.containers.internal",
        "[::1]:80",
        "[::1]",
    ],
)
def test_without_keys_addresses_and_local_names_are_answered(client: FlaskClient, host: str) -> None:
    assert client.get("/jobs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("allowed", "hosts"),
    [
        (("llm.example.org",), {"llm.example.org:8000": 200, "x.llm.example.org": 403, "example.org": 403}),
        ((".example.org",), {"llm.example.org": 200, "example.org": 200, "evilexample.org": 403}),
        (("*",), {"evil.example": 200}),
    ],
)
def test_the_hosts_of_the_configuration_are_answered(
    make_client: MakeClient, redis_url: str, allowed: tuple[str, ...], hosts: dict[str, int]
) -> None:
    client = make_client(allowed_hosts=allowed)
    assert {host: client.get("/jobs", headers={"Host": host}).status_code for host in hosts} == hosts


def test_with_keys_neither_host_nor_origin_matters(make_client: MakeClient, worker: ScriptedWorker) -> None:
    client = make_client(keys=KEYS)
    headers = {"Host": "llm.example.org", "Origin": "app://obsidian.md", "Sec_Fetch_Site": "cross-site"}
    assert generate(client, **headers).status_code == 401
    response = generate(client, **headers, Authorization=f"Bearer {KEYS[0]}")
    assert response.status_code == 202 and "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("keys", [(), KEYS])
@pytest.mark.parametrize("origins", [(APP,), ("*",)])
def test_a_page_of_an_allowed_origin_may_call_and_read(
    make_client: MakeClient, worker: ScriptedWorker, keys: tuple[str, ...], origins: tuple[str, ...]
) -> None:
    client = make_client(keys=keys, allowed_origins=origins)
    asked = client.options("/v1/chat/completions", headers=PREFLIGHT)
    assert (asked.status_code, asked.headers["Access-Control-Allow-Headers"]) == (204, "authorization")
    assert "POST" in asked.headers["Access-Control-Allow-Methods"]
    key = {"Authorization": f"Bearer {keys[0]}"} if keys else {}
    made = generate(client, Origin=APP, Sec_Fetch_Site="cross-site", **key)
    assert made.status_code == 202
    for response in (asked, made):
        assert response.headers["Access-Control-Allow-Origin"] == APP and "Origin" in response.headers["Vary"]


def test_a_page_of_an_allowed_origin_can_read_every_header(make_client: MakeClient, worker: ScriptedWorker) -> None:
    client = make_client(allowed_origins=(APP,))
    schema = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {"messages": [{"role": "user", "content": "Hi"}], "response_format": form}
    web_search = {"input": "Hi", "tools": [{"type": "web_search"}]}
    responses = [
        client.post("/v1/chat/completions", json=body, headers={"Origin": APP}),
        client.post("/v1/responses", json=web_search, headers={"Origin": APP}),
        client.post("/generate", json={"prompt": "x"}, headers={"Origin": APP, "Content-Encoding": "br"}),
        client.put("/generate", headers={"Origin": APP}),
        generate(make_client(keys=KEYS, allowed_origins=(APP,)), Origin=APP),
    ]
    assert [response.status_code for response in responses] == [200, 200, 415, 405, 401]
    exposed = set(responses[0].headers["Access-Control-Expose-Headers"].lower().split(", "))
    for browsers in (HEADERS, ("Content-Type", "Content-Length", "Vary")):
        exposed |= {name.lower() for name in browsers}
    names = {name.lower() for response in responses for name in response.headers.keys()}  # noqa: SIM118
    assert {name for name in names - exposed if not name.startswith("access-control-")} == set()
    assert {"unenforced-keywords", "ignored-fields", "allow", "accept-encoding", "www-authenticate"} <= names


def test_errors_of_allowed_origins_can_be_read_too(make_client: MakeClient) -> None:
    response = generate(make_client(keys=KEYS, allowed_origins=(APP,)), Origin=APP)
    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (401, APP)


def test_another_origin_than_the_allowed_one_is_refused(make_client: MakeClient) -> None:
    client = make_client(allowed_origins=(APP,))
    assert refusal(generate(client, Origin=f"{APP}.evil.example")) == (403, "cross_site_request")
    assert client.options("/agenerate", headers=PREFLIGHT | {"Origin": "https://evil.example"}).status_code == 403
    assert generate(client, Sec_Fetch_Site="same-origin").headers["Vary"] == "Origin", "for caches"

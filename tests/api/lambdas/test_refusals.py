"""Who may not: pages, strangers, profiles without the right; and paths that try to go round."""

from __future__ import annotations

import http.client
import json
import socket
import time
from base64 import b64encode
from typing import Any

import pytest

from millstream.api.connection import Request
from millstream.api.server import ServerLimits
from millstream.api.sigv4 import sign
from millstream.limits import REQUEST_BODY_BYTES_MAX
from millstream.tests.api.lambdas.conftest import OPEN, Served, serving
from millstream.tests.api.lambdas.test_functions import create, refused
from millstream.tests.lambdas.fakes import ROLE, package

ROUTES = [
    ("POST", "/2015-03-31/functions"),
    ("GET", "/2015-03-31/functions"),
    ("GET", "/2015-03-31/functions/f"),
    ("GET", "/2015-03-31/functions/f/configuration"),
    ("PUT", "/2015-03-31/functions/f/configuration"),
    ("PUT", "/2015-03-31/functions/f/code"),
    ("DELETE", "/2015-03-31/functions/f"),
    ("POST", "/2015-03-31/functions/f/invocations"),
    ("POST", "/2015-03-31/event-source-mappings"),
    ("GET", "/2015-03-31/event-source-mappings"),
    ("GET", "/2015-03-31/event-source-mappings/u"),
    ("PUT", "/2015-03-31/event-source-mappings/u"),
    ("DELETE", "/2015-03-31/event-source-mappings/u"),
    # What is not there is not told to strangers either.
    ("GET", "/2015-03-31/functions/f/policy"),
]
CREATION = json.dumps({
    "FunctionName": "f",
    "Runtime": "python3.12",
    "Handler": "app.handler",
    "Role": ROLE,
    "Code": {"ZipFile": b64encode(package()).decode()},
}).encode()  # fmt: skip


def ask(
    served: Served,
    method: str = "POST",
    path: str = "/2015-03-31/functions",
    body: bytes = CREATION,
    headers: dict[str, str] | None = None,
    key: str = "ns-raw",
    secret: str = "secret",
    service: str = "lambda",
    sign_it: bool = True,
) -> tuple[int, dict[str, str], bytes]:
    """Send a request as it is; the answer's status, headers and body."""
    made = {b"host": f"127.0.0.1:{served.port}".encode()}
    made |= {name.lower().encode(): value.encode() for name, value in (headers or {}).items()}
    if sign_it:
        raw, _, query = path.partition("?")
        request = Request(method.encode(), raw.encode(), query.encode() or None, made, body)
        made = sign(request, key, secret, "us-east-1", time.time(), service=service)
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in made.items():
            connection.putheader(name.decode(), value)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def nothing_was_made(served: Served) -> bool:
    return not served.entries.rows and not served.invokers.made


@pytest.fixture
def empty(open_server: Served) -> Any:
    open_server.entries.rows.clear()
    open_server.invokers.made.clear()
    yield open_server
    assert nothing_was_made(open_server)


PAGES = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:3000"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "garbage"},
]


@pytest.mark.parametrize("page", PAGES, ids=str)
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_no_page_may_without_credentials_whatever_data_is_allowed(empty, method, path, page):
    status, _, body = ask(empty, method, path, headers=page)
    assert status == 403
    assert b"AccessDenied" in body


def test_a_page_of_this_very_origin_may_not_either(empty):
    headers = {"Origin": f"http://127.0.0.1:{empty.port}", "Sec-Fetch-Site": "same-origin"}
    assert ask(empty, headers=headers)[0] == 403
    # That page may use data: the operator allows it.
    headers |= {"X-Amz-Target": "T", "Content-Type": "application/json"}
    assert ask(empty, path="/", headers=headers)[0] == 200


@pytest.mark.parametrize("host", ["db.example", "evil.example", "127.0.0.1.evil.example", ""])
def test_host_must_be_loopback_even_where_another_is_allowed(empty, host):
    assert ask(empty, headers={"Host": host})[0] == 403


def test_absolute_form_does_not_hide_its_authority(empty):
    path = "http://db.example/2015-03-31/functions"
    assert ask(empty, path=path, sign_it=False)[0] == 403


def test_unsigned_request_is_refused(empty):
    for method, path in ROUTES:
        status, headers, _ = ask(empty, method, path, sign_it=False)
        assert (status, headers["x-amzn-errortype"]) == (403, "MissingAuthenticationTokenException")


def test_request_of_this_machine_may(open_server):
    status, headers, body = ask(open_server, headers={"Sec-Fetch-Site": "none"})
    assert status == 201, body
    assert headers["content-type"] == "application/json"
    status, headers, body = ask(open_server, "DELETE", "/2015-03-31/functions/f", b"")
    assert (status, body) == (204, b"")
    assert "content-length" not in headers


# With credentials.


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_profile_without_the_right_may_nothing(signed_server, method, path):
    status, headers, body = ask(signed_server, method, path, key="AKNOT")
    assert (status, headers["x-amzn-errortype"]) == (403, "AccessDeniedException")
    message = json.loads(body)["Message"]
    assert message.startswith(
        "User: arn:aws:iam::123456789012:user/AKNOT is not authorized to perform: lambda:"
    )
    assert nothing_was_made(signed_server)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"secret": "wrong"}, "InvalidSignatureException"),
        ({"key": "AKNOBODY"}, "UnrecognizedClientException"),
        ({"service": "dynamodb"}, "InvalidSignatureException"),
        ({"sign_it": False}, "MissingAuthenticationTokenException"),
    ],
)
def test_wrong_signature(signed_server, change, name):
    status, headers, body = ask(signed_server, **({"key": "AKMAY"} | change))
    assert (status, headers["x-amzn-errortype"]) == (403, name)
    assert "__type" not in json.loads(body)
    assert nothing_was_made(signed_server)


def test_signature_of_lambda_does_not_open_the_data(signed_server):
    headers = {"X-Amz-Target": "T", "Content-Type": "application/x-amz-json-1.0"}
    assert ask(signed_server, path="/", headers=headers, key="AKMAY")[0] == 400
    assert ask(
        signed_server, path="/", headers=headers, key="AKMAY", service="dynamodb"
    )[0] == 200


def test_path_and_query_are_signed(signed_server, client_of):
    client = client_of(signed_server, "AKMAY")
    create(client)
    arn = "arn:aws:lambda:us-east-1:123456789012:function:f"
    for name in ("f", arn, "f:$LATEST"):
        assert client.get_function(FunctionName=name, Qualifier="$LATEST")["Configuration"]
    assert client.invoke(FunctionName=arn, Payload=b"1")["Payload"].read() == b'{"event":1}'
    client.list_event_source_mappings(EventSourceArn=arn, FunctionName="f", MaxItems=3)
    url = client.generate_presigned_url("get_function", {"FunctionName": "f"})
    path = url.removeprefix(signed_server.url)
    assert ask(signed_server, "GET", path, b"", sign_it=False)[0] == 200
    assert ask(signed_server, "GET", path.replace("/f?", "/g?"), b"", sign_it=False)[0] == 403
    # Signed for one query, sent with another.
    made = {b"host": f"127.0.0.1:{signed_server.port}".encode()}
    request = Request(b"GET", b"/2015-03-31/functions", b"MaxItems=1", made, b"")
    headers = sign(request, "AKMAY", "secret", "us-east-1", time.time(), service="lambda")
    plain = {name.decode(): value.decode() for name, value in headers.items()}
    for query, status in (("MaxItems=1", 200), ("MaxItems=2", 403)):
        path = f"/2015-03-31/functions?{query}"
        assert ask(signed_server, "GET", path, b"", plain, sign_it=False)[0] == status
    client.delete_function(FunctionName="f")
    signed_server.entries.rows.clear()
    signed_server.invokers.made.clear()


def test_namespaces_do_not_see_each_other(signed_server, client_of):
    mine, other = client_of(signed_server, "AKMAY"), client_of(signed_server, "AKOTHER")
    create(mine)
    assert refused(other.invoke, FunctionName="f")[0] == "ResourceNotFoundException"
    assert other.list_functions()["Functions"] == []
    mine.delete_function(FunctionName="f")


def test_a_page_may_with_a_signature(signed_server):
    status, headers, _ = ask(
        signed_server,
        "GET",
        body=b"",
        headers={"Origin": "https://app.example"},
        key="AKMAY",
    )
    assert (status, headers["access-control-allow-origin"]) == (200, "*")


# Large bodies.


def head_of_large(served: Served, key: str, path: str, size: int, method: str = "POST") -> bytes:
    """The first line of what is answered to the head of a request with a large body."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as opened:
        opened.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n"
            "Expect: 100-continue\r\nAuthorization: AWS4-HMAC-SHA256 "
            f"Credential={key}/20260101/us-east-1/lambda/aws4_request, SignedHeaders=host, "
            "Signature=00\r\n\r\n".encode()
        )
        return opened.makefile("rb").readline().strip()


LARGE = REQUEST_BODY_BYTES_MAX + 1
CONTINUE = b"HTTP/1.1 100 Continue"


@pytest.mark.parametrize(
    ("key", "path", "size", "method", "answered"),
    [
        ("AKMAY", "/2015-03-31/functions", LARGE, "POST", CONTINUE),
        ("AKMAY", "/2015-03-31/functions/f/code", LARGE, "PUT", CONTINUE),
        ("AKMAY", "/2015-03-31/functions", 70_167_211, "POST", CONTINUE),
        ("AKMAY", "/2015-03-31/functions", 70_167_212, "POST", b"HTTP/1.1 413"),
        ("AKMAY", "/2015-03-31/functions/f/invocations", LARGE, "POST", b"HTTP/1.1 413"),
        ("AKMAY", "/2015-03-31/event-source-mappings", LARGE, "POST", b"HTTP/1.1 413"),
        ("AKMAY", "/2015-03-31/functions", LARGE, "PUT", b"HTTP/1.1 413"),
        ("AKMAY", "/", LARGE, "POST", b"HTTP/1.1 413"),
        ("AKMAY", "/2015-03-31/functions/../functions", LARGE, "POST", b"HTTP/1.1 413"),
        ("AKNOT", "/2015-03-31/functions", LARGE, "POST", b"HTTP/1.1 403"),
        ("AKNOBODY", "/2015-03-31/functions", LARGE, "POST", b"HTTP/1.1 403"),
        ("AKNOT", "/2015-03-31/functions", REQUEST_BODY_BYTES_MAX, "POST", CONTINUE),
    ],
)
def test_large_bodies_are_read_on_two_routes_of_those_who_may(
    signed_server, key, path, size, method, answered
):
    assert head_of_large(signed_server, key, path, size, method).startswith(answered)


def test_large_body_of_a_page_is_not_read(open_server):
    with socket.create_connection(("127.0.0.1", open_server.port), timeout=20) as opened:
        opened.sendall(
            b"POST /2015-03-31/functions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Origin: http://evil.example\r\nExpect: 100-continue\r\n"
            b"Content-Length: %d\r\n\r\n" % LARGE
        )
        assert opened.makefile("rb").readline().startswith(b"HTTP/1.1 403")


def test_body_that_could_never_be_held_is_refused_and_not_awaited():
    with serving(OPEN, ServerLimits(shutdown_seconds=1, bytes_in_flight=LARGE)) as served:
        with socket.create_connection(("127.0.0.1", served.port), timeout=20) as opened:
            opened.sendall(
                b"POST /2015-03-31/functions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                b"Content-Length: %d\r\n\r\n{" % (LARGE + 1)
            )
            assert opened.makefile("rb").readline().startswith(b"HTTP/1.1 503")


def test_chunked_body_is_bounded_too(signed_server):
    with socket.create_connection(("127.0.0.1", signed_server.port), timeout=20) as opened:
        opened.sendall(
            b"POST /2015-03-31/functions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % LARGE
        )
        assert opened.makefile("rb").readline().startswith(b"HTTP/1.1 403")


# Paths.


@pytest.mark.parametrize(
    "path",
    [
        "/2015-03-31/functions/..",
        "/2015-03-31/functions/../../etc/passwd",
        "/2015-03-31//functions",
        "//2015-03-31/functions",
        "/2015-03-31/functions/f/code/more",
        "/2015-03-31/functions//code",
        "/2015-03-31/Functions",
        "/2015-03-31/*",
        "/2015-03-31/functions/*/nothing",
        "/2015-03-31",
        "/2015-03-31/",
        "/2014-11-13/functions",
        "/%32015-03-31/functions",
        "/2015-03-31/%66unctions",
    ],
)
def test_no_other_path_is_a_route(open_server, path):
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
        status, _, body = ask(open_server, method, path, b"{}", sign_it=True)
        # Two of these are a route whose name is none.
        assert status == 404 or (status == 400 and b"at 'functionName'" in body), (method, body)


@pytest.mark.parametrize("name", ["a%2Fb", "..%2Ff", "%2e%2e", "f%00", "%ff", "f%0d%0aX:y", "*"])
def test_name_that_decodes_to_none_is_refused(open_server, name):
    path = f"/2015-03-31/functions/{name}"
    for method, more in (("GET", ""), ("PUT", "/code"), ("POST", "/invocations"), ("DELETE", "")):
        status, headers, _ = ask(open_server, method, path + more, b"{}")
        assert (status, headers["x-amzn-errortype"]) == (400, "ValidationException")


def test_slash_at_the_end_is_the_same_path(open_server):
    assert ask(open_server, "GET", "/2015-03-31/event-source-mappings/", b"")[0] == 200
    assert ask(open_server, "GET", "/2015-03-31/functions/", b"")[0] == 200


def test_unknown_query_parameter_is_refused(open_server):
    status, headers, body = ask(open_server, "GET", "/2015-03-31/functions?Wish=1", b"")
    assert (status, headers["x-amzn-errortype"]) == (400, "InvalidParameterValueException")
    assert json.loads(body) == {
        "Type": "User",
        "message": "Unknown parameter in the query string: Wish",
    }


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b'{"Code": 1}', b"\xff"])
def test_body_that_is_no_request(open_server, body):
    status, headers, answer = ask(open_server, body=body)
    assert status == 400
    assert headers["x-amzn-errortype"] in (
        "InvalidRequestContentException",
        "ValidationException",
    )
    assert json.loads(answer)["message"]


def test_name_of_an_operation_on_data_does_not_change_how_it_is_served(open_server):
    """Operations on data may be begun outside of a connection's task, these may not."""
    headers = {"X-Amz-Target": "DynamoDB_20120810.GetItem"}
    assert ask(open_server, headers=headers, key="ns-target")[0] == 201
    path = "/2015-03-31/functions/f"
    assert ask(open_server, "POST", f"{path}/invocations", b"1", headers, "ns-target")[0] == 200
    assert ask(open_server, "DELETE", path, b"", headers, "ns-target")[0] == 204

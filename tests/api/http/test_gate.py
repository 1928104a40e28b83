"""Which addresses may be bound, and which hosts and origins are let in."""

from __future__ import annotations

import pytest

from millstream.api.connection import Request
from millstream.api.credentials import Credential, Credentials
from millstream.api.errors import ForbiddenException
from millstream.api.gate import Gate, Policy, check_bind
from millstream.errors import ConfigurationError

SIGNED = Policy(credentials=Credentials([Credential("p", "A", "S")]))
OPEN = Policy()


def asking(**headers: str) -> Request:
    named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Request(b"POST", b"/", None, named, b"")


def refused(policy: Policy, **headers: str) -> str:
    gate = Gate(policy)
    for _ in range(2):  # what was refused once is refused again
        with pytest.raises(ForbiddenException) as caught:
            gate.admit(asking(**headers))
    assert caught.value.status == 403
    return str(caught.value)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LOCALHOST"]
)
def test_loopback_may_be_bound(host):
    check_bind(host, OPEN)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "example.com", "localhost.x"])
def test_other_addresses_need_credentials(host):
    with pytest.raises(ConfigurationError, match="without --credentials only a loopback"):
        check_bind(host, OPEN)
    check_bind(host, SIGNED)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LocalHost:1",
        "127.0.0.1:8000",
        "[::1]:8000",
        "[::1]",
        "::1",
        "localhost.:80",
    ],
)
def test_loopback_names_are_let_in(host):
    gate = Gate(OPEN)
    for _ in range(2):
        assert gate.admit(asking(host=host)) == b""


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "localhost:8000:1",
        "localhost,evil.example",
        "10.0.0.1",
        "::1:80:x",
        "localhost:x",
    ],
)
def test_other_names_are_not_for_a_page_may_resolve_to_loopback(host):
    assert "--allow-host" in refused(OPEN, host=host)


def test_further_hosts_can_be_allowed():
    gate = Gate(Policy(allow_hosts=("Dynamo.Test",)))
    assert gate.admit(asking(host="dynamo.test:8000")) == b""
    assert gate.admit(asking(host="localhost")) == b""


def test_no_host_is_no_browser():
    assert Gate(OPEN).admit(asking()) == b""


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "https://localhost:8000",
        "http://localhost:3000",
        "null",
        "http://127.0.0.1:8000",
        "",
    ],
)
def test_foreign_origin_is_refused(origin):
    assert "--cors-origin" in refused(OPEN, host="localhost:8000", origin=origin)


def test_own_pages_are_let_in_without_cors():
    assert Gate(OPEN).admit(asking(host="localhost:8000", origin="http://localhost:8000")) == b""


def test_named_origin_is_let_in_and_told_so():
    gate = Gate(Policy(cors_origins=("https://App.Example/",)))
    lines = gate.admit(asking(host="localhost", origin="https://app.example"))
    assert b"Access-Control-Allow-Origin: https://app.example\r\n" in lines
    assert b"Access-Control-Expose-Headers: " in lines
    assert b"Vary: Origin\r\n" in lines
    with pytest.raises(ForbiddenException):
        gate.admit(asking(host="localhost", origin="https://other.example"))
    with pytest.raises(ForbiddenException):
        gate.admit(asking(host="evil.example", origin="https://app.example"))


def test_every_origin_can_be_named():
    gate = Gate(Policy(cors_origins=("*",)))
    assert b"Origin: http://a.b\r\n" in gate.admit(asking(host="localhost", origin="http://a.b"))


@pytest.mark.parametrize(
    ("site", "let_in"),
    [
        ("none", True),
        ("same-origin", True),
        ("same-site", False),
        ("cross-site", False),
    ],
)
def test_page_without_an_origin_is_known_by_sec_fetch_site(site, let_in):
    if let_in:
        assert Gate(OPEN).admit(asking(host="localhost", sec_fetch_site=site)) == b""
    else:
        assert "another site" in refused(OPEN, host="localhost", sec_fetch_site=site)


def test_with_credentials_everybody_may_knock():
    gate = Gate(SIGNED)
    assert gate.admit(asking(host="evil.example", sec_fetch_site="cross-site")) == b""
    lines = gate.admit(asking(host="any.example", origin="http://a.b"))
    assert b"Access-Control-Allow-Origin: *\r\n" in lines
    assert b"Vary" not in lines


def test_preflight_allows_what_was_asked():
    gate = Gate(SIGNED)
    request = asking(
        host="x",
        origin="http://a.b",
        access_control_request_method="POST",
        access_control_request_headers="authorization,x-amz-target",
        access_control_request_private_network="true",
    )
    lines = gate.preflight(request, gate.admit(request))
    for line in (
        b"Access-Control-Allow-Origin: *\r\n",
        b"Access-Control-Allow-Methods: POST\r\n",
        b"Access-Control-Allow-Headers: authorization,x-amz-target\r\n",
        b"Access-Control-Allow-Private-Network: true\r\n",
        b"Access-Control-Max-Age: 172800\r\n",
    ):
        assert line in lines


def test_options_without_an_origin_says_what_is_served():
    gate = Gate(OPEN)
    assert gate.preflight(asking(host="localhost"), b"") == b"Allow: GET, HEAD, OPTIONS, POST\r\n"


# Running code.


def code_refused(policy: Policy, **headers: str) -> bool:
    try:
        Gate(policy).admit_code(asking(**headers))
    except ForbiddenException:
        return True
    return False


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST.:1"])
def test_this_machine_may_run_code(host):
    assert not code_refused(OPEN, host=host)
    assert not code_refused(OPEN, host=host, sec_fetch_site="same-origin")
    assert not code_refused(OPEN, host=host, sec_fetch_site="none")


def test_no_page_may_run_code_without_credentials():
    policy = Policy(cors_origins=("*", "http://localhost"), allow_hosts=("db.example",))
    for origin in ("http://localhost", "https://a.example", "null", ""):
        assert code_refused(policy, host="localhost", origin=origin)
    for site in ("cross-site", "same-site", "x", ""):
        assert code_refused(policy, host="localhost", sec_fetch_site=site)


def test_other_hosts_may_not_run_code_without_credentials():
    policy = Policy(allow_hosts=("db.example",))
    for host in ("db.example", "db.example:80", "localhost.example", "", "127.0.0.1.x"):
        assert code_refused(policy, host=host)
    assert code_refused(policy)


def test_with_credentials_the_signature_is_the_door_to_code_too():
    assert not code_refused(SIGNED, host="db.example", origin="https://a.example")

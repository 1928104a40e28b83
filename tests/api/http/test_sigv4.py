"""Signatures: botocore signs, we verify; whatever is changed on the way is refused."""

from __future__ import annotations

import datetime
import re

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import given
from hypothesis import strategies as st

from millstream.api.connection import Request
from millstream.api.credentials import Credential, Credentials
from millstream.api.errors import (
    ExpiredTokenException,
    IncompleteSignatureException,
    InvalidSignatureException,
    MissingAuthenticationTokenException,
    UnrecognizedClientException,
    WireError,
)
from millstream.api.sigv4 import LAMBDA, Verifier, claimed_access_key, sign

NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z
KEY, SECRET, TOKEN = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "session/token=="
CREDENTIALS = Credentials(
    [
        Credential("plain", KEY, SECRET, namespace="one", functions=True),
        Credential("token", "AKIDTOKEN", SECRET, session_token=TOKEN, expires_at=NOW + 60),
    ]
)


class Frozen(datetime.datetime):
    """The time at which botocore signs."""

    @classmethod
    def utcnow(cls):
        return datetime.datetime.fromtimestamp(NOW, datetime.UTC).replace(tzinfo=None)

    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(NOW, tz)


@pytest.fixture(autouse=True, scope="module")
def _frozen():
    import botocore.auth

    patch = pytest.MonkeyPatch()
    patch.setattr(botocore.auth, "get_current_datetime", lambda **_: Frozen.utcnow())
    yield
    patch.undo()


def received(prepared: AWSPreparedRequest) -> Request:
    """What arrives of a request of botocore's."""
    address = prepared.url.partition("://")[2]
    authority, slash, rest = address.partition("/")
    path, mark, query = (slash + rest or "/").partition("?")
    headers = {b"host": authority.encode()}
    for name, value in prepared.headers.items():
        text = value if isinstance(value, bytes) else str(value).encode()
        headers[name.lower().encode()] = text.strip()
    body = prepared.body or b""
    return Request(
        prepared.method.encode(),
        path.encode(),
        query.encode() if mark else None,
        headers,
        body.encode() if isinstance(body, str) else bytes(body),
    )


def signed(
    path: str = "/",
    params: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    body: bytes = b"{}",
    key: str = KEY,
    secret: str = SECRET,
    token: str | None = None,
    region: str = "us-east-1",
    service: str = "dynamodb",
    expires: int | None = None,
) -> Request:
    request = AWSRequest(
        "POST",
        f"http://localhost:8000{path}",
        data=body,
        params=params,
        headers={"X-Amz-Target": "DynamoDB_20120810.GetItem", **(headers or {})},
    )
    credentials = BotoCredentials(key, secret, token)
    if expires is None:
        SigV4Auth(credentials, service, region).add_auth(request)
    else:
        SigV4QueryAuth(credentials, service, region, expires).add_auth(request)
    return received(request.prepare())


def changed(request: Request, **headers: bytes) -> Request:
    """``request`` with other headers; an empty one is left out."""
    fresh = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    kept = {name: value for name, value in {**request.headers, **fresh}.items() if value}
    return Request(request.method, request.path, request.query, kept, request.payload)


def refusal(request: Request, kind: type[WireError], now: float = NOW, **more: object) -> str:
    with pytest.raises(kind) as caught:
        Verifier(CREDENTIALS, **more).verify(request, now)  # type: ignore[arg-type]
    return str(caught.value)


def test_botocore_is_believed():
    identity = Verifier(CREDENTIALS).verify(signed(), NOW)
    assert identity.access_key == KEY
    assert identity.region == "us-east-1"
    assert identity.namespace == "one"
    assert identity.functions


def test_second_request_takes_the_cached_way_to_the_same_answers():
    verifier = Verifier(CREDENTIALS)
    assert verifier.verify(signed(), NOW) is verifier.verify(signed(body=b"[]"), NOW)
    for wrong in (
        Request(b"POST", b"/", None, signed().headers, b"{ }"),
        changed(signed(), x_amz_target=b"DynamoDB_20120810.PutItem"),
        changed(signed(), x_amz_date=b"20231114T221321Z"),
    ):
        with pytest.raises(InvalidSignatureException, match="does not match"):
            verifier.verify(wrong, NOW)
    with pytest.raises(InvalidSignatureException, match="Signature expired"):
        verifier.verify(signed(), NOW + 901)
    with pytest.raises(InvalidSignatureException, match="Date in Credential scope"):
        verifier.verify(changed(signed(), x_amz_date=b"20231115T000000Z"), NOW + 6400)


AWKWARD = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6
)
PARAMS = st.dictionaries(
    st.one_of(AWKWARD, st.sampled_from(["a", "b c", "%", "ü", "~", "a+b", "="])),
    st.one_of(AWKWARD, st.sampled_from(["", "x y", "%41", "/", "&", "+", "'", "*"])),
    max_size=4,
)
PATHS = st.text("/ab.~%-_*+=:@!$'(),;", max_size=12).map(lambda path: "/" + path)
VALUES = st.text("ab \t,;=%", max_size=10)


@given(PATHS, PARAMS, VALUES, st.binary(max_size=20))
def test_odd_requests_are_believed(path, params, value, body):
    request = signed(path, params or None, {"X-Amz-Odd": value, "My-Header": value * 2}, body)
    assert Verifier(CREDENTIALS).verify(request, NOW).namespace == "one"


@given(PATHS, PARAMS)
def test_odd_presigned_requests_are_believed(path, params):
    if path.startswith("//"):
        return  # botocore takes what follows for a host
    # Without a body: botocore would move it into the query.
    request = signed(path, params or None, body=b"", expires=60)
    assert b"authorization" not in request.headers
    assert Verifier(CREDENTIALS).verify(request, NOW + 59).namespace == "one"


@given(st.data())
def test_whatever_is_changed_is_refused(data):
    request = signed("/a", {"q": "v"}, {"X-Amz-More": "value"}, b'{"a":1}')
    part = data.draw(st.sampled_from(["method", "path", "query", "payload", *request.headers]))
    old = request.headers.get(part) if isinstance(part, bytes) else getattr(request, part)
    place = data.draw(st.integers(0, len(old) - 1))
    letter = data.draw(st.sampled_from(b"abcXYZ0123456789"))
    new = old[:place] + bytes([letter]) + old[place + 1 :]
    if new == old or part == b"content-length":
        return  # botocore does not sign the length: the frame is HTTP's
    fields = {name: getattr(request, name) for name in ("method", "path", "query", "payload")}
    headers = dict(request.headers)
    (headers if isinstance(part, bytes) else fields)[part] = new
    with pytest.raises(WireError):
        Verifier(CREDENTIALS).verify(Request(headers=headers, **fields), NOW)


@given(st.binary(max_size=60), st.booleans())
def test_random_authorization_is_refused_and_no_more(data, prefixed):
    header = (b"AWS4-HMAC-SHA256 Credential=" if prefixed else b"") + data
    for verifier in (Verifier(CREDENTIALS), Verifier(None)):
        try:
            verifier.verify(changed(signed(), authorization=header or b" "), NOW)
        except WireError:
            pass


def test_our_own_signature_is_believed_and_is_botocores():
    theirs = signed()
    plain = {b"host": b"localhost:8000", b"x-amz-target": b"DynamoDB_20120810.GetItem"}
    ours = sign(Request(b"POST", b"/", None, plain, b"{}"), KEY, SECRET, "us-east-1", NOW)
    assert ours[b"authorization"] == theirs.headers[b"authorization"]
    tokened = sign(
        Request(b"POST", b"/", None, plain, b"{}"), "AKIDTOKEN", SECRET, "eu-west-1", NOW, TOKEN
    )
    request = Request(b"POST", b"/", None, tokened, b"{}")
    assert Verifier(CREDENTIALS).verify(request, NOW).region == "eu-west-1"


# What is refused, and in which words.


def test_missing_signature():
    message = (
        "Request must contain either a valid (registered) AWS access key ID or X.509 certificate."
    )
    for verifier in (Verifier(CREDENTIALS), Verifier(None)):
        for header in (b"", b"Basic YTpi"):
            with pytest.raises(MissingAuthenticationTokenException) as caught:
                verifier.verify(changed(signed(), authorization=header), NOW)
            assert str(caught.value) == message


def test_both_kinds_of_signature():
    request = Request(b"POST", b"/", b"X-Amz-Algorithm=x", signed().headers, b"{}")
    assert refusal(request, InvalidSignatureException) == (
        "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header."
    )


def test_incomplete_header():
    header = b"AWS4-HMAC-SHA256 Credential=a"
    message = refusal(
        changed(signed(), authorization=header, x_amz_date=b""), IncompleteSignatureException
    )
    assert message == (
        "Authorization header requires 'Signature' parameter. "
        "Authorization header requires 'SignedHeaders' parameter. "
        "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
        "Authorization=AWS4-HMAC-SHA256 Credential=a"
    )
    message = refusal(
        changed(signed(), authorization=b"AWS4-HMAC-SHA256 Signature=b,  Credential,"),
        IncompleteSignatureException,
    )
    assert message.startswith("'Credential' not a valid key=value pair (missing equal-sign)")


@pytest.mark.parametrize(
    "stamp", [b"201", b"2023-11-14T22:13:2", b"20231314T221320Z", b"\xff" * 16]
)
def test_date_in_no_known_form(stamp):
    message = refusal(changed(signed(), x_amz_date=stamp), IncompleteSignatureException)
    assert message.startswith("Date must be in ISO-8601 'basic format'. Got '")


def test_clock_skew_is_fifteen_minutes_either_way():
    verifier = Verifier(CREDENTIALS)
    for now in (NOW - 900, NOW + 900):
        assert verifier.verify(signed(), now)
    assert refusal(signed(), InvalidSignatureException, NOW + 901) == (
        "Signature expired: 20231114T221320Z is now earlier than 20231114T221321Z "
        "(20231114T222821Z - 15 min.)"
    )
    assert refusal(signed(), InvalidSignatureException, NOW - 901) == (
        "Signature not yet current: 20231114T221320Z is still later than 20231114T221319Z "
        "(20231114T215819Z + 15 min.)"
    )


def test_date_header_will_do():
    request = AWSRequest("POST", "http://localhost:8000/", data=b"{}", headers={"Date": "x"})
    SigV4Auth(BotoCredentials(KEY, SECRET), "dynamodb", "us-east-1").add_auth(request)
    arrived = received(request.prepare())
    assert b"x-amz-date" not in arrived.headers
    assert Verifier(CREDENTIALS).verify(arrived, NOW).access_key == KEY


def test_host_must_be_signed():
    header = re.sub(rb"host;", b"", signed().headers[b"authorization"])
    assert refusal(changed(signed(), authorization=header), InvalidSignatureException) == (
        "'Host' must be a 'SignedHeader' in the AWS Authorization."
    )


def test_algorithm_must_be_known():
    header = signed().headers[b"authorization"].replace(b"SHA256 ", b"SHA25 ")
    message = refusal(changed(signed(), authorization=header), IncompleteSignatureException)
    assert message == (
        "Unsupported AWS 'algorithm': 'AWS4-HMAC-SHA25' (only AWS4-HMAC-SHA256 for now). "
    )


def test_credential_has_five_elements():
    header = signed().headers[b"authorization"].replace(b"/aws4_request", b"")
    message = refusal(changed(signed(), authorization=header), IncompleteSignatureException)
    assert message == (
        "Credential must have exactly 5 slash-delimited elements, e.g. "
        "keyid/date/region/service/term, got 'AKIDEXAMPLE/20231114/us-east-1/dynamodb'"
    )


def test_scope_must_be_right_in_everything():
    header = signed(region="c", service="d").headers[b"authorization"]
    header = header.replace(b"/aws4_request", b"/e").replace(b"/20231114/", b"/b/")
    message = refusal(
        changed(signed(), authorization=header), InvalidSignatureException, region="us-east-1"
    )
    assert message == (
        "Credential should be scoped to a valid region, not 'c'. "
        "Credential should be scoped to correct service: 'dynamodb'. "
        "Credential should be scoped with a valid terminator: 'aws4_request', not 'e'. "
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from "
        "HTTP: 'b' != '20231114', from '20231114T221320Z'."
    )


def test_unknown_key_and_wrong_secret():
    assert refusal(signed(key="AKIDOTHER"), UnrecognizedClientException) == (
        "The security token included in the request is invalid."
    )
    message = refusal(signed(secret="wrong"), InvalidSignatureException)
    assert message.startswith("The request signature we calculated does not match the signature")
    assert "The Canonical String for this request should have been\n'POST\n/\n\nhost:" in message
    assert SECRET not in message


def test_session_token():
    assert Verifier(CREDENTIALS).verify(signed(key="AKIDTOKEN", token=TOKEN), NOW)
    for request in (
        signed(key="AKIDTOKEN"),
        signed(key="AKIDTOKEN", token="other"),
        signed(token=TOKEN),
    ):
        refusal(request, UnrecognizedClientException)
    message = refusal(signed(key="AKIDTOKEN", token=TOKEN), ExpiredTokenException, NOW + 60)
    assert message == "The security token included in the request is expired"
    presigned = signed(key="AKIDTOKEN", token=TOKEN, expires=9)
    assert Verifier(CREDENTIALS).verify(presigned, NOW)


def test_presigned_request_expires():
    refusal(signed(expires=60), InvalidSignatureException, NOW + 61)
    assert Verifier(CREDENTIALS).verify(signed(expires=7200), NOW + 7200)
    refusal(signed(expires=7200), InvalidSignatureException, NOW - 901)
    refusal(signed(expires=7 * 86400 + 1), IncompleteSignatureException)


def test_incomplete_presigned_request():
    request = signed(expires=60)
    assert request.query is not None
    query = re.sub(rb"&X-Amz-(Date|Signature)=[^&]*", b"", request.query)
    cut = Request(request.method, request.path, query, request.headers, request.payload)
    assert refusal(cut, IncompleteSignatureException) == (
        "AWS query-string parameters must include 'X-Amz-Signature'. "
        "AWS query-string parameters must include 'X-Amz-Date'. "
        "Re-examine the query-string parameters."
    )


def test_unsigned_payload_is_not_accepted():
    request = signed(headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    refusal(request, InvalidSignatureException)


# Without credentials.


def test_any_well_formed_signature_is_accepted_without_credentials():
    verifier = Verifier(None)
    for _ in range(2):
        identity = verifier.verify(signed(key="x", secret="y", region="mars-1"), NOW + 10**6)
        assert (identity.access_key, identity.region) == ("x", "mars-1")
        assert identity.namespace == "default"
    assert verifier.verify(signed(expires=1), NOW + 10**6).access_key == KEY
    by_hand = (
        b"AWS4-HMAC-SHA256 Credential=me/0/x/dynamodb/aws4_request,SignedHeaders=a,Signature=b"
    )
    assert verifier.verify(changed(signed(), authorization=by_hand), NOW).access_key == "me"


@pytest.mark.parametrize(
    "header",
    [
        b"AWS4-HMAC-SHA256",
        b"AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host",
        b"AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=x",
        b"AWS4-HMAC-SHA256 Credential=/b/c/d/e, SignedHeaders=host, Signature=x",
        b"AWS4-OTHER Credential=a/b/c/d/e, SignedHeaders=host, Signature=x",
    ],
)
def test_what_is_not_well_formed_is_refused_without_credentials_too(header):
    verifier = Verifier(None)
    verifier.verify(
        changed(
            signed(),
            authorization=b"AWS4-HMAC-SHA256 Credential=a/b/c/d/e, SignedHeaders=host, Signature=x",
        ),
        NOW,
    )
    with pytest.raises(IncompleteSignatureException):
        verifier.verify(changed(signed(), authorization=header), NOW)
    with pytest.raises(IncompleteSignatureException):
        verifier.verify(changed(signed(), authorization=header + b", Signature="), NOW)


def test_key_that_begins_with_ns_selects_a_namespace():
    verifier = Verifier(None)
    assert verifier.verify(signed(key="ns-test.1"), NOW).namespace == "ns-test.1"
    assert verifier.verify(signed(key="ns-"), NOW).namespace == "ns-"
    assert verifier.verify(signed(key="ns-\u00e9"), NOW).namespace == "default"


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A1%3Afunction%3Af/code", None),
        ("/2015-03-31/functions/f%3A%24LATEST", {"Qualifier": "$LATEST"}),
        ("/2015-03-31/functions/", {"Marker": "a+b/c==", "MaxItems": "5"}),
        ("/2015-03-31/event-source-mappings", {"EventSourceArn": "a:b/c", "FunctionName": "ü x"}),
    ],
)
def test_paths_and_queries_of_lambda_are_signed(path, params):
    verifier = Verifier(CREDENTIALS, "us-east-1", LAMBDA)
    request = signed(path, params, service="lambda")
    assert verifier.verify(request, NOW).functions
    other = Request(b"POST", path.encode() + b"x", request.query, request.headers, request.payload)
    with pytest.raises(InvalidSignatureException):
        verifier.verify(other, NOW)
    if request.query is not None:
        query = request.query + b"&a=b"
        other = Request(b"POST", request.path, query, request.headers, request.payload)
        with pytest.raises(InvalidSignatureException):
            verifier.verify(other, NOW)


def test_each_service_has_signatures_of_its_own():
    for own, other in (("dynamodb", "lambda"), ("lambda", "dynamodb")):
        verifier = Verifier(CREDENTIALS, "us-east-1", own)
        assert verifier.verify(signed(service=own), NOW).access_key == KEY
        with pytest.raises(InvalidSignatureException, match=f"correct service: '{own}'"):
            verifier.verify(signed(service=other), NOW)


def test_claimed_access_key_is_read_without_being_believed():
    assert claimed_access_key(signed(secret="wrong")) == KEY
    assert claimed_access_key(signed(secret="wrong", expires=60)) == KEY
    for headers, query in (({}, None), ({b"authorization": b"Credential="}, b"X-Amz-Credential")):
        assert claimed_access_key(Request(b"POST", b"/", query, headers, b"")) == ""

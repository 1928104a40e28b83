"""AWS Signature Version 4: who signed a request, and signing one.

A machine without a clock: the caller says what time it is. ``Verifier`` is owned by the server,
one for each service, and asked once a request. Source of the rules: "AWS Signature Version 4 for
API requests" in the IAM user guide; the order of the checks and the wording of the refusals are
DynamoDB's.

Nearly all of an Authorization header is the same in every request of a client: what stands before
the signature names the key, the day, the region and the signed headers. It is parsed and its
signing key derived once, and kept with the two SHA-256 states of that key's HMAC (``_Scope``). A
request then costs two hashes of its own text and two of the states' copies. With credentials a
scope is kept only after a signature under it was right, so a stranger cannot wash the cache out.

The hash of the payload is always computed from the payload: an ``X-Amz-Content-SHA256`` header is
only ever one of the signed headers, so UNSIGNED-PAYLOAD is not accepted.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from ..limits import (
    CLOCK_SKEW_SECONDS_MAX,
    PRESIGNED_SECONDS_MAX,
    SIGNING_SCOPE_BYTES_MAX,
    SIGNING_SCOPES_CACHED_MAX,
)
from .connection import Request
from .credentials import Credential, Credentials, namespace_of
from .errors import (
    ExpiredTokenException,
    IncompleteSignatureException,
    InvalidSignatureException,
    MissingAuthenticationTokenException,
    UnrecognizedClientException,
    WireError,
)

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "dynamodb"
LAMBDA = "lambda"
_TERMINATOR = "aws4_request"
_STAMP = "%Y%m%dT%H%M%SZ"
_CREDENTIAL = re.compile(rb"Credential=([^/, ]+)/")
_sha256 = hashlib.sha256
_EMPTY_HASH = _sha256(b"").hexdigest().encode()

_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method. "
    "Consult the service documentation for details."
)


class Identity(msgspec.Struct, frozen=True):
    """Whose request it is. ``functions`` is the profile's right to manage functions."""

    access_key: str
    region: str
    namespace: str
    functions: bool = False


class _Scope:
    """What stands before the signature, understood; with credentials also the key's HMAC."""

    __slots__ = ("_inner", "_names", "_outer", "_signed", "credential", "date", "identity", "text")

    def __init__(
        self,
        date: str,
        region: str,
        signed: bytes,
        identity: Identity,
        credential: Credential | None,
        service: str,
    ) -> None:
        self.identity = identity
        self.credential = credential
        self.date = date.encode()
        self.text = f"{date}/{region}/{service}/{_TERMINATOR}".encode()
        self._signed = signed
        # The signed headers' names as they are looked up, and as they begin their lines.
        self._names = [(name, name + b":") for name in signed.split(b";")]
        secret = "" if credential is None else credential.secret_key
        key = signing_key(secret, date, region, service).ljust(64, b"\0")
        # HMAC (RFC 2104) by hand: copying two hash states costs half of copying an hmac object.
        self._inner = _sha256(bytes(byte ^ 0x36 for byte in key))
        self._outer = _sha256(bytes(byte ^ 0x5C for byte in key))

    def canonical_request(self, request: Request, without: bytes = b"") -> bytes:
        """The text whose hash is signed; ``without`` names a query parameter to leave out."""
        headers, payload, path, query = request.headers, request.payload, request.path, b""
        if path != b"/":
            path = _canonical_path(path)
        if request.query is not None:
            query = _canonical_query(request.query, without)
        lines = [start + headers.get(name, b"") for name, start in self._names]
        text = b"\n".join(lines)
        if b" " in text or b"\t" in text:
            # Runs of white space count as one space, and none at the ends.
            text = b"\n".join(
                start + b" ".join(headers.get(name, b"").split()) for name, start in self._names
            )
        digest = _sha256(payload).hexdigest().encode() if payload else _EMPTY_HASH
        return b"\n".join((request.method, path, query, text, b"", self._signed, digest))

    def string_to_sign(self, stamp: bytes, canonical: bytes) -> bytes:
        """What ``sign`` signs, for a canonical request and its X-Amz-Date."""
        digest = _sha256(canonical).hexdigest().encode()
        return b"\n".join((b"AWS4-HMAC-SHA256", stamp, self.text, digest))

    def sign(self, text: bytes) -> str:
        """The signature of a string to sign."""
        inner = self._inner.copy()
        inner.update(text)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()


class Verifier:
    """Says who signed. Without ``credentials`` any well-formed signature will do.

    ``region`` None accepts every region, which a server without credentials always does. A
    signature for another ``service`` is refused where signatures count.
    """

    __slots__ = ("_credentials", "_instants", "_region", "_scopes", "_service")

    def __init__(
        self, credentials: Credentials | None, region: str | None = None, service: str = SERVICE
    ) -> None:
        self._credentials = credentials
        self._region = region
        self._service = service
        self._scopes: dict[bytes, _Scope] = {}
        # Stamps of X-Amz-Date by their text; a client's stamp changes once a second.
        self._instants: dict[bytes, float] = {}

    def verify(self, request: Request, now: float) -> Identity:
        """Whose request it is, at the time ``now`` (seconds since the epoch).

        Raises the WireError that AWS answers. No signature at all is refused with or without
        credentials, since every SDK signs.
        """
        header = request.headers.get(b"authorization")
        query = request.query
        if query is not None and b"X-Amz-Algorithm=" in query:
            if header is not None:
                raise InvalidSignatureException(
                    "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as "
                    "HTTP header."
                )
            return self._verify_presigned(request, query, now)
        if header is None or not header.startswith(b"AWS4-"):
            raise MissingAuthenticationTokenException
        cut = header.rfind(b"Signature=") + len(b"Signature=")
        prefix, signature = header[:cut], header[cut:]
        scope = self._scopes.get(prefix)
        if scope is not None and self._credentials is None:
            if not signature:
                raise _incomplete_header(["Signature"], header)
            return scope.identity
        known = scope is not None
        stamp = request.headers.get(b"x-amz-date")
        if scope is None:
            # Also checks what the stamp is checked for below, in AWS's order of complaints.
            scope, signature = self._parse_header(request, header, now)
            if self._credentials is None:
                self._keep(prefix, header[cut:], signature, scope)
                return scope.identity
        if stamp is None:
            stamp = _stamp_of_date(request.headers.get(b"date"))
        self._check_stamp(stamp, now)
        if stamp[:8] != scope.date:
            raise InvalidSignatureException(_wrong_day(scope.date.decode(), stamp))
        _check_signature(scope, stamp, scope.canonical_request(request), signature)
        _check_token(scope.credential, request.headers.get(b"x-amz-security-token"), now)
        if not known:
            self._keep(prefix, header[cut:], signature, scope)
        return scope.identity

    def _keep(self, prefix: bytes, rest: bytes, signature: bytes, scope: _Scope) -> None:
        """Remember ``scope``, unless the header had something behind its signature."""
        if rest == signature and len(prefix) <= SIGNING_SCOPE_BYTES_MAX:
            if len(self._scopes) >= SIGNING_SCOPES_CACHED_MAX:
                self._scopes.clear()
            self._scopes[prefix] = scope

    def _parse_header(self, request: Request, header: bytes, now: float) -> tuple[_Scope, bytes]:
        text = header.decode("latin-1")
        algorithm, _, rest = text.partition(" ")
        parameters: dict[str, str] = {}
        for pair in rest.replace(",", " ").split():
            name, equals, value = pair.partition("=")
            if not equals:
                raise IncompleteSignatureException(
                    f"'{pair}' not a valid key=value pair (missing equal-sign) in Authorization "
                    f"header: '{text}'."
                )
            if name in parameters:
                raise IncompleteSignatureException(
                    f"Authorization header has '{name}' more than once. Authorization={text}"
                )
            parameters[name] = value
        names = ("Credential", "Signature", "SignedHeaders")
        missing = [name for name in names if not parameters.get(name)]
        stamped = b"x-amz-date" in request.headers or b"date" in request.headers
        if missing or (not stamped and self._credentials is not None):
            raise _incomplete_header(missing, header, stamped or self._credentials is None)
        stamp = request.headers.get(b"x-amz-date")
        if self._credentials is not None:
            if stamp is None:
                stamp = _stamp_of_date(request.headers.get(b"date"))
            self._check_stamp(stamp, now)
        signed = parameters["SignedHeaders"].lower()
        scope = self._scope(algorithm, parameters["Credential"], signed, stamp or b"")
        return scope, parameters["Signature"].encode("latin-1")

    def _scope(self, algorithm: str, credential_text: str, signed: str, stamp: bytes) -> _Scope:
        """From here on the checks are the same for a header and for a presigned request."""
        strict = self._credentials is not None
        if strict and "host" not in signed.split(";"):
            raise InvalidSignatureException(
                "'Host' must be a 'SignedHeader' in the AWS Authorization."
            )
        if algorithm != ALGORITHM:
            raise IncompleteSignatureException(
                f"Unsupported AWS 'algorithm': '{algorithm}' (only {ALGORITHM} for now). "
            )
        parts = credential_text.rstrip("/").split("/")
        if len(parts) != 5 or not parts[0]:
            raise IncompleteSignatureException(
                "Credential must have exactly 5 slash-delimited elements, e.g. "
                f"keyid/date/region/service/term, got '{credential_text}'"
            )
        access_key, date, region, service, terminator = parts
        if self._credentials is None:
            identity = Identity(access_key, region, namespace_of(access_key))
            return _Scope(date, region, signed.encode(), identity, None, self._service)
        wrong = []
        if self._region is not None and region != self._region:
            wrong.append(f"Credential should be scoped to a valid region, not '{region}'. ")
        if service != self._service:
            wrong.append(f"Credential should be scoped to correct service: '{self._service}'. ")
        if terminator != _TERMINATOR:
            wrong.append(
                f"Credential should be scoped with a valid terminator: '{_TERMINATOR}', "
                f"not '{terminator}'. "
            )
        if date.encode("latin-1") != stamp[:8]:
            wrong.append(_wrong_day(date, stamp))
        if wrong:
            raise InvalidSignatureException("".join(wrong))
        credential = self._credentials.find(access_key)
        if credential is None:
            raise UnrecognizedClientException
        identity = Identity(access_key, region, credential.namespace, credential.functions)
        return _Scope(
            date, region, signed.encode("latin-1"), identity, credential, self._service
        )

    def _verify_presigned(self, request: Request, query: bytes, now: float) -> Identity:
        fields = {name: value.decode("latin-1") for name, value in _parameters(query)}
        names = ("Algorithm", "Credential", "Signature", "SignedHeaders", "Date")
        missing = [name for name in names if not fields.get(b"X-Amz-" + name.encode())]
        if missing:
            raise IncompleteSignatureException(
                "".join(
                    f"AWS query-string parameters must include 'X-Amz-{name}'. " for name in missing
                )
                + "Re-examine the query-string parameters."
            )
        stamp = fields[b"X-Amz-Date"].encode("latin-1")
        if self._credentials is not None:
            self._check_lifetime(stamp, fields.get(b"X-Amz-Expires"), now)
        scope = self._scope(
            fields[b"X-Amz-Algorithm"],
            fields[b"X-Amz-Credential"],
            fields[b"X-Amz-SignedHeaders"].lower(),
            stamp,
        )
        if self._credentials is not None:
            canonical = scope.canonical_request(request, b"X-Amz-Signature")
            signature = fields[b"X-Amz-Signature"].encode("latin-1")
            _check_signature(scope, stamp, canonical, signature)
            token = fields.get(b"X-Amz-Security-Token")
            _check_token(scope.credential, None if token is None else token.encode("latin-1"), now)
        return scope.identity

    def _check_lifetime(self, stamp: bytes, expires: str | None, now: float) -> None:
        """A presigned request holds for X-Amz-Expires seconds from its stamp; else 15 minutes."""
        if expires is None:
            self._check_stamp(stamp, now)
            return
        if not (expires.isascii() and expires.isdigit() and len(expires) <= 9):
            raise IncompleteSignatureException("X-Amz-Expires should be a number")
        seconds = int(expires)
        if seconds > PRESIGNED_SECONDS_MAX:
            raise IncompleteSignatureException(
                "X-Amz-Expires must be less than a week (in seconds); "
                f"that is {PRESIGNED_SECONDS_MAX}"
            )
        instant = self._instant(stamp)
        if now > instant + seconds:
            raise InvalidSignatureException(
                f"Signature expired: {stamp.decode()} is now earlier than "
                f"{_stamp(now - seconds)} ({_stamp(now)} - {seconds} sec.)"
            )
        self._check_stamp(stamp, min(now, instant + CLOCK_SKEW_SECONDS_MAX))

    def _check_stamp(self, stamp: bytes, now: float) -> None:
        age = now - self._instant(stamp)
        if -CLOCK_SKEW_SECONDS_MAX <= age <= CLOCK_SKEW_SECONDS_MAX:
            return
        minutes = CLOCK_SKEW_SECONDS_MAX // 60
        if age > 0:
            raise InvalidSignatureException(
                f"Signature expired: {stamp.decode()} is now earlier than "
                f"{_stamp(now - CLOCK_SKEW_SECONDS_MAX)} ({_stamp(now)} - {minutes} min.)"
            )
        raise InvalidSignatureException(
            f"Signature not yet current: {stamp.decode()} is still later than "
            f"{_stamp(now + CLOCK_SKEW_SECONDS_MAX)} ({_stamp(now)} + {minutes} min.)"
        )

    def _instant(self, stamp: bytes) -> float:
        instant = self._instants.get(stamp)
        if instant is None:
            try:
                if len(stamp) != 16:
                    raise ValueError
                moment = datetime.strptime(stamp.decode("ascii"), _STAMP)
            except ValueError:
                raise IncompleteSignatureException(
                    "Date must be in ISO-8601 'basic format'. Got "
                    f"'{stamp.decode('latin-1')}'. See http://en.wikipedia.org/wiki/ISO_8601"
                ) from None
            if len(self._instants) >= SIGNING_SCOPES_CACHED_MAX:
                self._instants.clear()
            instant = self._instants[stamp] = moment.replace(tzinfo=UTC).timestamp()
        return instant


def claimed_access_key(request: Request) -> str:
    """The access key that ``request`` says it is signed with; "" if none. Nothing is verified."""
    found = _CREDENTIAL.search(request.headers.get(b"authorization", b""))
    if found is not None:
        return found[1].decode("latin-1")
    for name, value in _parameters(request.query or b""):
        if name == b"X-Amz-Credential":
            return value.partition(b"/")[0].decode("latin-1")
    return ""


def signing_key(secret_key: str, date: str, region: str, service: str = SERVICE) -> bytes:
    """The key for a day, a region and a service, derived as AWS says."""
    key = hmac.digest(b"AWS4" + secret_key.encode(), date.encode(), "sha256")
    for part in (region, service, _TERMINATOR):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def sign(
    request: Request,
    access_key: str,
    secret_key: str,
    region: str,
    now: float,
    session_token: str | None = None,
    service: str = SERVICE,
) -> dict[bytes, bytes]:
    """The headers of ``request`` (Host among them) with X-Amz-Date, the token and Authorization.

    The client's side, for the demo, the benchmark and the tests. Every header given is signed.
    """
    stamp = _stamp(now)
    headers = {**request.headers, b"x-amz-date": stamp.encode()}
    if session_token is not None:
        headers[b"x-amz-security-token"] = session_token.encode()
    identity = Identity(access_key, region, "")
    credential = Credential("", access_key, secret_key)
    signed = b";".join(sorted(headers))
    scope = _Scope(stamp[:8], region, signed, identity, credential, service)
    whole = Request(request.method, request.path, request.query, headers, request.payload)
    canonical = scope.canonical_request(whole)
    signature = scope.sign(scope.string_to_sign(stamp.encode(), canonical))
    headers[b"authorization"] = (
        f"{ALGORITHM} Credential={access_key}/{scope.text.decode()}, "
        f"SignedHeaders={signed.decode()}, Signature={signature}"
    ).encode()
    return headers


def _check_signature(scope: _Scope, stamp: bytes, canonical: bytes, signature: bytes) -> None:
    text = scope.string_to_sign(stamp, canonical)
    if not hmac.compare_digest(scope.sign(text).encode(), signature):
        raise InvalidSignatureException(
            f"{_MISMATCH}\n\nThe Canonical String for this request should have been\n"
            f"'{canonical.decode('latin-1')}'\n\nThe String-to-Sign should have been\n"
            f"'{text.decode('latin-1')}'\n"
        )


def _check_token(credential: Credential | None, token: bytes | None, now: float) -> None:
    assert credential is not None
    expected = credential.session_token
    if expected is None:
        if token is not None:
            raise UnrecognizedClientException
    elif token is None or not hmac.compare_digest(expected.encode(), token):
        raise UnrecognizedClientException
    if credential.expires_at is not None and now >= credential.expires_at:
        raise ExpiredTokenException


def _canonical_path(path: bytes) -> bytes:
    """The path without dot segments and empty ones, and encoded once more than it was sent."""
    segments: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del segments[-1:]
        elif segment not in (b"", b"."):
            segments.append(segment)
    end = b"/" if segments and path.endswith(b"/") else b""
    return quote_from_bytes(b"/" + b"/".join(segments) + end, safe="/~").encode()


def _canonical_query(query: bytes | None, without: bytes = b"") -> bytes:
    """The parameters encoded in AWS's one way, sorted by name and then by value."""
    if not query:
        return b""
    pairs = [
        (quote_from_bytes(name, safe="-_.~"), quote_from_bytes(value, safe="-_.~"))
        for name, value in _parameters(query)
        if name != without
    ]
    return "&".join(f"{name}={value}" for name, value in sorted(pairs)).encode()


def _parameters(query: bytes) -> list[tuple[bytes, bytes]]:
    """The decoded names and values. A plus sign is a space, which is how botocore sends one."""
    pairs = (pair.partition(b"=") for pair in query.replace(b"+", b" ").split(b"&") if pair)
    return [(unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in pairs]


def _stamp_of_date(date: bytes | None) -> bytes:
    """An HTTP Date header in the form of X-Amz-Date, in which it is signed."""
    text = (date or b"").decode("latin-1")
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        # Clients put the basic format there too; whatever it is, the stamp's check will judge it.
        return text.encode("latin-1")
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).strftime(_STAMP).encode()


def _stamp(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime(_STAMP)


def _wrong_day(date: str, stamp: bytes) -> str:
    text = stamp.decode("latin-1")
    return (
        "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from "
        f"HTTP: '{date}' != '{text[:8]}', from '{text}'."
    )


def _incomplete_header(missing: list[str], header: bytes, stamped: bool = True) -> WireError:
    message = "".join(f"Authorization header requires '{name}' parameter. " for name in missing)
    if not stamped:
        message += (
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
        )
    return IncompleteSignatureException(f"{message}Authorization={header.decode('latin-1')}")

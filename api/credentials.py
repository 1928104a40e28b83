"""Who may sign: an AWS shared-credentials file, and the namespace that each profile sees.

A profile has ``aws_access_key_id`` and ``aws_secret_access_key``, and may have
``aws_session_token``, ``aws_credential_expiration`` (ISO 8601), ``millstream_namespace`` (the
account; without it everybody shares one database) and ``millstream_functions`` (may manage
functions). Other programs keep their own settings in the same file, so an unknown name is passed
over, except one that begins with ``millstream_``: that one is a misspelling of ours and an error.

A secret is never shown: not by ``repr``, and not by an error, which names the profile alone.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

from ..errors import ConfigurationError
from ..limits import ACCESS_KEY_CHARACTERS_MAX

NAMESPACE_DEFAULT = "default"

# An access key that begins so selects a namespace of its own on a server without credentials.
NAMESPACE_KEY_PREFIX = "ns-"

_NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{ACCESS_KEY_CHARACTERS_MAX}}}")
_OURS = frozenset({"millstream_namespace", "millstream_functions"})


class Credential(msgspec.Struct, frozen=True):
    """One profile. ``expires_at`` is in seconds since the epoch, None for never."""

    profile: str
    access_key: str
    secret_key: str
    session_token: str | None = None
    expires_at: float | None = None
    namespace: str = NAMESPACE_DEFAULT
    functions: bool = False

    def __repr__(self) -> str:
        return f"Credential(profile={self.profile!r}, access_key={self.access_key!r})"


class Credentials:
    """The profiles of a file by access key. An access key is there once."""

    __slots__ = ("_by_access_key",)

    def __init__(self, credentials: Iterable[Credential]) -> None:
        self._by_access_key: dict[str, Credential] = {}
        for credential in credentials:
            other = self._by_access_key.setdefault(credential.access_key, credential)
            if other is not credential:
                raise ConfigurationError(
                    f"the profiles {other.profile!r} and {credential.profile!r} have the same "
                    "access key"
                )

    def __len__(self) -> int:
        return len(self._by_access_key)

    def __repr__(self) -> str:
        return f"Credentials({sorted(self._by_access_key)})"

    def of_namespace(self, namespace: str) -> Credential | None:
        """A profile of ``namespace``, one that may manage functions if there is one."""
        found = [each for each in self._by_access_key.values() if each.namespace == namespace]
        found.sort(key=lambda each: not each.functions)
        return found[0] if found else None

    def find(self, access_key: str) -> Credential | None:
        """The profile of ``access_key``, or None."""
        return self._by_access_key.get(access_key)


def parse_credentials(text: str, source: str) -> Credentials:
    """The profiles in ``text``, which was read from ``source`` (a name for the errors)."""
    # No interpolation: a secret may contain a percent sign. No default section: in AWS's files
    # [default] is a profile like any other.
    parser = configparser.RawConfigParser(default_section="", interpolation=None)
    try:
        parser.read_string(text, source)
    except configparser.DuplicateSectionError as error:
        raise ConfigurationError(f"{source}: [{error.section}] is there twice") from None
    except configparser.DuplicateOptionError as error:
        raise ConfigurationError(
            f"{source}: {error.option} is there twice in [{error.section}]"
        ) from None
    except configparser.Error as error:
        # The parser's own message quotes the line, which may be a secret.
        lines = [line for line, _ in getattr(error, "errors", ())]
        line = getattr(error, "lineno", lines[0] if lines else None)
        where = "" if line is None else f", line {line}"
        raise ConfigurationError(f"{source}{where}: not an AWS credentials file") from None
    found = [_profile(parser[name], f"{source}: [{name}]") for name in parser.sections()]
    if not found:
        raise ConfigurationError(f"{source}: there is no profile in it")
    try:
        return Credentials(found)
    except ConfigurationError as error:
        raise ConfigurationError(f"{source}: {error}") from None


def _profile(section: configparser.SectionProxy, where: str) -> Credential:
    unknown = sorted(name for name in section if name.startswith("millstream_"))
    unknown = [name for name in unknown if name not in _OURS]
    if unknown:
        raise ConfigurationError(f"{where}: {unknown[0]} is not a setting of millstream")
    for name in ("aws_access_key_id", "aws_secret_access_key"):
        if not section.get(name):
            raise ConfigurationError(f"{where}: {name} is missing")
    access_key = section["aws_access_key_id"]
    if _NAME.fullmatch(access_key) is None:
        raise ConfigurationError(f"{where}: aws_access_key_id has characters that no key has")
    namespace = section.get("millstream_namespace", NAMESPACE_DEFAULT)
    if _NAME.fullmatch(namespace) is None:
        raise ConfigurationError(
            f"{where}: millstream_namespace must be 1 to {ACCESS_KEY_CHARACTERS_MAX} letters, "
            "digits, underscores, dots or hyphens"
        )
    try:
        functions = section.getboolean("millstream_functions", False)
    except ValueError:
        raise ConfigurationError(f"{where}: millstream_functions must be true or false") from None
    return Credential(
        profile=section.name,
        access_key=access_key,
        secret_key=section["aws_secret_access_key"],
        session_token=section.get("aws_session_token") or None,
        expires_at=_instant(section.get("aws_credential_expiration"), where),
        namespace=namespace,
        functions=functions,
    )


def _instant(text: str | None, where: str) -> float | None:
    if not text:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(
            f"{where}: aws_credential_expiration must be an ISO 8601 time"
        ) from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return instant.timestamp()


def namespace_of(access_key: str) -> str:
    """The namespace on a server without credentials: the key is all that there is to go by."""
    if access_key.startswith(NAMESPACE_KEY_PREFIX) and _NAME.fullmatch(access_key):
        return access_key
    return NAMESPACE_DEFAULT

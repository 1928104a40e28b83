"""Settings: one table from which parsing, validation, ``--help`` and the README are made.

Every setting is resolved from, in this order: the command line's flag, the environment variable
``MILLSTREAM_<NAME>``, the TOML file (``--config`` or ``MILLSTREAM_CONFIG``), the default. An
unknown key in any of them is an error with a suggestion: a misspelt setting that is silently
ignored is found in production.

This module is pure: the caller hands it the flags, the environment and the file's text. The
invariant is that a ``Settings`` that came out of ``resolve`` is consistent and within its bounds,
in particular that a node without credentials is bound to a loopback address.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from .errors import ConfigurationError
from .limits import (
    CONNECTIONS_SETTING_MAX,
    LOG_DIRECTORIES_MAX,
    MEMTABLE_BYTES_DEFAULT,
    MEMTABLE_BYTES_MAX,
    MEMTABLE_BYTES_MIN,
    PARTITIONS_PER_TABLE_MAX,
    STREAM_RETENTION_SECONDS,
    STREAM_RETENTION_SECONDS_MAX,
    STREAM_SHARD_SECONDS,
    STREAM_SHARD_SECONDS_MIN,
)

LOG_ENGINES = ("auto", "leveldb", "segments")
LOG_LEVELS = ("debug", "info", "warning", "error")
ENVIRONMENT_PREFIX = "MILLSTREAM_"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a node runs with. Paths are as given; sizes are in bytes.

    Exactly one of ``data`` and ``in_memory`` is set after ``resolve``; constructed directly, the
    default is a database in ``./millstream-data``.
    """

    data: str | None = "millstream-data"
    in_memory: bool = False
    host: str = "127.0.0.1"
    port: int = 8000
    region: str = "us-east-1"
    peers: str | None = None
    credentials: str | None = None
    allow_host: tuple[str, ...] = ()
    cors_origin: tuple[str, ...] = ()
    log_engine: str = "auto"
    log_dirs: tuple[str, ...] = ()
    adopt_log_dirs: bool = False
    partitions_per_table: int = 1
    memtable_bytes: int = MEMTABLE_BYTES_DEFAULT
    stream_retention_seconds: int = STREAM_RETENTION_SECONDS
    stream_shard_seconds: int = STREAM_SHARD_SECONDS
    app: str | None = None
    reload: bool = False
    max_connections: int = 1024
    log_level: str = "info"


DEFAULTS = Settings()


class Setting(msgspec.Struct, frozen=True):
    """One row of the table. ``parse`` turns text (from a flag or the environment) or a TOML value
    into the setting's value, or raises ``ValueError`` with the rest of a sentence that starts with
    the setting's name."""

    name: str
    placeholder: str
    parse: Callable[[Any], Any]
    help: str
    many: bool = False
    is_switch: bool = False

    @property
    def flag(self) -> str:
        """The command line's spelling, ``--log-dirs``."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment's spelling, ``MILLSTREAM_LOG_DIRS``."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def default_text(self) -> str:
        """The default as a person writes it; empty for none."""
        default = getattr(DEFAULTS, self.name)
        if default is None or default == ():
            return ""
        return str(default).lower() if isinstance(default, bool) else str(default)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a non-empty string")
    return value.strip()


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    spelled = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    found = spelled.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise ValueError("must be true or false")
    return found


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}", value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return parse


def _one_of(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    return parse


def _region(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value):
        raise ValueError("must look like us-east-1")
    return value


def _host_name(value: Any) -> str:
    name = _text(value).lower()
    try:
        return str(ipaddress.ip_address(name.strip("[]")))
    except ValueError:
        if not re.fullmatch(r"[a-z0-9_.-]+", name):
            raise ValueError(
                "must be a host name or an address, without scheme or port"
            ) from None
        return name


def _origin(value: Any) -> str:
    origin = _text(value).lower().rstrip("/")
    if not re.fullmatch(r"https?://[^\s/*]+", origin):
        raise ValueError("must name an origin, like https://app.example.com:3000")
    return origin


def _many(one: Callable[[Any], str], count_max: int = 64) -> Callable[[Any], tuple[str, ...]]:
    def parse(value: Any) -> tuple[str, ...]:
        parts: Iterable[Any] = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            raise ValueError("must be a list of strings")
        values = tuple(one(part) for part in parts)
        if len(values) > count_max:
            raise ValueError(f"may have at most {count_max} values")
        if len(set(values)) < len(values):
            raise ValueError("names something twice")
        return values

    return parse


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "data", "DIR", _text,
        "directory that holds the database; made when absent, held by one process at a time",
    ),
    Setting(
        "in_memory", "", _switch,
        "keep everything in memory and forget it at the end",
        is_switch=True,
    ),
    Setting(
        "host", "ADDRESS", _host_name,
        "address to listen on; without credentials only a loopback address",
    ),
    Setting("port", "PORT", _whole(0, 65_535), "port to listen on; 0 takes a free one"),
    Setting("region", "REGION", _region, "region that ARNs name"),
    Setting(
        "peers", "FILE", _text,
        "regions.toml: names, numbers and addresses of all regions of a global table",
    ),
    Setting(
        "credentials", "FILE", _text,
        "AWS shared-credentials file: verify every signature against its keys",
    ),
    Setting(
        "allow_host", "NAME", _many(_host_name),
        "also accept this name in the Host header, besides the loopback names",
        many=True,
    ),
    Setting(
        "cors_origin", "ORIGIN", _many(_origin),
        "let web pages of this origin use the database",
        many=True,
    ),
    Setting(
        "log_engine", "ENGINE", _one_of(LOG_ENGINES),
        "what keeps the log: leveldb, segments, or auto (leveldb where it is installed)",
    ),
    Setting(
        "log_dirs", "DIR,DIR,...", _many(_text, LOG_DIRECTORIES_MAX),
        "keep a copy of the log in each directory; a majority must confirm a write",
        many=True,
    ),
    Setting(
        "adopt_log_dirs", "", _switch,
        "take empty log directories as new copies in the place of lost ones; give it once",
        is_switch=True,
    ),
    Setting(
        "partitions_per_table", "COUNT", _whole(1, PARTITIONS_PER_TABLE_MAX),
        "partitions of a newly created table",
    ),
    Setting(
        "memtable_bytes", "BYTES", _whole(MEMTABLE_BYTES_MIN, MEMTABLE_BYTES_MAX),
        "committed writes kept in memory before they go to the tree",
    ),
    Setting(
        "stream_retention_seconds", "SECONDS", _whole(60, STREAM_RETENTION_SECONDS_MAX),
        "how long a stream's records are kept",
    ),
    Setting(
        "stream_shard_seconds", "SECONDS",
        _whole(STREAM_SHARD_SECONDS_MIN, STREAM_RETENTION_SECONDS_MAX),
        "after how long a stream's shard is closed and a child goes on",
    ),
    Setting(
        "app", "MODULE:NAME", _text,
        "Triggers to run on this node, found in a Python module",
    ),
    Setting(
        "reload", "", _switch,
        "start again when a Python file below the working directory changes",
        is_switch=True,
    ),
    Setting(
        "max_connections", "COUNT", _whole(1, CONNECTIONS_SETTING_MAX),
        "connections served at a time",
    ),
    Setting("log_level", "LEVEL", _one_of(LOG_LEVELS), "debug, info, warning or error"),
)  # fmt: skip

_BY_NAME = {setting.name: setting for setting in SETTINGS}


def resolve(
    flags: Mapping[str, Any],
    environment: Mapping[str, str],
    file_text: str | None = None,
    file_name: str = "the configuration file",
) -> Settings:
    """The settings to run with.

    ``flags`` maps names to the command line's values (None: not given), ``environment`` is the
    whole environment, ``file_text`` the TOML file's content. Raises ``ConfigurationError``.
    """
    sources = [
        _from_flags(flags),
        _from_environment(environment),
        _from_file(file_text, file_name) if file_text is not None else {},
    ]
    chosen: dict[str, Any] = {}
    for source in sources:
        _check_place(source)
        # The place of the data is one choice with two spellings: `--in-memory` must win over a
        # MILLSTREAM_DATA that happens to be set, and the other way round.
        place_is_chosen = "data" in chosen or chosen.get("in_memory", False)
        for name, (_where, value) in source.items():
            if name not in chosen and not (place_is_chosen and name in ("data", "in_memory")):
                chosen[name] = value
    if chosen.get("in_memory"):
        chosen["data"] = None
    settings = Settings(**chosen)
    check(settings)
    return settings


def check(settings: Settings) -> None:
    """The rules that join several settings. Raises ``ConfigurationError``."""
    if settings.credentials is None and not is_loopback(settings.host):
        raise ConfigurationError(
            f"host: {settings.host} can be reached from other machines, and without credentials "
            "anybody there could read and write everything; give --credentials FILE"
        )
    if settings.in_memory and settings.log_dirs:
        raise ConfigurationError("log_dirs: an in-memory database keeps no log directories")
    if settings.adopt_log_dirs and not settings.log_dirs:
        raise ConfigurationError("adopt_log_dirs: there are no log directories to adopt")
    if settings.in_memory and settings.log_engine != "auto":
        raise ConfigurationError("log_engine: an in-memory database keeps no log files")
    if settings.in_memory == (settings.data is not None):
        raise ConfigurationError("data: give either a directory or in_memory")


def is_loopback(host: str) -> bool:
    """Whether the name or address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def markdown_table() -> str:
    """The table of settings as the README shows it."""
    lines = ["| flag | environment | TOML | default | what |", "|---|---|---|---|---|"]
    for setting in SETTINGS:
        flag = setting.flag + (f" {setting.placeholder}" if setting.placeholder else "")
        default = f"`{setting.default_text}`" if setting.default_text else ""
        lines.append(
            f"| `{flag}` | `{setting.variable}` | `{setting.name}` | {default} | {setting.help} |"
        )
    return "\n".join(lines)


_Found = dict[str, tuple[str, Any]]  # name -> (where it was found, as a person says it; value)


def _parse(setting: Setting, where: str, value: Any) -> tuple[str, Any]:
    try:
        return where, setting.parse(value)
    except ValueError as error:
        raise ConfigurationError(f"{where} {error}, not {value!r}") from None


def _from_flags(flags: Mapping[str, Any]) -> _Found:
    found: _Found = {}
    for name, value in flags.items():
        if value is not None:
            setting = _BY_NAME[name]
            found[name] = _parse(setting, setting.flag, value)
    return found


def _from_environment(environment: Mapping[str, str]) -> _Found:
    found: _Found = {}
    by_variable = {setting.variable: setting for setting in SETTINGS}
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == ENVIRONMENT_PREFIX + "CONFIG":
            continue
        setting = by_variable.get(variable)
        if setting is None:
            known = [*by_variable, ENVIRONMENT_PREFIX + "CONFIG"]
            raise ConfigurationError(_unknown("environment variable", variable, known))
        found[setting.name] = _parse(setting, variable, value)
    return found


def _from_file(text: str, file_name: str) -> _Found:
    import tomllib  # Most starts have no file to read.

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file_name} is not TOML: {error}") from None
    found: _Found = {}
    for name, value in content.items():
        setting = _BY_NAME.get(name)
        if setting is None:
            raise ConfigurationError(f"{file_name}: " + _unknown("setting", name, list(_BY_NAME)))
        found[name] = _parse(setting, f"{file_name}: {name}", value)
    return found


def _check_place(source: _Found) -> None:
    if "data" in source and source.get("in_memory", ("", False))[1]:
        raise ConfigurationError(
            f"{source['data'][0]} and {source['in_memory'][0]} exclude each other"
        )


def _unknown(kind: str, name: str, known: list[str]) -> str:
    from difflib import get_close_matches  # Most starts have no mistake.

    close = get_close_matches(name, known, n=1)
    return f"unknown {kind} {name}" + (f"; did you mean {close[0]}?" if close else "")

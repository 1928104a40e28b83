"""Listeners: any free port, both families, and failures that say what to do."""

from __future__ import annotations

import contextlib
import socket

import pytest

from millstream.errors import ConfigurationError
from millstream.host.network import open_listeners, port_of


@contextlib.contextmanager
def opened(host: str, port: int = 0):
    listeners = open_listeners(host, port)
    try:
        yield listeners
    finally:
        for listener in listeners:
            listener.close()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_port_zero_takes_a_free_one():
    with opened("127.0.0.1") as first, opened("127.0.0.1") as second:
        assert 0 < port_of(first) != port_of(second)
        for listener in (*first, *second):
            assert not listener.getblocking()
            with socket.create_connection(listener.getsockname()):
                pass


def test_every_address_of_a_name_has_the_same_port():
    with opened("localhost") as listeners:
        assert {listener.getsockname()[1] for listener in listeners} == {port_of(listeners)}


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6_loopback(host):
    with opened(host) as (listener,):
        with socket.create_connection(("::1", listener.getsockname()[1])):
            pass


def test_port_in_use_says_so():
    with opened("127.0.0.1") as listeners:
        with pytest.raises(ConfigurationError, match=r"is in use; choose another --port"):
            open_listeners("127.0.0.1", port_of(listeners))


def test_port_can_be_had_again_at_once():
    with opened("127.0.0.1") as listeners:
        port = port_of(listeners)
        with socket.create_connection(("127.0.0.1", port)):
            accepted = None
            while accepted is None:
                with contextlib.suppress(BlockingIOError):
                    accepted, _ = listeners[0].accept()
            accepted.close()
    with opened("127.0.0.1", port) as again:
        assert port_of(again) == port


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid", "a" * 300])
def test_address_of_another_machine_is_refused(host):
    with pytest.raises(ConfigurationError, match="is not an address of this machine"):
        open_listeners(host, 0)


@pytest.mark.parametrize("port", [-1, 65536])
def test_port_out_of_range_is_refused(port):
    with pytest.raises(ConfigurationError, match="a port is 0 to 65535"):
        open_listeners("127.0.0.1", port)

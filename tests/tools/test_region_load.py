"""What the crash test of regions knows of its writes: the states that a key can be in."""

import pytest

from millstream.tools.link_proxy import LinkProxy
from millstream.tools.region_load import History
from millstream.tools.region_nodes import free_ports, regions_file


def write(history, region, key, serial, took=True, is_over=True):
    made = history.begin(region, {key: serial})
    history.end(made, took=took, is_over=is_over)


def item(key, serial):
    return {"id": {"S": key}, "serial": {"S": serial}}


def test_the_last_acknowledged_write_of_each_region_can_be_there():
    history = History()
    write(history, "a", "k", "a1")
    write(history, "a", "k", "a2")
    write(history, "b", "k", "b1")
    assert history.check([item("k", "a2")]) == []
    assert history.check([item("k", "b1")]) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([item("k", "a1")], "its own region has written over"),
        ([], "which nobody wrote"),
        ([item("k", "a2"), item("other", "a1")], "other is a1, which nobody wrote"),
        ([item("k", "a3")], "which nobody wrote, or which was refused"),
    ],
)
def test_what_is_lost_is_found(found, said):
    history = History()
    write(history, "a", "k", "a1")
    write(history, "a", "k", "a2")
    write(history, "a", "k", "a3", took=False)
    assert any(said in line for line in history.check(found))


def test_what_nobody_knows_may_be_there_or_not():
    history = History()
    write(history, "a", "k", "a1")
    write(history, "a", "k", "a2", took=None)
    assert history.check([item("k", "a1")]) == []
    assert history.check([item("k", "a2")]) == []
    assert history.doubtful == 1
    # Once more is acknowledged behind a kill, it is past; what may still come is not.
    write(history, "a", "k", "a3", took=None, is_over=False)
    write(history, "a", "k", None)
    assert history.check([item("k", "a2")]) != []
    assert history.check([item("k", "a3")]) == []
    assert history.check([]) == []


def test_a_deleted_item_that_comes_back_is_found():
    history = History()
    write(history, "a", "k", "a1")
    write(history, "a", "k", None)
    assert history.check([]) == []
    assert history.check([item("k", "a1")]) != []


def test_the_file_of_regions_names_all_of_them():
    text = regions_file({"b": 2, "a": 1})
    assert text.index("[regions.a]\nnumber = 1") < text.index("[regions.b]\nnumber = 2")


def test_a_proxy_cuts_stalls_and_heals():
    import socket

    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)) as server:
        proxy = LinkProxy({"a>b": port})
        try:
            near = socket.create_connection(("127.0.0.1", proxy.ports["a>b"]), timeout=10)
            far, _ = server.accept()
            far.settimeout(10)
            near.sendall(b"one")
            assert far.recv(10) == b"one"
            proxy.stall("a>b")
            near.sendall(b"two")
            far.settimeout(0.1)
            with pytest.raises(TimeoutError):
                far.recv(10)
            proxy.heal("a>b")
            far.settimeout(10)
            assert far.recv(10) == b"two"
            proxy.cut("a>b")
            assert far.recv(10) == b""
            near.close()
            far.close()
            again = socket.create_connection(("127.0.0.1", proxy.ports["a>b"]), timeout=10)
            assert again.recv(10) == b""
            again.close()
        finally:
            proxy.close()

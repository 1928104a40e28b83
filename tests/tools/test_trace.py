"""strace's lines read, and played on the model."""

import pytest

from millstream.tools.disk_model import STRICT, DiskModel
from millstream.tools.replay import LOG, Player
from millstream.tools.trace import read_trace


def hexed(text):
    return "".join(f"\\x{byte:02x}" for byte in text.encode())


@pytest.fixture
def play(tmp_path):
    """Plays lines of thread, call; returns the player."""

    def run(*lines, forget=None, until=None):
        path = tmp_path / "trace"
        path.write_text("".join(f"{line.replace(' ', ' 17.5 ', 1)}\n" for line in lines))
        player = Player(DiskModel(STRICT), "/d")
        player.forget = forget
        player.next_phase()
        for moment in read_trace(path, 1)[:until]:
            player.play(moment)
        return player

    return run


OPENED = f'1 openat(AT_FDCWD, "{hexed("/d/a")}", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 5'


def test_writes_land_where_the_file_position_is(play):
    player = play(
        OPENED,
        f'1 write(5, "{hexed("abc")}", 3) = 3',
        f'1 write(5, "{hexed("def")}", 3) = 2',
        f'1 pwrite64(5, "{hexed("X")}", 1, 600) = 1',
        f'1 pwritev(5, [{{iov_base="{hexed("Y")}", iov_len=1}}, {{iov_base="{hexed("Z")}",'
        " iov_len=1}], 2, 601) = 2",
        "1 close(5)        = 0",
        f'1 write(5, "{hexed("elsewhere")}", 9) = -1 EBADF (Bad file descriptor)',
    )
    node = player.model.find("a")
    assert (node.size, node.sector(0)[:6], node.sector(1)[88:91]) == (603, b"abcde\0", b"XYZ")


def test_a_sync_covers_what_ended_before_it_began(play):
    lines = [
        OPENED,
        f'1 pwrite64(5, "{hexed("a")}", 1, 0) = 1',
        "2 fdatasync(5 <unfinished ...>",
        f'1 pwrite64(5, "{hexed("b")}", 1, 600) = 1',
        "2 <... fdatasync resumed>)        = 0",
    ]
    player = play(*lines)
    assert player.model.find("a").doubts() == 1
    assert play(*lines, until=-1).model.find("a").doubts() == 2
    assert play(*lines[:2], "1 fsync(5)  = 0").model.find("a").doubts() == 0
    assert play(*lines[:2], "1 fsync(5)  = -1 EIO (Input/output error)").syncs == 0


def test_a_write_through_a_synced_descriptor_is_durable(play):
    player = play(
        OPENED,
        f'1 pwrite64(5, "{hexed("a")}", 1, 0) = 1',
        f'1 openat(AT_FDCWD, "{hexed("/d/a")}", O_WRONLY|O_DSYNC|O_CLOEXEC) = 6',
        f'1 pwrite64(6, "{hexed("b")}", 1, 600) = 1',
    )
    assert player.model.find("a").doubts() == 1


def test_forgotten_syncs_do_nothing(play):
    made = [
        f'1 mkdir("{hexed("/d/log")}", 0700) = 0',
        f'1 mkdir("{hexed("/d/log/x")}", 0700) = 0',
        f'1 openat(AT_FDCWD, "{hexed("/d/log/x/a")}", O_RDWR|O_CREAT, 0600) = 5',
        f'1 write(5, "{hexed("abc")}", 3) = 3',
        "1 fsync(5) = 0",
    ]
    assert play(*made).model.find("log/x/a").doubts() == 0
    assert play(*made, forget=LOG).model.find("log/x/a").doubts() == 1


def test_answers_are_counted_when_they_begin_to_leave(play):
    answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
    lines = [
        "1 accept4(8, {sa_family=AF_INET, sin_port=htons(4321), sin_addr=inet_addr("
        f'"{hexed("127.0.0.1")}")}}, [16], SOCK_CLOEXEC) = 9',
        f'1 sendto(9, "{hexed(answer + "{}")}", 60, 0, NULL, 0) = {len(answer) + 2}',
        f'1 sendto(9, "{hexed("{}" + answer)}", 60, 0, NULL, 0) = {len(answer) + 2}',
        f'1 sendto(9, "{hexed("{}{}")}", 4, 0, NULL, 0) = 4',
        f'1 sendto(9, "{hexed(answer + "{}{}")}", 60, 0, NULL, 0 <unfinished ...>',
    ]
    # Several answers in one call would be counted as one, but each writer waits for its answer.
    assert play(*lines).answers == {(0, 4321): 2}


def test_another_process_is_left_out(play):
    player = play(
        OPENED,
        "1 vfork( <unfinished ...>",
        "3 dup2(7, 5) = 5",
        f'3 write(5, "{hexed("abc")}", 3) = 3',
        "1 <... vfork resumed>) = 3",
    )
    assert player.model.find("a").size == 0


def test_a_shared_map_stops_the_play(play):
    mapped = "1 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 5, 0) = 0x7f00"
    with pytest.raises(AssertionError, match="through a map"):
        play(OPENED, mapped)
    play(OPENED.replace(hexed("/d/a"), hexed("/d/lock.mdb")), mapped)

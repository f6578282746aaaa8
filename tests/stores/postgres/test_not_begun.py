from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from flowstone.stores.postgres.lease import UnstartedAttemptsBoard

READ = """
import mmap, struct, sys
with mmap.mmap(int(sys.argv[1]), 0, prot=mmap.PROT_READ) as board:
    print(sorted(token for (token,) in struct.iter_unpack("=q", board[:]) if token))
"""


@pytest.fixture
def board() -> Iterator[UnstartedAttemptsBoard]:
    made = UnstartedAttemptsBoard()
    yield made
    made.close()


def test_another_process_reads_it(board: UnstartedAttemptsBoard) -> None:
    board.add([2**62, 5, 9])
    board.remove([5, 77])
    reader = [sys.executable, "-I", "-c", READ, str(board.descriptor)]
    done = subprocess.run(reader, pass_fds=[board.descriptor], capture_output=True, text=True, check=True)
    assert done.stdout == f"[9, {2**62}]\n"


def test_what_finds_no_room_counts_as_begun(board: UnstartedAttemptsBoard) -> None:
    board.add(range(1, 20_000))
    assert len(board.tokens()) == 16_384
    board.remove(range(1, 20_000))
    assert board.tokens() == []
    board.add([4])
    assert board.tokens() == [4]


def test_threads_share_it(board: UnstartedAttemptsBoard) -> None:
    def serve(number: int) -> None:
        for round_ in range(500):
            tokens = [number * 1_000_000 + round_ * 10 + at + 1 for at in range(5)]
            board.add(tokens)
            board.remove(tokens[:4] if round_ == 499 else tokens)

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(board.tokens()) == [number * 1_000_000 + 4995 for number in range(4)]


def test_it_leaves_nothing_behind() -> None:
    board = UnstartedAttemptsBoard()
    board.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(board.descriptor)

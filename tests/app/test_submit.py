"""Run ids: readable, and never the same twice."""

import os
import random
import re
import time

from flowstone.app.submit import new_run_id


def test_run_ids_say_the_second_and_differ() -> None:
    before = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    found = [new_run_id() for _ in range(1000)]
    after = time.strftime("%Y%m%d-%H%M%S", time.gmtime())

    assert all(re.fullmatch(r"\d{8}-\d{6}-[0-9a-z]{10}", one) for one in found)
    assert all(before <= one[:15] <= after for one in found)
    assert len(set(found)) == 1000


def test_a_program_that_seeds_random_numbers_does_not_repeat_run_ids() -> None:
    found = set()
    for _ in range(10):
        random.seed(42)
        found.add(new_run_id()[16:])

    assert len(found) == 10


def test_a_forked_copy_does_not_make_the_run_ids_of_its_parent() -> None:
    new_run_id()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        os.write(writing, new_run_id().encode())
        os._exit(0)
    os.close(writing)
    theirs = os.read(reading, 100).decode()
    os.close(reading)
    os.waitpid(child, 0)

    assert len(theirs) == 26
    assert new_run_id()[16:] != theirs[16:]

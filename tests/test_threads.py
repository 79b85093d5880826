import multiprocessing
import time
import warnings

import torch

from ppnmf.threads import ordered_map, single_threaded


def squares(numbers):
    """Squares and torch's threads inside, over as many workers as torch has threads."""

    def square(number):
        time.sleep(0.01 * (3 - number % 4))  # so that the later ones are ready first
        return number**2, torch.get_num_threads()

    with single_threaded():
        return ordered_map(square, numbers, operations=1e9)


def with_threads(count, function, *arguments):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count)
        return function(*arguments)
    finally:
        assert torch.get_num_threads() == count
        torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_tasks_each_on_one_thread():
    for count in (1, 2, 3):
        assert with_threads(count, squares, list(range(8))) == [(n**2, 1) for n in range(8)]


def test_tasks_inside_a_task_do_not_wait_for_one_another():
    assert with_threads(2, squares, [1, 2]) == [(1, 1), (4, 1)]

    def outer():
        with single_threaded():
            return ordered_map(lambda n: ordered_map(lambda m: n + m, [1, 2, 3], 1e9), [10, 20, 30, 40], 1e9)

    assert with_threads(2, outer) == [[n + 1, n + 2, n + 3] for n in (10, 20, 30, 40)]


def _in_child():
    raise SystemExit(0 if with_threads(2, squares, [1, 2, 3]) == [(1, 1), (4, 1), (9, 1)] else 1)


def test_a_forked_child_starts_workers_of_its_own():
    """The parent's do not exist in it; a map over them would wait for ever."""
    with_threads(2, squares, [1, 2, 3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks with threads
        child = multiprocessing.get_context("fork").Process(target=_in_child)
        child.start()
    child.join(30)
    try:
        assert child.exitcode == 0
    finally:
        child.kill()

import threading

import pytest

from onelabel.pipeline import prefetch


def test_results_come_in_order_and_few_items_are_taken_ahead():
    taken = []

    def items():
        for i in range(20):
            taken.append(i)
            yield i

    results = prefetch(lambda i: i, items())
    assert taken == []  # nothing is begun before a result is asked for
    for i, result in enumerate(results):
        assert result == i
        assert len(taken) <= i + 2
    assert taken == list(range(20))


def test_the_next_result_is_computed_before_it_is_asked_for():
    begun = [threading.Event() for _ in range(2)]
    results = prefetch(lambda i: begun[i].set(), range(2))
    next(results)
    assert begun[1].wait(timeout=30)
    results.close()


def test_the_thread_ends_when_the_results_are_closed():
    before, begun = threading.active_count(), []
    results = prefetch(begun.append, range(9))
    next(results)
    results.close()
    assert threading.active_count() == before
    assert len(begun) <= 2


def test_an_error_is_raised_where_the_result_is_asked_for():
    results = prefetch(lambda i: 1 // i, [1, 0, 2])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []
    assert list(prefetch(str, [])) == []

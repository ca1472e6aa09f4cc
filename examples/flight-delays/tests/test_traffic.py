"""The traffic generator's order and its judgement of answers."""

from traffic import in_order, is_finite


def test_flights_go_day_by_day_unless_told():
    assert in_order([6, 6, 7], rotate=False, seed=None) == [0, 1, 2]


def test_rotating_months_takes_one_of_each_in_turn():
    assert in_order([6, 6, 6, 7, 8, 8], rotate=True, seed=None) == [0, 3, 4, 1, 5, 2]


def test_a_seed_shuffles_the_same_way_each_time():
    once = in_order([6] * 50, rotate=False, seed=7)
    assert once == in_order([6] * 50, rotate=False, seed=7) != list(range(50))
    assert sorted(once) == list(range(50))


def test_only_finite_numbers_are_a_good_answer():
    assert is_finite(b'{"outputs": [{"data": [0.5]}]}')
    for bad in [
        b"",
        b"{}",
        b'{"outputs": []}',
        b'{"outputs": [{"data": [NaN]}]}',
        b'{"outputs": [{"data": [null]}]}',
        b'{"outputs": [{"data": ["x"]}]}',
    ]:
        assert not is_finite(bad)

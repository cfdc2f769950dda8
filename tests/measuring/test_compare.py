"""Verdicts on two results, by their intervals; the CPU beside the GPU."""

import json

import pytest

from normcore.errors import DataError
from normcore.measuring import compare, devices_compared


def row(median, low=None, high=None, **changes):
    base = {
        "op": "relu",
        "parameters": {},
        "direction": "forward",
        "dtype": "float32",
        "memory_format": "channels_first",
        "device": "cpu",
        "shape": [2, 3],
        "elements": 6,
        "median_s": median,
        "interval_s": [low or median, high or median],
    }
    return {**base, **changes}


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (row(10.0, 9.8, 10.2), row(5.0, 4.9, 5.1), "FASTER"),
        (row(5.0, 4.9, 5.1), row(10.0, 9.8, 10.2), "SLOWER"),
        (row(10.0, 9.8, 10.2), row(10.1, 9.9, 10.3), "SAME"),
        (row(10.0, 5.0, 20.0), row(8.0, 4.0, 16.0), "UNSURE"),
        (row(10.0, 9.75, 10.25), row(9.8, 9.6, 10.0), "SAME"),  # a little less, within what runs differ by
        (row(10.0, 9.0, 11.0), row(8.0, 7.5, 9.5), "UNSURE"),
    ],
)
def test_verdicts(before, now, expected):
    (found,) = compare.compare([before], [now])
    assert found.verdict == expected
    assert found.low <= found.speedup <= found.high


def test_rows_agree_unless_their_intervals_lie_apart():
    before = [row(10.0, 9.8, 10.2, shape=[k]) for k in range(3)]
    now = [row(5.0, shape=[0]), row(10.1, 9.9, 10.3, shape=[1]), row(9.0, 5.0, 20.0, shape=[2])]
    assert compare.agreeing(compare.compare(before, now)) == 2


def test_only_rows_of_both_with_a_time_are_compared():
    before = [row(1.0), row(2.0, dtype="float64"), row(None, direction="backward", interval_s=None)]
    now = [row(1.0), row(3.0, shape=[4, 3]), row(1.0, direction="backward")]
    assert [c.row["shape"] for c in compare.compare(before, now)] == [[2, 3]]


def test_a_saved_file_is_read_or_refused(tmp_path):
    good = tmp_path / "good.json"
    good.write_text(json.dumps({"machine": {"cores": 2}, "rows": [row(1.0)]}), encoding="utf-8")
    assert compare.read(good)["rows"][0]["op"] == "relu"
    for text in ("no json", "[]", '{"rows": [{}], "machine": {}}', '{"rows": []}'):
        bad = tmp_path / "bad.json"
        bad.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match="bench --save"):
            compare.read(bad)


def test_other_machines_are_named():
    before, now = {"cores": 2, "versions": {"numba": "1"}}, {"cores": 4, "versions": {"numba": "1"}}
    assert compare.differences(before, now) == ["cores: 2 before, 4 now"]


def test_cpu_beside_gpu_takes_the_better_format_and_counts_copies():
    rows = [
        row(8.0),
        row(6.0, memory_format="channels_last"),
        row(2.0, device="cuda", to_device_s=3.0, to_host_s=1.0),
        row(1.0, direction="backward"),
    ]
    (found,) = devices_compared.compare(rows)
    assert found["ratio"] == 3.0 and found["ratio_with_copies"] == 1.0


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([0.25, 4.0], 10.0),  # halfway in logarithms
        ([2.0, 4.0], 1.0),
        ([0.5, 0.9], None),
        ([2.0, 0.5], None),
    ],
)
def test_where_the_gpu_begins_to_win(ratios, expected):
    assert devices_compared.crossing([1.0, 100.0], ratios) == (expected and pytest.approx(expected))

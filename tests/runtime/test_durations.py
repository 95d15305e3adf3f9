from __future__ import annotations

from gatehub.runtime.durations import Durations


def test_counts_are_of_those_up_to_each_bound_and_last_of_all() -> None:
    durations = Durations(bounds=(0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        durations.observe(seconds)
    report = durations.report()
    assert (report.bounds, report.counts) == ((0.1, 1.0), (2, 3, 4))
    assert report.total == 0.05 + 0.1 + 0.5 + 7.0


def test_a_report_does_not_change() -> None:
    durations = Durations()
    before = durations.report()
    durations.observe(1.0)
    assert before == Durations().report()

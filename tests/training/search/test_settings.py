"""Which settings `--tune small` tries, and which it keeps."""

from __future__ import annotations

from collections.abc import Callable

from gatehub.training.search import Trial, Tried, TuneSmall, suits

STAGES = ("conv1", "layer1", "layer2", "layer3", "layer4")


def tune(**given: object) -> TuneSmall:
    settings = {"gates": None, "norm": None, "start": None, "stages": STAGES, "rates": True}
    return TuneSmall(**{**settings, **given})  # type: ignore[arg-type]


def try_all(search: TuneSmall, score: Callable[[Trial], float]) -> list[Tried]:
    tried: list[Tried] = []
    while (trial := search.next_trial(tried)) is not None:
        size = {"auto": 300, "scale": 200, "none": 100}.get(trial.gates, 400)
        tried.append(Tried(trial=trial, accuracy=score(trial), adapter_bytes=size))
    return tried


def test_rates_and_starts_are_tried_from_the_best_so_far() -> None:
    def score(trial: Trial) -> float:
        return 0.5 + 0.1 * (trial.gates == "scale") + 0.1 * (trial.rate == 3)

    tried = [one.trial for one in try_all(tune(), score)]
    assert tried[:4] == [
        Trial(gates="auto", norm="affine"),
        Trial(gates="scale", norm="affine"),
        Trial(gates="auto", norm="frozen"),
        Trial(gates="none", norm="affine"),
    ]
    assert tried[4:] == [
        Trial(gates="scale", norm="affine", rate=1 / 3),
        Trial(gates="scale", norm="affine", rate=3.0),
        Trial(gates="scale", norm="affine", rate=3.0, start="layer2"),
        Trial(gates="scale", norm="affine", rate=3.0, start="layer3"),
    ]


def test_what_is_given_is_not_tried() -> None:
    tried = try_all(tune(gates="full", start="layer1", rates=False), lambda trial: 0.5)
    assert {one.trial.norm for one in tried} == {"affine", "frozen", "stats"}
    assert {(one.trial.gates, one.trial.start, one.trial.rate) for one in tried} == {
        ("full", "layer1", 1.0)
    }
    tried = try_all(tune(norm="stats"), lambda trial: 0.5)
    assert {one.trial.norm for one in tried} == {"stats"}
    assert {one.trial.gates for one in tried} == {"auto", "scale", "none"}
    tried = try_all(tune(gates="none"), lambda trial: 0.5)
    assert not any(one.trial.is_probe for one in tried)


def test_of_equals_the_smaller_adapter_is_kept() -> None:
    search = tune()
    tried = try_all(search, lambda trial: 0.5)
    assert search.choose(tried).trial.gates == "none"
    best = Tried(trial=Trial(gates="full", norm="affine"), accuracy=0.51, adapter_bytes=900)
    assert search.choose([*tried, best]) is best


def test_a_run_that_diverged_is_never_kept() -> None:
    search = tune()
    sound = Tried(trial=Trial(gates="auto", norm="affine"), accuracy=0.0, adapter_bytes=9)
    broken = Tried(trial=Trial(gates="auto", norm="affine", rate=3.0), diverged=True)
    assert search.choose([broken, sound]) is sound


def test_few_images_tell_no_settings_apart() -> None:
    assert suits(200, 5)
    assert not suits(199, 5)
    assert not suits(200, 4)

"""Many clients while tasks are loaded, replaced, evicted and unloaded: never a wrong answer.

`pytest -m races` asks 100,000 times and swaps 10,000 times; the ordinary run a tenth of that.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest

from gatehub.adapter import Adapter
from gatehub.backbone import Backbone
from gatehub.errors import AdapterFormatError, TaskNotFoundError
from gatehub.runtime.batcher import Batcher
from gatehub.runtime.engine import Answer, Engine
from gatehub.runtime.scheduler import BatchSettings
from tests.runtime.known_answers import KnownAnswers, make_known

TASKS, STAYING, CLIENTS = 32, 24, 16


@pytest.fixture(scope="module")
def known(tiny_backbone: Backbone) -> KnownAnswers:
    return make_known(tiny_backbone, count=TASKS)


class Race:
    """Clients that ask, and threads that change what they ask for.

    Tasks below `STAYING` are replaced and evicted, but are always served; the others come and go.
    """

    def __init__(self, engine: Engine, known: KnownAnswers, folders: list[Path]) -> None:
        self.engine, self.known, self.folders = engine, known, folders
        self.wrong: list[str] = []
        self.answered = self.absent = 0
        self.digests: dict[int, str] = {}
        self.over = threading.Event()
        self._counting = threading.Lock()
        self.broken = folders[0].parent / "broken"
        shutil.copytree(folders[0], self.broken)
        tensors = self.broken / "gates.safetensors"
        data = bytearray(tensors.read_bytes())
        data[-1] ^= 1
        tensors.write_bytes(bytes(data))

    def run(self, requests: int) -> None:
        for number, folder in enumerate(self.folders):
            self._load(f"task{number}", folder)
        changers = [threading.Thread(target=self._change, args=(seed,)) for seed in range(3)]
        settings = BatchSettings(max_wait_ms=1, max_queue=10_000, max_waiting=100_000)
        with Batcher(self.engine, settings=settings, threads=2) as batcher:
            clients = [
                threading.Thread(target=self._ask, args=(seed, requests // CLIENTS, batcher))
                for seed in range(CLIENTS)
            ]
            for thread in (*changers, *clients):
                thread.start()
            for thread in clients:
                thread.join()
        self.over.set()
        for thread in changers:
            thread.join()

    def _ask(self, seed: int, requests: int, batcher: Batcher) -> None:
        draw = random.Random(seed)
        while requests > 0:
            size = min(requests, draw.choice([1, 1, 1, 4]))
            tasks = [f"task{draw.randrange(TASKS)}" for _ in range(size)]
            images = [draw.randrange(len(self.known.images)) for _ in range(size)]
            requests -= size
            try:
                found = self._answers(tasks, images, draw.random(), batcher)
            except TaskNotFoundError:
                # A batch fails as a whole where one of its tasks is gone.
                gone = any(int(task[4:]) >= STAYING for task in tasks)
                self._count(absent=size, wrong=None if gone else f"{tasks} not found")
                continue
            except BaseException as error:
                self._count(wrong=f"{tasks}: {error!r}")
                continue
            for task, image, (answer, exact) in zip(tasks, images, found, strict=True):
                wrong = self.known.check(answer, image, exact=exact)
                info = answer.task
                if info.task != task:
                    wrong = f"{task} was answered by {info.task}"
                if self.digests.setdefault(info.generation, info.digest) != info.digest:
                    wrong = f"generation {info.generation} has two digests"
                self._count(answered=1, wrong=wrong)

    def _answers(
        self, tasks: list[str], images: list[int], dice: float, batcher: Batcher
    ) -> list[tuple[Answer, bool]]:
        given = self.known.images[images]
        if len(tasks) > 1:
            return [(answer, False) for answer in self.engine.run_mixed(tasks, given)]
        if dice < 0.1:
            future: Future[Answer] = batcher.submit(tasks[0], given[0])
            return [(future.result(60), False)]
        return [(self.engine.run(tasks[0], given), True)]

    def _change(self, seed: int) -> None:
        draw = random.Random(1000 + seed)
        while not self.over.is_set():
            number = draw.randrange(TASKS)
            task = f"task{number}"
            try:
                match draw.choice(["load", "load", "evict", "unload", "corrupt", "object"]):
                    case "load":
                        self._load(task, draw.choice(self.folders))
                    case "object":
                        self._load(task, draw.choice(self.known.adapters))
                    case "evict":
                        self.engine.evict(task)
                    case "unload" if number >= STAYING:
                        self.engine.unload(task)
                    case "corrupt":
                        with pytest.raises(AdapterFormatError):
                            self.engine.load(task, self.broken)
            except TaskNotFoundError:
                if number < STAYING:
                    self._count(wrong=f"{task} not found")
            except BaseException as error:
                self._count(wrong=f"{task}: {error!r}")
            self.over.wait(0.002)

    def _load(self, task: str, source: Adapter | Path) -> None:
        info = self.engine.load(task, source)
        if self.digests.setdefault(info.generation, info.digest) != info.digest:
            self._count(wrong=f"generation {info.generation} has two digests")

    def _count(self, *, answered: int = 0, absent: int = 0, wrong: str | None = None) -> None:
        with self._counting:
            self.answered += answered
            self.absent += absent
            if wrong is not None:
                self.wrong.append(wrong)


@pytest.mark.parametrize(
    "requests",
    [
        10_000,
        pytest.param(100_000, marks=pytest.mark.races),
    ],
)
def test_every_answer_is_that_of_the_generation_it_names(
    tiny_backbone: Backbone, known: KnownAnswers, tmp_path: Path, requests: int
) -> None:
    folders = [adapter.save(tmp_path / adapter.task, dtype="float32") for adapter in known.adapters]
    sizing = Engine(tiny_backbone)
    sizing.load("task", folders[0])
    folded, gates = sizing.memory()
    engine = Engine(
        tiny_backbone, folded_bytes=20 * folded.bytes, gates_bytes=TASKS * 3 * gates.bytes
    )
    race = Race(engine, known, folders)
    race.run(requests // CLIENTS * CLIENTS)
    assert race.wrong == []
    assert race.answered + race.absent == requests // CLIENTS * CLIENTS
    assert race.answered > 0.7 * requests
    folded, gates = engine.memory()
    assert folded.leased == gates.leased == 0
    assert folded.evictions > 100
    for tier in (folded, gates):
        assert tier.budget_bytes is not None
        assert tier.bytes <= tier.budget_bytes


@pytest.mark.parametrize(
    "swaps",
    [
        pytest.param(1_000, marks=pytest.mark.slow),
        pytest.param(10_000, marks=pytest.mark.races),
    ],
)
def test_swaps_change_no_answer_and_keep_no_memory(swaps: int) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.runtime.swapping_program", str(swaps)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    same, growth = run.stdout.split()
    assert same == "True"
    assert float(growth) < 0.01

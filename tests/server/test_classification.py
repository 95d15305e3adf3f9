from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
import torch
from PIL import Image

from gatehub.backbone.images import ImageRules
from gatehub.errors import NonFiniteAnswerError, RequestError
from gatehub.problem import Problem
from gatehub.runtime.engine import Answer, TaskInfo
from gatehub.server import ServerSettings
from gatehub.server.answering import Answering
from gatehub.server.classification import (
    DEFAULT_TOP_K,
    ClassificationRequest,
    Score,
    parse_request,
)
from gatehub.server.observing.record import RequestRecord
from tests.server.linear_engine import LinearEngine
from tests.server.pictures import encode, offline, pairs, picture


def parse(
    body: bytes, content_type: str = "application/json", **query: str
) -> ClassificationRequest:
    return parse_request(body, content_type=content_type, query=query)


def classify(
    engine: Any, task: str, request: ClassificationRequest
) -> tuple[list[Score], TaskInfo]:
    async def ask() -> tuple[list[Score], TaskInfo]:
        answering = Answering(engine, ServerSettings())
        try:
            return await answering.answer(task, lambda: request, RequestRecord(request_id=""))
        finally:
            answering.close()

    return asyncio.run(ask())


def as_json(**fields: Any) -> bytes:
    return json.dumps({"inputs": base64.b64encode(b"image").decode(), **fields}).encode()


@pytest.mark.parametrize(
    "content_type", ["", "image/png", "application/x-www-form-urlencoded", "nonsense"]
)
def test_any_other_content_type_is_an_image(content_type: str) -> None:
    request = parse(b"image", content_type, top_k="3")
    assert (request.image, request.top_k) == (b"image", 3)


@pytest.mark.parametrize(
    "text",
    [
        "aW1hZ2U=",
        "aW1hZ2U",
        "aW1h\r\nZ2U=\n",
        "data:image/png;base64,aW1hZ2U=",
        "DATA:;name=a;BASE64,aW1h Z2U",
    ],
)
def test_base64_is_read_as_clients_write_it(text: str) -> None:
    body = json.dumps({"inputs": text}).encode()
    assert parse(body) == ClassificationRequest(image=b"image")


@pytest.mark.parametrize("text", ["a", "aW1hZ2U=x", "=", "aW1h-", "aW1hé", "data:,x", "data:image"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="'inputs' in the JSON body is not base64"):
        parse(json.dumps({"inputs": text}).encode())


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
def test_json_carries_base64_and_parameters(content_type: str) -> None:
    body = as_json(parameters={"top_k": 2, "function_to_apply": "none"})
    request = parse(body, content_type)
    assert request == ClassificationRequest(image=b"image", top_k=2, function_to_apply="none")


def test_parameters_may_be_left_out_or_null() -> None:
    for body in (as_json(), as_json(parameters=None), as_json(parameters={"top_k": None})):
        assert parse(body) == ClassificationRequest(image=b"image")


def test_parameters_in_the_body_win_over_the_url() -> None:
    assert parse(as_json(parameters={"top_k": 2}), top_k="4").top_k == 2
    assert parse(as_json(), top_k="4").top_k == 4


@pytest.mark.parametrize("count", ["0", "-1", "1.5", "three", "", "9" * 5000])
def test_top_k_in_the_url_is_a_positive_whole_number(count: str) -> None:
    with pytest.raises(RequestError, match=r"top_k is .*at least 1"):
        parse(b"image", "", top_k=count)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "3", [1]])
def test_top_k_in_json_is_a_positive_whole_number(count: object) -> None:
    with pytest.raises(RequestError, match=r"top_k is .*at least 1"):
        parse(as_json(parameters={"top_k": count}))


@pytest.mark.parametrize("name", ["tanh", ["softmax"], {}])
def test_unknown_functions_are_refused(name: object) -> None:
    with pytest.raises(RequestError, match="expected one of softmax, sigmoid, none"):
        parse(as_json(parameters={"function_to_apply": name}))


def test_a_misspelt_option_is_refused() -> None:
    with pytest.raises(RequestError, match="Unknown option 'topk'; expected top_k or"):
        parse(b"image", "", topk="3")
    with pytest.raises(RequestError, match="Unknown option 'image'"):
        parse(as_json(parameters={"image": "x"}))


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "not an object of 'inputs'"),
        (b"{}", "not an object of 'inputs'"),
        (b'{"inputs": 3}', "not an object of 'inputs'"),
        (as_json(options={}), "not an object of 'inputs'"),
        (as_json(parameters=[1]), "'parameters' in the JSON body is not an object"),
        (b'{"inputs": "a"}', "'inputs' in the JSON body is not base64"),
        (b'{"inputs": "!!!!"}', "'inputs' in the JSON body is not base64"),
        (b'{"inputs": "\xc3\xa9\xc3\xa9=="}', "'inputs' in the JSON body is not base64"),
    ],
)
def test_malformed_json_is_refused_with_the_form_expected(body: bytes, problem: str) -> None:
    with pytest.raises(RequestError, match=problem) as caught:
        parse(body)
    assert '{"inputs": "<base64 of an image>"' in str(caught.value)


def test_a_refused_value_is_not_sent_back_whole() -> None:
    for parameters in (
        {"top_k": "9" * 10_000},
        {"function_to_apply": "x" * 10_000},
        {"x" * 10_000: 1},
    ):
        with pytest.raises(RequestError) as caught:
            parse(as_json(parameters=parameters))
        assert len(str(caught.value)) < 200


def test_a_multipart_form_is_told_what_to_send_instead() -> None:
    with pytest.raises(RequestError, match=r"multipart form\..*--data-binary"):
        parse(b"--x", "multipart/form-data; boundary=x")


def test_without_options_an_answer_has_the_usual_number_of_classes() -> None:
    engine: Any = LinearEngine(many=[str(index) for index in range(9)])
    request = ClassificationRequest(image=picture(1))
    scores, _ = classify(engine, "many", request)
    assert len(scores) == DEFAULT_TOP_K
    assert pairs(scores) == offline(engine, "many", picture(1))[:DEFAULT_TOP_K]


def test_a_multi_label_task_answers_with_what_reaches_its_threshold() -> None:
    engine: Any = LinearEngine(pets=["cat", "dog", "fish"])
    logits = engine.predict("pets", engine.task("pets").preprocessing.transform()(picture(1))[None])
    own = dict(zip(engine.task("pets").labels, logits[0].sigmoid().tolist(), strict=True))

    def ask(**options: Any) -> list[tuple[str, float]]:
        request = ClassificationRequest(image=picture(1), **options)
        return pairs(classify(engine, "pets", request)[0])

    best_first = sorted(own.items(), key=lambda pair: -pair[1])
    engine.decide("pets", Problem(thresholds=(0.0, 1.0, 0.0)))
    assert ask() == [pair for pair in best_first if pair[0] != "dog"]
    assert ask(top_k=3) == best_first
    chosen = ask(function_to_apply="none")
    assert [label for label, _ in chosen] == [label for label, _ in ask()]
    assert [score for _, score in chosen] != [score for _, score in ask()]
    engine.decide("pets", Problem(thresholds=(1.0, 1.0, 1.0)))
    assert ask() == []


@pytest.mark.parametrize("function", ["softmax", "sigmoid", "none"])
def test_functions_are_applied_to_the_logits(function: str) -> None:
    engine: Any = LinearEngine(pets=["cat", "dog", "fish"])
    encoded = picture(1)
    request = ClassificationRequest(image=encoded, function_to_apply=function)
    scores, info = classify(engine, "pets", request)
    image = info.preprocessing.transform()(encoded)[None]
    logits = engine.run("pets", image).logits[0]
    expected = {"softmax": logits.softmax(0), "sigmoid": logits.sigmoid(), "none": logits}
    assert sorted(score for _, score in pairs(scores)) == sorted(expected[function].tolist())


def test_a_task_swapped_on_the_way_gets_the_image_as_its_new_adapter_wants_it() -> None:
    class SwappedOnce(LinearEngine):
        def run(self, name: str, images: torch.Tensor) -> Answer:
            if self.runs == 0:
                self.load("pets", ["hen", "goat"], seed=7, side=24)
            return super().run(name, images)

    engine: Any = SwappedOnce(pets=["cat", "dog"])
    encoded = picture(1)
    request = ClassificationRequest(image=encoded)
    scores, info = classify(engine, "pets", request)
    assert pairs(scores) == offline(engine, "pets", encoded)
    assert {label for label, _ in pairs(scores)} == {"hen", "goat"}
    assert info.generation == 2


def test_an_image_is_read_by_the_rules_of_the_adapter_that_answers() -> None:
    white, black = ImageRules(), ImageRules(background=(0, 0, 0))
    engine: Any = LinearEngine()
    layer = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    request = ClassificationRequest(image=encode(layer), function_to_apply="none")
    for rules, seen in ((white, "white"), (black, "black"), (None, "red")):
        engine.load("pets", ["cat", "dog"], seed=0, rules=rules)
        scores, _ = classify(engine, "pets", request)
        expected = offline(engine, "pets", encode(Image.new("RGB", (40, 30), seen)))
        assert [label for label, _ in pairs(scores)] == [label for label, _ in expected]
        logits = torch.tensor([score for _, score in pairs(scores)])
        assert logits.softmax(0).tolist() == pytest.approx([score for _, score in expected])

    class SwappedOnce(LinearEngine):
        def run(self, name: str, images: torch.Tensor) -> Answer:
            if self.runs == 0:
                self.load("pets", ["cat", "dog"], seed=0, rules=black)
            return super().run(name, images)

    swapped: Any = SwappedOnce()
    swapped.load("pets", ["cat", "dog"], seed=0, rules=white)
    request = ClassificationRequest(image=encode(layer))
    scores, _ = classify(swapped, "pets", request)
    assert pairs(scores) == offline(swapped, "pets", encode(Image.new("RGB", (40, 30), "black")))


def test_labels_are_of_the_generation_that_answered() -> None:
    class SwappedAfterwards(LinearEngine):
        def run(self, name: str, images: torch.Tensor) -> Answer:
            answer = super().run(name, images)
            self.load("pets", ["hen", "goat"], seed=7)
            return answer

    engine: Any = SwappedAfterwards(pets=["cat", "dog"])
    request = ClassificationRequest(image=picture(1))
    scores, info = classify(engine, "pets", request)
    assert {label for label, _ in pairs(scores)} == {"cat", "dog"}
    assert info.generation == 1


def test_an_answer_that_is_not_finite_is_not_passed_on() -> None:
    class Broken(LinearEngine):
        def run(self, name: str, images: torch.Tensor) -> Answer:
            return Answer(logits=torch.tensor([[0.0, float("nan")]]), task=self.task(name))

    engine: Any = Broken(pets=["cat", "dog"])
    request = ClassificationRequest(image=picture(1))
    with pytest.raises(
        NonFiniteAnswerError, match=r"'pets' \(generation 1\) answered this image with values"
    ):
        classify(engine, "pets", request)

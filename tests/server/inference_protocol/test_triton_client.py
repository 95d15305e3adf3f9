"""Triton's own HTTP client, unmodified, with every call that it has, against a real server."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from tritonclient.http import InferenceServerClient, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from gatehub import __version__
from gatehub.errors import AdapterError
from gatehub.problem import Problem
from gatehub.server import ServerSettings, running_server
from gatehub.server.inference_protocol.tensors import HEADER
from tests.server.inference_protocol.triton import ask, encoded, images, normal
from tests.server.linear_engine import LinearEngine
from tests.server.pictures import picture

Client = InferenceServerClient
LABELS = ["cat", "dog", "Größe: 3"]


@pytest.fixture(scope="module")
def engine() -> Any:
    return LinearEngine(pets=LABELS, digits=[str(digit) for digit in range(10)])


@pytest.fixture(scope="module")
def url(engine: Any) -> Iterator[str]:
    with running_server(engine, path_prefix="/vision") as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Client]:
    with InferenceServerClient(url.removeprefix("http://")) as client:
        yield client


def refused(status: int, call: Callable[..., Any], *args: Any, **options: Any) -> str:
    with pytest.raises(InferenceServerException) as found:
        call(*args, **options)
    assert found.value.status() == str(status)
    return str(found.value.message())


def logits(engine: Any, values: np.ndarray) -> np.ndarray:
    found: np.ndarray = engine.predict("pets", torch.from_numpy(values)).numpy()
    return found


def test_the_server_is_described(client: Client) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    told = client.get_server_metadata()
    assert (told["name"], told["version"]) == ("gatehub", __version__)
    assert {"binary_tensor_data", "classification", "statistics"} <= set(told["extensions"])


@pytest.mark.parametrize("version", ["", "1"])
def test_a_task_is_described(client: Client, version: str) -> None:
    assert client.is_model_ready("pets", version)
    told = client.get_model_metadata("pets", version)
    assert (told["name"], told["versions"]) == ("pets", ["1"])
    assert told["inputs"] == [
        {"name": "images", "datatype": "FP32", "shape": [-1, 3, 16, 16]},
        {"name": "encoded_images", "datatype": "BYTES", "shape": [-1]},
    ]
    assert [(each["name"], each["shape"]) for each in told["outputs"]] == [
        ("logits", [-1, 3]),
        ("scores", [-1, 3]),
    ]
    config = client.get_model_config("pets", version)
    assert (config["name"], config["max_batch_size"]) == ("pets", 64)
    assert "Gr\\u00f6\\u00dfe" in config["parameters"]["labels"]["string_value"]


def test_tasks_and_versions_that_are_unknown_are_not_there(client: Client) -> None:
    assert not client.is_model_ready("cars")
    assert not client.is_model_ready("pets", "7")
    for call in (client.get_model_metadata, client.get_model_config):
        assert "cars" in refused(404, call, "cars")
        assert "no version '7'" in refused(404, call, "pets", "7")
    assert "cars" in refused(404, client.get_inference_statistics, "cars")
    inputs = [images(normal(1, 3, 16, 16))]
    assert "no version '7'" in refused(404, client.infer, "pets", inputs, model_version="7")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_tensors_travel_as_json_and_as_bytes(
    client: Client, engine: Any, binary_in: bool, binary_out: bool | None
) -> None:
    values = normal(3, 3, 16, 16)
    outputs = None
    if binary_out is not None:
        outputs = [InferRequestedOutput(n, binary_data=binary_out) for n in ("scores", "logits")]
    inputs = [images(values, binary=binary_in)]
    answer = client.infer("pets", inputs, outputs=outputs, request_id="a-1", model_version="1")
    expected = logits(engine, values)
    np.testing.assert_array_equal(answer.as_numpy("logits"), expected)
    scores = torch.from_numpy(expected).softmax(1).numpy()
    np.testing.assert_allclose(answer.as_numpy("scores"), scores, atol=1e-6)
    told = answer.get_response()
    assert (told["model_name"], told["model_version"], told["id"]) == ("pets", "1", "a-1")


def test_encoded_images_are_prepared_as_the_task_wants(client: Client, engine: Any) -> None:
    files = [picture(1), picture(2, format="JPEG")]
    transform = engine.task("pets").preprocessing.transform()
    expected = logits(engine, torch.stack([transform(file) for file in files]).numpy())
    as_text = [base64.b64encode(file).decode() for file in files]
    for inputs in (encoded(files), encoded(as_text, binary=False)):
        answer = client.infer("pets", [inputs])
        np.testing.assert_array_equal(answer.as_numpy("logits"), expected)
        assert "id" not in answer.get_response()


def test_a_broken_image_is_named_by_its_place(client: Client) -> None:
    files = [picture(1), b"hello"]
    assert "Image 1 of 2" in refused(422, client.infer, "pets", [encoded(files)])
    sentence = refused(422, client.infer, "pets", [encoded([b""])])
    assert sentence.startswith("The image cannot be decoded")


@pytest.mark.parametrize("binary", [True, False])
def test_classes_are_told_with_value_place_and_label(
    client: Client, engine: Any, binary: bool
) -> None:
    values = normal(2, 3, 16, 16)
    outputs = [
        InferRequestedOutput("scores", binary_data=binary, class_count=2),
        InferRequestedOutput("logits", binary_data=binary, class_count=99),
    ]
    answer = client.infer("pets", [images(values)], outputs=outputs)
    scores, all_logits = answer.as_numpy("scores"), answer.as_numpy("logits")
    assert (scores.shape, all_logits.shape) == ((2, 2), (2, 3))
    for number, row in enumerate(logits(engine, values)):
        texts = [t.decode() if binary else t for t in all_logits[number]]
        order = sorted(range(3), key=lambda place: -row[place])
        assert [int(text.split(":")[1]) for text in texts] == order
        assert [text.split(":", 2)[2] for text in texts] == [LABELS[place] for place in order]
        assert [np.float32(text.split(":")[0]) for text in texts] == [row[p] for p in order]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_bodies_are_compressed_both_ways(
    client: Client, url: str, engine: Any, algorithm: str
) -> None:
    values = normal(64, 3, 16, 16)
    body, lengths = ask([images(values)])
    response = httpx.post(
        f"{url}/v2/models/pets/infer",
        content=body,
        headers={HEADER: lengths[0], "Accept-Encoding": algorithm},
        verify=False,
    )
    assert response.headers["Content-Encoding"] == algorithm
    for binary in (True, False):
        answer = client.infer(
            "pets",
            [images(values, binary=binary)],
            outputs=[InferRequestedOutput("logits", binary_data=binary)],
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        np.testing.assert_array_equal(answer.as_numpy("logits"), logits(engine, values))


def test_one_adapter_answers_all_images_of_a_request() -> None:
    class SwappedOnce(LinearEngine):
        def run(self, name: str, images: torch.Tensor) -> Any:
            answer = super().run(name, images)
            if self.runs == 1:
                self.load("pets", LABELS, seed=7)
            return answer

    engine: Any = SwappedOnce(pets=LABELS)
    values = normal(3, 3, 16, 16)
    with (
        running_server(engine, settings=ServerSettings(max_batch=1)) as url,
        InferenceServerClient(url.removeprefix("http://")) as client,
    ):
        answer = client.infer("pets", [images(values)])
        np.testing.assert_array_equal(answer.as_numpy("logits"), logits(engine, values))


def test_scores_of_several_labels_are_sigmoids(client: Client, engine: Any) -> None:
    values = normal(1, 3, 16, 16)
    engine.decide("pets", Problem(thresholds=(0.5, 0.5, 0.5)))
    try:
        answer = client.infer("pets", [images(values)])
    finally:
        engine.decide("pets", Problem())
    expected = torch.from_numpy(answer.as_numpy("logits").copy()).sigmoid().numpy()
    np.testing.assert_array_equal(answer.as_numpy("scores"), expected)


def test_requests_can_be_waited_for_later(client: Client, engine: Any) -> None:
    inputs = [images(normal(1, 3, 16, 16, seed=seed)) for seed in range(4)]
    waiting = [client.async_infer("pets", [each]) for each in inputs]
    for seed, each in enumerate(waiting):
        expected = logits(engine, normal(1, 3, 16, 16, seed=seed))
        np.testing.assert_array_equal(each.get_result().as_numpy("logits"), expected)


@pytest.mark.parametrize("shape", [(1, 3, 16, 17), (1, 3, 17, 16), (1, 1, 16, 16), (3, 16, 16)])
def test_tensors_of_another_size_never_reach_the_engine(
    client: Client, engine: Any, shape: tuple[int, ...]
) -> None:
    runs = engine.runs
    sentence = refused(400, client.infer, "pets", [images(normal(*shape))])
    assert "has shape [" in sentence
    assert engine.runs == runs


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_never_reach_the_engine(
    client: Client, engine: Any, value: float, binary: bool
) -> None:
    runs, values = engine.runs, normal(3, 3, 16, 16)
    values[1, 2, 3, 4] = value
    sentence = refused(422, client.infer, "pets", [images(values, binary=binary)])
    assert "NaN or infinity in image 1 of 3" in sentence
    assert engine.runs == runs


def test_more_images_than_a_request_may_have_are_refused(client: Client) -> None:
    sentence = refused(400, client.infer, "pets", [encoded([b"x"] * 65)])
    assert "65 images; at most 64" in sentence


def test_what_clients_cannot_have_is_refused_by_a_sentence(client: Client) -> None:
    inputs = [images(normal(1, 3, 16, 16))]
    assert "sequence_id" in refused(400, client.infer, "pets", inputs, sequence_id=7)
    assert client.infer("pets", inputs, priority=1, timeout=1000).as_numpy("logits").shape == (1, 3)
    wrong = [InferRequestedOutput("labels")]
    assert "'labels'" in refused(400, client.infer, "pets", inputs, outputs=wrong)
    for call in (client.load_model, client.unload_model):
        assert "no tasks over HTTP" in refused(403, call, "pets")
    for call in (client.get_trace_settings, client.get_log_settings):
        assert "settings of its log" in refused(403, call)
    assert "its log" in refused(403, client.update_log_settings, {"log_info": False})
    assert "its log" in refused(403, client.update_trace_settings, "pets", {"trace_level": ["OFF"]})


def test_there_is_no_shared_memory(client: Client) -> None:
    assert client.get_system_shared_memory_status() == []
    assert client.get_cuda_shared_memory_status("mine") == []
    client.unregister_system_shared_memory()
    client.unregister_cuda_shared_memory("mine")
    sentence = refused(403, client.register_system_shared_memory, "mine", "/mine", 64)
    assert "no shared memory" in sentence
    refused(403, client.register_cuda_shared_memory, "mine", b"handle", 0, 64)


def test_tasks_are_listed_with_their_states() -> None:
    engine: Any = LinearEngine(pets=LABELS)

    def fail() -> None:
        raise AdapterError("Its file is gone.")

    engine.register("cars", fail)
    engine.register("birds", lambda: engine.load("birds", LABELS, seed=3))
    with (
        running_server(engine) as url,
        InferenceServerClient(url.removeprefix("http://")) as client,
    ):
        assert "Its file is gone." in refused(503, client.get_model_metadata, "cars")
        index = {each["name"]: each for each in client.get_model_repository_index()}
        assert index["pets"] == {"name": "pets", "version": "1", "state": "READY", "reason": ""}
        assert (index["cars"]["state"], index["cars"]["reason"]) == (
            "UNAVAILABLE",
            "Its file is gone.",
        )
        assert index["birds"]["reason"] == "registered: its first request loads it"
        assert client.is_model_ready("birds")
        assert not client.is_model_ready("cars")
        assert client.get_model_metadata("birds")["name"] == "birds"
        assert client.get_model_repository_index()[0]["reason"] == ""


def test_requests_are_counted() -> None:
    engine: Any = LinearEngine(pets=LABELS, cars=LABELS)
    with (
        running_server(engine, settings=ServerSettings(max_images=3)) as url,
        InferenceServerClient(url.removeprefix("http://")) as client,
    ):
        for count in (1, 3):
            client.infer("pets", [images(normal(count, 3, 16, 16))])
        refused(400, client.infer, "pets", [images(normal(4, 3, 16, 16))])
        (told,) = client.get_inference_statistics("pets")["model_stats"]
        assert (told["inference_count"], told["execution_count"]) == (4, 2)
        sums = told["inference_stats"]
        assert (sums["success"]["count"], sums["fail"]["count"]) == (2, 1)
        assert sums["success"]["ns"] >= sums["compute_infer"]["ns"] > 0
        assert told["last_inference"] > 0
        every = client.get_inference_statistics()["model_stats"]
        assert [each["name"] for each in every] == ["cars", "pets"]
        engine.unload("pets")
        assert len(client.get_inference_statistics()["model_stats"]) == 1

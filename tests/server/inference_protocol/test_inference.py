from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from gatehub.errors import InputError, RequestError
from gatehub.server import ServerSettings
from gatehub.server.inference_protocol.tensors import read_elements
from tests.server.inference_protocol.triton import (
    InferRequestedOutput,
    ask,
    encoded,
    images,
    normal,
    parse,
)
from tests.server.linear_engine import preprocessing
from tests.server.pictures import picture

FAST = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
ORDINARY = st.floats(-100, 100, width=32)
WANTED = preprocessing(4)
SIDES = WANTED.input_size


def read(body: bytes, lengths: list[str]) -> list[torch.Tensor]:
    return list(parse(body, lengths).images(WANTED, ServerSettings()))


def request(**fields: Any) -> bytes:
    tensor = {"name": "encoded_images", "shape": [1], "datatype": "BYTES", "data": ["eA=="]}
    return json.dumps({"inputs": [tensor], **fields}).encode()


def changed(**fields: Any) -> bytes:
    tensor = {"name": "images", "shape": [1, 3, 2, 2], "datatype": "FP32", "data": [0.0] * 12}
    tensor |= fields
    return json.dumps({"inputs": [{k: v for k, v in tensor.items() if v is not None}]}).encode()


@FAST
@given(
    array_shapes(min_dims=1, max_dims=1, max_side=3).flatmap(
        lambda count: arrays(np.float32, (*count, *SIDES), elements=ORDINARY, fill=ORDINARY)
    ),
    st.booleans(),
)
def test_what_the_client_writes_of_numbers_is_read(values: np.ndarray, binary: bool) -> None:
    found = read(*ask([images(values, binary=binary)]))
    np.testing.assert_array_equal(torch.stack(found).numpy(), values)


@FAST
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_what_the_client_writes_of_bytes_is_read(files: list[bytes]) -> None:
    asked = parse(*ask([encoded(files)]))
    assert read_elements(asked.data, asked.shape, asked.name) == files


BODIES = [
    ask([images(normal(2, *SIDES))], outputs=[InferRequestedOutput("scores", class_count=2)]),
    ask([images(normal(1, *SIDES), binary=False)], request_id="a"),
    ask([encoded([picture(1), picture(2, size=(3, 3))])]),
]


def refusal(body: bytes, lengths: list[str]) -> str:
    """Read a body; its images have to be sound, or else there is a sentence."""
    try:
        found = read(body, lengths)
    except (RequestError, InputError) as error:
        return str(error)
    assert all(image.shape == SIDES and image.dtype == torch.float32 for image in found)
    return ""


@FAST
@given(st.data())
def test_a_changed_body_is_read_or_refused(data: st.DataObject) -> None:
    body, lengths = data.draw(st.sampled_from(BODIES))
    damaged = bytearray(body)
    head = int(lengths[0]) if lengths else len(body)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, head) | st.integers(0, len(body)))
        until = place + data.draw(st.integers(0, 9))
        damaged[place:until] = data.draw(
            st.binary(max_size=9) | st.sampled_from([b"-1", b"1e999", b"[", b"null", b'"'])
        )
    if data.draw(st.booleans()):
        lengths = [data.draw(st.integers(-1, 2 * len(body)).map(str) | st.text())]
    assert len(refusal(bytes(damaged), lengths)) < 1000


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["name", "shape", "datatype", "data", "parameters", "binary_data_size"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@FAST
@given(JUNK, st.sampled_from(["name", "shape", "datatype", "data", "parameters"]))
def test_whatever_a_field_holds_is_read_or_refused(junk: Any, field: str) -> None:
    for body in (changed(**{field: junk}), request(parameters=junk), request(outputs=junk)):
        assert len(refusal(body, [])) < 1000


@pytest.mark.parametrize(
    ("body", "lengths", "sentence"),
    [
        (b"{", [], "first 1 bytes of the body are not valid JSON"),
        (b"[" * 100_000, [], "not valid JSON"),
        (b"1" * 5000, [], "not valid JSON"),
        (b"\xff{}", [], "not valid JSON"),
        (b"[]", [], r"is \[\]; expected a JSON object"),
        (b"{}", ["3"], "is 3, and the body has 2 bytes"),
        (b"{}", ["-1"], "'-1'; expected one whole number"),
        (b"{}", ["1", "2"], "'1, 2'; expected one whole number"),
        (b"{}", ["²"], "expected one whole number"),
        (b"{}", [], "has no 'inputs'"),
        (request(surprise=1), [], "has 'surprise'; expected inputs, id, outputs, parameters"),
        (request(inputs=[]), [], "has 0; expected a list of one"),
        (request(id=7), [], "'id' of the request is 7"),
        (request(parameters={"top_k": 1}), [], "'top_k'; expected binary_data_output"),
        (request(parameters={"binary_data_output": 1}), [], "is 1; expected true or false"),
        (request(outputs=[{"name": "logits"}] * 2), [], "'logits' is wanted twice"),
        (request() + b"  x", [str(len(request()))], "3 bytes after its last tensor"),
        (changed(name="x"), [], "called 'x'; expected images or encoded_images"),
        (changed(datatype="FP64"), [], "'FP64'; expected FP32"),
        (changed(shape=[0, 3, 2, 2]), [], r"shape \[0, 3, 2, 2\]"),
        (changed(shape=[1, 3, 2, True]), [], "whole numbers of at least 1"),
        (changed(shape=[10**30, 3, 2, 2]), [], "at most 64 are taken"),
        (changed(shape=[1, 3, 10**30, 2]), [], r"this task takes \[B, 3, 4, 4\]"),
        (changed(data=None), [], "neither 'data' and"),
        (changed(parameters={"binary_data_size": 48}), [], "both 'data' and"),
        (changed(data=None, parameters={"binary_data_size": 48}), [], "48; 0 bytes are left"),
        (changed(data=None, parameters={"shared_memory_region": "a"}), [], "no shared memory"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_told(body: bytes, lengths: list[str], sentence: str) -> None:
    with pytest.raises(RequestError, match=sentence):
        read(body, lengths)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ([0.0] * 47, "47 values; expected a list of as many"),
        ("zeros", "'zeros'; expected a list"),
        (["0"] * 48, "are no numbers"),
        ([True] * 48, "are no numbers"),
        ([10**400] * 48, "beyond the range of FP32"),
        ([[[[0.0] * 4] * 4] * 2], r"not of shape \[1, 3, 4, 4\]"),
        ([1e300] * 48, "NaN or infinity"),
    ],
)
def test_numbers_in_json_that_do_not_fit_are_refused(data: Any, sentence: str) -> None:
    with pytest.raises((RequestError, InputError), match=sentence):
        read(changed(shape=[1, *SIDES], data=data), [])


def test_numbers_in_json_may_be_nested_as_the_shape_says() -> None:
    values = normal(2, *SIDES)
    (first, second) = read(changed(shape=[2, *SIDES], data=values.tolist()), [])
    np.testing.assert_array_equal(first.numpy(), values[0])
    np.testing.assert_array_equal(second.numpy(), values[1])


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\1\0\0\0a\2\0\0\0b", "Element 1 of input encoded_images ends beyond"),
        (b"\1\0\0\0a\xff\xff\xff\xffb", "Element 1"),
        (b"\1\0\0\0a\1\0\0\0bc", "1 bytes after its last element"),
        (b"\1\0\0\0a\1\0\0", "Element 1"),
        (b"", "Element 0"),
    ],
)
def test_lengths_of_elements_that_do_not_match_are_refused(data: bytes, sentence: str) -> None:
    tensor = {"name": "encoded_images", "shape": [2], "datatype": "BYTES"}
    tensor |= {"parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(RequestError, match=sentence):
        read(head + data, [str(len(head))])

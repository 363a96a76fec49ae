from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from segrt.validation import did_you_mean, first_problem, refuse_unknown


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int

    @field_validator("size")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value < 1:
            raise ValueError("use a positive number")
        return value


class Outer(BaseModel):
    inner: Inner


@pytest.mark.parametrize(
    ("word", "hint"),
    [("openvin", " (did you mean 'openvino'?)"), ("xyz", ""), (5, "")],
)
def test_did_you_mean(word: object, hint: str) -> None:
    assert did_you_mean(word, ["cpu", "openvino"]) == hint


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "inner.size: this key is missing"),
        ({"size": 1, "sizes": 2}, "inner.sizes: there is no such key (did you mean 'size'?)"),
        ({"size": 1, "xyz": 2}, "inner.xyz: there is no such key; use size"),
        ({"size": 0}, "inner.size: use a positive number"),
        (
            {"size": "big"},
            "inner.size: Input should be a valid integer, unable to parse string as an integer, "
            "not 'big'",
        ),
    ],
)
def test_first_problem(value: object, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"inner": value})
    assert first_problem(caught.value, ["size"]) == message


def test_first_problem_without_a_key() -> None:
    with pytest.raises(ValidationError) as caught:
        Inner.model_validate_json("{")
    assert first_problem(caught.value).startswith("Invalid JSON")


def test_unknown_arguments_are_refused_with_those_that_exist() -> None:
    def scale(image: object, *, factor: int = 1, **unknown: object) -> None:
        refuse_unknown(scale, unknown)

    scale(1, factor=2)
    with pytest.raises(
        TypeError,
        match=r"^scale\(\) has no argument 'factors' \(did you mean 'factor'\?\): use image, ",
    ):
        scale(1, factors=2)

"""Which faults of a load are the model's."""

import os

import pytest

from app.errors import EngineFailed, ModelUnavailable
from workers.engines.shared.load_faults import load_faults_explained


def test_faults_of_a_model_become_one_line_and_those_of_the_machine_stay() -> None:
    for error in (ZeroDivisionError("by\nzero"), UnicodeError("no text"), EngineFailed("llama_decode failed")):
        with pytest.raises(ModelUnavailable) as caught, load_faults_explained("model.gguf"):
            raise error
        line = caught.value.detail
        assert line.startswith(f"model.gguf cannot be used ({type(error).__name__}: ") and "\n" not in line
    for error in (MemoryError(), OSError(os.strerror(28)), ModelUnavailable("its own words")):
        with pytest.raises(type(error)) as kept, load_faults_explained("model.gguf"):
            raise error
        assert kept.value is error

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from api.errors import ConfigError, DataError, Terminated
from api.model import Model
from api.onnx_file import refuse_external_data
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.classifiers import COLOURS, SIZE, colour_classifier, model

IMAGE = Path(__file__).parents[2] / "images" / "api"
WEIGHTS = np.eye(3, dtype=np.float32)
CLASSES = tuple(COLOURS)
GOOD = colour_classifier().SerializeToString()


def load(directory: Path, content: onnx.ModelProto | bytes) -> Model:
    path = directory / "best.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    return Model(path, threads=1)


def with_metadata(**changes: str | None) -> onnx.ModelProto:
    made = colour_classifier()
    kept = {each.key: each.value for each in made.metadata_props} | changes
    del made.metadata_props[:]
    helper.set_model_props(made, {key: value for key, value in kept.items() if value is not None})
    return made


def with_external_initializer() -> onnx.ModelProto:
    made = colour_classifier()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return made


def with_external_tensor_in_a_branch() -> onnx.ModelProto:
    made = colour_classifier()
    tensor = numpy_helper.from_array(WEIGHTS, "hidden")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    constant = helper.make_node("Constant", [], ["inner"], value=tensor)
    output = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [3, 3])
    branch = helper.make_graph([constant], "branch", [], [output])
    made.graph.node.append(helper.make_node("If", ["flag"], ["unused"], then_branch=branch, else_branch=branch))
    return made


def test_a_model_tells_classes_image_size_and_probabilities(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert list(loaded.classes) == list(CLASSES)
    assert loaded.image_size == SIZE
    red = np.zeros((2, 3, SIZE, SIZE), np.float32)
    red[:, 0] = 1
    answer = loaded.probabilities(red)
    assert answer.shape == (2, 3)
    assert answer.argmax(axis=1).tolist() == [CLASSES.index("red")] * 2


@pytest.mark.parametrize("make", [with_external_initializer, with_external_tensor_in_a_branch])
def test_a_model_that_reads_other_files_is_refused_before_it_is_loaded(make: Callable[[], onnx.ModelProto]) -> None:
    with pytest.raises(DataError, match="other files"):
        refuse_external_data(make().SerializeToString(), "best.onnx")


@pytest.mark.parametrize(
    ("made", "cause"),
    [
        (model(WEIGHTS, CLASSES, name="pixels"), "one input images"),
        (with_metadata(imgsz="[64, 64]"), "one input images"),
        (with_metadata(imgsz="[32, 64]"), "not a square"),
        (with_metadata(imgsz="-1"), "not a square"),
        (with_metadata(imgsz=None), "no image size"),
        (with_metadata(names=None), "no class names"),
        (with_metadata(names="__import__('os').abort()"), "no class names"),
        (with_metadata(names="{1: 'red', 2: 'blue'}"), "no class names"),
        (with_metadata(names="{0: 'red', 1: 'blue'}"), "one output"),
        (model(np.full((3, 3), np.nan, np.float32), CLASSES), "other than probabilities"),
        (b"", "cannot be loaded"),
        (b"not a model at all", "not an ONNX file"),
    ],
)
def test_a_model_that_is_not_as_promised_is_refused_with_its_cause(
    tmp_path: Path, made: onnx.ModelProto | bytes, cause: str
) -> None:
    with pytest.raises(DataError, match=cause):
        load(tmp_path, made)


def test_a_model_without_softmax_is_refused(tmp_path: Path) -> None:
    made = colour_classifier()
    softmax = made.graph.node.pop()
    made.graph.node.append(helper.make_node("Identity", softmax.input, softmax.output))
    with pytest.raises(DataError, match="other than probabilities"):
        load(tmp_path, made)


def test_cuda_is_refused_where_the_image_has_none_and_where_the_container_has_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "best.onnx"
    path.write_bytes(GOOD)
    with pytest.raises(ConfigError, match="holds ONNX Runtime for processors"):
        Model(path, 1, "cuda")
    # As an image with CUDA in a container without a GPU: the runtime falls back to the processor.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.warns(UserWarning, match="CUDAExecutionProvider"), pytest.raises(ConfigError, match="finds no GPU"):
        Model(path, 1, "cuda")


def test_a_stop_while_the_model_warms_up_is_no_fault_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*given: Any) -> None:
        raise Terminated

    monkeypatch.setattr(Model, "probabilities", stopped)
    with pytest.raises(Terminated):
        load(tmp_path, GOOD)


@settings(deadline=None)
@given(st.integers(min_value=1, max_value=len(GOOD) - 1))
def test_a_truncated_model_is_refused_wherever_it_was_cut(
    tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    with pytest.raises(DataError):
        load(tmp_path_factory.mktemp("cut"), GOOD[:length])


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_examined_or_refused_and_never_crash(content: bytes) -> None:
    with contextlib.suppress(DataError):
        refuse_external_data(content, "best.onnx")


def test_onnx_runtime_does_not_report_to_its_maker(tmp_path: Path) -> None:
    """Without the switch it writes an identifier below HOME, or a warning where it cannot."""
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(IMAGE), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", "import api.model"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert list(tmp_path.rglob("*")) == []

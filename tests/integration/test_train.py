"""The trainer's image, trained for real: on S3 (SeaweedFS) and MLflow, in the container that Airflow would start."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image, ImageDraw

from tests.integration.api_parts import Relay
from tests.integration.dataset_lab import PROJECT, Lab
from tests.integration.mlflow_fixture import MlflowServer, running_mlflow
from tests.integration.s3_servers import S3Server
from tests.integration.trainer_container import STOCK_SCAN, Ended, Trainer, environment_of, trainer

extended = pytest.mark.extended
CLASSES = ("circle", "cross", "square", "stri$_$pe")  # a figure must not read a formula
PICTURES = 50
UNSCANNED = """
from trainer import yolo
from ultralytics.data import dataset
dataset.verify_image = None
"""  # a scan of Ultralytics' own would fail
HASH_TAGS = ("dvc_hash", "dvc_hash_onnx", "dvc_hash_golden", "dvc_hash_split")


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="module")
def lab(s3_server: S3Server) -> Lab:
    lab = Lab.on(s3_server)
    for label in CLASSES:
        for number in range(PICTURES):
            lab.put(f"{label}/{number:03d}.png", _picture(label, number))
    return lab


@pytest.fixture(scope="module")
def environment(lab: Lab, mlflow: MlflowServer) -> dict[str, str]:
    return environment_of(lab, str(lab.take().snapshot_id), mlflow.url)


@pytest.fixture
def box(environment: dict[str, str]) -> Iterator[Trainer]:
    """The trainer, with an empty cache."""
    with trainer(environment) as one:
        yield one


@pytest.fixture(scope="module")
def first(environment: dict[str, str]) -> Iterator[tuple[Ended, str]]:
    """One good run, and what its cache keeps of it."""
    with trainer(environment) as one:
        ended = one.run("train", UNSCANNED)
        assert ended.code == 0, ended.log[-3000:]
        yield ended, one.cached_runs()


def _picture(label: str, seed: int) -> bytes:
    dice = random.Random(f"{label}{seed}")
    image = Image.new("RGB", (40, 36), tuple(dice.randrange(0, 90) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    left, top, size = dice.randrange(2, 12), dice.randrange(2, 12), dice.randrange(14, 22)
    box = (left, top, left + size, top + size)
    colour = tuple(dice.randrange(150, 256) for _ in range(3))
    match label:
        case "circle":
            draw.ellipse(box, fill=colour)
        case "square":
            draw.rectangle(box, fill=colour)
        case "stri$_$pe":
            draw.rectangle((left, top, left + size, top + 4), fill=colour)
        case _:
            draw.line(box, fill=colour, width=3)
            draw.line((left, top + size, left + size, top), fill=colour, width=3)
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def _locked(lab: Lab, md5: str) -> bytes:
    return lab.read(lab.dvc, f"models/files/md5/{md5[:2]}/{md5[2:]}")


def _tensors(content: bytes) -> dict[str, bytes]:
    return {
        each.name: onnx.numpy_helper.to_array(each).tobytes()
        for each in onnx.load_from_string(content).graph.initializer
    }


def _runs(client: MlflowClient, airflow_run_id: str) -> list[Any]:
    experiment = client.get_experiment_by_name(PROJECT)
    assert experiment
    found = client.search_runs([experiment.experiment_id], f"tags.airflow_run_id = '{airflow_run_id}'")
    return sorted(found, key=lambda run: run.info.start_time)


def _report(client: MlflowClient, run_id: str) -> Any:
    """Preflight's report in a run, of which the page is there too."""
    files = {each.path for each in client.list_artifacts(run_id, "preflight")}
    assert files == {"preflight/report.html", "preflight/report.json", "preflight/contact-sheet.jpg"}
    return json.loads(Path(client.download_artifacts(run_id, "preflight/report.json")).read_text())


def _steps(client: MlflowClient, run_id: str) -> list[int]:
    return [row.step for row in client.get_metric_history(run_id, "train/loss")]


def test_a_finished_run_is_locked_in_mlflow_and_in_dvc(
    first: tuple[Ended, str], lab: Lab, mlflow: MlflowServer, environment: dict[str, str]
) -> None:
    result = first[0].result
    run = mlflow.client().get_run(result["run_id"])
    assert run.info.status == "FINISHED"
    assert {name: run.data.tags[name] for name in HASH_TAGS} == {name: result[name] for name in HASH_TAGS}
    for name in HASH_TAGS:
        assert hashlib.md5(_locked(lab, result[name])).hexdigest() == result[name]
    expected = {
        "project": PROJECT,
        "snapshot_id": environment["SNAPSHOT_ID"],
        "snapshot_md5": lab.record(environment["SNAPSHOT_ID"])["md5"],
        "git_commit": "0123abc-dirty",
        "image_id": "sha256:abc",
        "trainer": "default",
        "seed": "7",
        "airflow_dag_id": "pets__retrain",
        "airflow_run_id": "manual__1",
        "airflow_task_id": "train",
        "airflow_try_number": "1",
        "reason": "a test",
    }
    assert expected.items() <= run.data.tags.items()
    assert result["classes"] == list(CLASSES)
    assert result["metrics"]["epochs"] == 2
    assert result["metrics"]["accuracy_top1"] == run.data.metrics["accuracy_top1"]


def test_every_epoch_the_figures_and_the_report_on_the_dataset_are_in_mlflow(
    first: tuple[Ended, str], mlflow: MlflowServer
) -> None:
    run_id = first[0].result["run_id"]
    client = mlflow.client()
    names = ("train/loss", "val/loss", "metrics/accuracy_top1", "metrics/accuracy_top5", "lr/pg0")
    assert [row.value for row in client.get_metric_history(run_id, "train/batch")] == [32, 32]
    for name in (*names, "system/cpu_utilization_percentage", "system/process_memory_megabytes"):
        assert [row.step for row in client.get_metric_history(run_id, name)] == [1, 2], name
    assert client.get_run(run_id).data.params["epochs"] == "2"
    figures = {each.path: each.file_size for each in client.list_artifacts(run_id, "figures")}
    assert set(figures) == {
        f"figures/{name}.png" for name in ("class_balance", "confusion_matrix", "curves", "worst_mistakes")
    }
    assert all(figures.values())
    assert first[0].result["experiment_id"] == client.get_run(run_id).info.experiment_id
    assert _report(client, run_id)["counts"]["files"] == len(CLASSES) * PICTURES


def test_golden_predictions_are_what_the_onnx_answers(first: tuple[Ended, str], lab: Lab) -> None:
    result = first[0].result
    session = onnxruntime.InferenceSession(_locked(lab, result["dvc_hash_onnx"]))
    assert [(each.name, each.shape[1:]) for each in session.get_inputs()] == [("images", [3, 32, 32])]
    images = json.loads(_locked(lab, result["dvc_hash_golden"]))["images"]
    assert 8 <= len(images) <= 16
    assert {each["label"] for each in images} == set(CLASSES)
    for each in images:
        content = base64.b64decode(each["content"])
        assert hashlib.md5(content).hexdigest() == each["md5"]
        # 40x36 scaled to 35x32, then the middle 32 columns.
        scaled = Image.open(io.BytesIO(content)).convert("RGB").resize((35, 32), Image.Resampling.BILINEAR)
        pixels = np.asarray(scaled.crop((2, 0, 34, 32)), dtype=np.float32).transpose(2, 0, 1)[None] / 255
        answer = session.run(None, {"images": pixels})[0][0]
        assert list(each["probabilities"]) == list(CLASSES)
        np.testing.assert_allclose(answer, list(each["probabilities"].values()), atol=1e-6)


def test_the_split_names_every_picture_once(first: tuple[Ended, str], lab: Lab) -> None:
    split = json.loads(_locked(lab, first[0].result["dvc_hash_split"]))
    val = [each["md5"] for each in split["val"]]
    assert not set(val) & set(split["train"])
    assert len(val) + len(split["train"]) == len(CLASSES) * PICTURES
    assert {each["label"] for each in split["val"]} == set(CLASSES)
    assert split["left_out"] == []


def test_a_finished_run_leaves_only_the_cache(first: tuple[Ended, str]) -> None:
    assert first[1] == ""


def test_the_same_seed_and_snapshot_give_the_same_weights(first: tuple[Ended, str], box: Trainer, lab: Lab) -> None:
    # Also where Ultralytics scans the pictures itself.
    again = box.run("train", STOCK_SCAN, AIRFLOW_RUN_ID="manual__again")
    assert again.code == 0, again.log[-3000:]
    assert "scan.not_spared" in again.log
    expected = _tensors(_locked(lab, first[0].result["dvc_hash_onnx"]))
    assert _tensors(_locked(lab, again.result["dvc_hash_onnx"])) == expected


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, 137)])
def test_a_killed_training_is_killed_in_mlflow_and_the_retry_goes_on_from_its_checkpoint(
    box: Trainer, mlflow: MlflowServer, number: signal.Signals, code: int
) -> None:
    task = {"EPOCHS": "12", "AIRFLOW_RUN_ID": f"manual__{number.name}"}
    container = box.start("train", **task)
    box.wait_for_log(container, lambda line: "train.epoch epoch=3" in line)
    container.kill(number)
    ended = box.ended(container)
    assert ended.code == code
    client = mlflow.client()
    if number is signal.SIGTERM:
        assert ended.result["error"]["kind"] == "interrupted"
        assert [run.info.status for run in _runs(client, task["AIRFLOW_RUN_ID"])] == ["KILLED"]
    retried = box.run("train", **task, AIRFLOW_TRY_NUMBER="2")
    assert retried.code == 0, retried.log[-3000:]
    assert [run.info.status for run in _runs(client, task["AIRFLOW_RUN_ID"])] == ["KILLED", "FINISHED"]
    assert "train.epoch epoch=1 " not in retried.log
    assert _steps(client, retried.result["run_id"]) == list(range(1, 13))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="last"),
        pytest.param({"EPOCHS": "100", "TRAIN_ARGS": '{"patience": 1}'}, id="early", marks=extended),
    ],
)
def test_killed_after_its_last_epoch_the_retry_trains_no_more(
    box: Trainer, mlflow: MlflowServer, changes: dict[str, str]
) -> None:
    task = {**changes, "AIRFLOW_RUN_ID": f"manual__over{len(changes)}"}
    container = box.start("train", **task)
    box.wait_for_log(container, lambda line: "checkpoint.saved" in line and "finished=True" in line)
    container.kill(signal.SIGKILL)
    killed = box.ended(container)
    assert killed.code == 137
    assert "export.parity" not in killed.log
    epochs = killed.log.count("train.epoch ")
    retried = box.run("train", **task, AIRFLOW_TRY_NUMBER="2")
    assert retried.code == 0, retried.log[-3000:]
    assert "train.epoch " not in retried.log
    assert retried.result["metrics"]["epochs"] == epochs < 100
    assert _steps(mlflow.client(), retried.result["run_id"]) == list(range(1, epochs + 1))


@extended
def test_the_weights_of_a_retry_that_trained_no_more_are_those_of_an_undisturbed_run(
    first: tuple[Ended, str], box: Trainer, lab: Lab
) -> None:
    container = box.start("train")
    box.wait_for_log(container, lambda line: "checkpoint.saved epoch=2" in line)
    container.kill(signal.SIGKILL)
    box.ended(container)
    retried = box.run("train", AIRFLOW_TRY_NUMBER="2")
    assert retried.code == 0, retried.log[-3000:]
    for name in ("dvc_hash", "dvc_hash_onnx"):
        assert abs(len(_locked(lab, retried.result[name])) - len(_locked(lab, first[0].result[name]))) < 10_000
    expected = _tensors(_locked(lab, first[0].result["dvc_hash_onnx"]))
    assert _tensors(_locked(lab, retried.result["dvc_hash_onnx"])) == expected


def test_weights_that_cannot_be_pushed_fail_the_run_and_the_retry_pushes_them_without_training(
    box: Trainer, mlflow: MlflowServer, lab: Lab
) -> None:
    task = {"AIRFLOW_RUN_ID": "manual__no_push"}
    relay = Relay(lab.server.endpoint_url, "127.0.0.1")
    container = box.start("train", **task, S3_ENDPOINT_URL=relay.url)
    box.wait_for_log(container, lambda line: "export.parity" in line)
    relay.close()
    ended = box.ended(container)
    assert (ended.code, ended.result["error"]["kind"]) == (69, "unavailable")
    assert "could not push" in ended.result["error"]["message"]
    (failed,) = _runs(mlflow.client(), task["AIRFLOW_RUN_ID"])
    assert failed.info.status == "FAILED"
    assert not failed.data.tags.keys() & set(HASH_TAGS)
    retried = box.run("train", **task, AIRFLOW_TRY_NUMBER="2")
    assert retried.code == 0, retried.log[-3000:]
    assert "train.epoch " not in retried.log
    assert [run.info.status for run in _runs(mlflow.client(), task["AIRFLOW_RUN_ID"])] == ["FAILED", "FINISHED"]
    assert _steps(mlflow.client(), retried.result["run_id"]) == [1, 2]


def test_an_onnx_that_answers_differently_from_torch_is_not_pushed(
    box: Trainer, mlflow: MlflowServer, lab: Lab
) -> None:
    differ = """
from trainer.predictions import Model
right = Model.probabilities
Model.probabilities = lambda self, pixels: right(self, pixels) + 1e-4
"""
    before = lab.keys(lab.dvc)
    ended = box.run("train", differ, EPOCHS="1", AIRFLOW_RUN_ID="manual__differs")
    assert ended.code == 70
    assert "the exported ONNX answers differently from torch" in ended.result["error"]["message"]
    assert [run.info.status for run in _runs(mlflow.client(), "manual__differs")] == ["FAILED"]
    assert lab.keys(lab.dvc) == before


@extended
def test_a_figure_that_cannot_be_drawn_costs_only_itself(box: Trainer, mlflow: MlflowServer) -> None:
    ended = box.run("train", "from trainer import figures\nfigures._curves = lambda history: 1 / 0", EPOCHS="1")
    assert ended.code == 0, ended.log[-3000:]
    assert "figure.failed name=curves.png" in ended.log
    drawn = {each.path for each in mlflow.client().list_artifacts(ended.result["run_id"], "figures")}
    assert drawn == {f"figures/{name}.png" for name in ("class_balance", "confusion_matrix", "worst_mistakes")}


@pytest.mark.parametrize("epochs", ["1", pytest.param("10", marks=extended)])
def test_a_training_that_diverges_says_to_lower_the_learning_rate(box: Trainer, epochs: str) -> None:
    diverge = """
from trainer import yolo
from ultralytics.nn.tasks import ClassificationModel
right = ClassificationModel.loss
def not_a_number(*arguments):
    loss, items = right(*arguments)
    return loss * float("nan"), items
ClassificationModel.loss = not_a_number
"""
    ended = box.run("train", diverge, EPOCHS=epochs)
    assert (ended.code, ended.result["error"]["kind"]) == (65, "data"), ended.log[-3000:]
    assert "Lower LEARNING_RATE" in ended.result["error"]["message"]


def test_a_batch_that_the_memory_did_not_hold_is_logged_as_it_became(box: Trainer, mlflow: MlflowServer) -> None:
    full_once = """
from trainer import yolo
from ultralytics.nn.tasks import ClassificationModel
loss = ClassificationModel.loss
def full(*_):
    ClassificationModel.loss = loss
    raise RuntimeError("CUDA out of memory")
ClassificationModel.loss = full
"""
    ended = box.run("train", full_once, EPOCHS="1")
    assert ended.code == 0, ended.log[-3000:]
    history = mlflow.client().get_metric_history(ended.result["run_id"], "train/batch")
    assert [row.value for row in history] == [16]


def test_mixed_precision_is_judged_without_downloading_a_model(box: Trainer) -> None:
    asked = """
import torch
from trainer import yolo
from ultralytics.engine import trainer as engine
assert "check_amp" in engine.BaseTrainer._setup_train.__code__.co_names
def on(device):
    parameter = type("Parameter", (), {"device": torch.device(device)})
    return engine.check_amp(type("Network", (), {"parameters": lambda: iter([parameter])}))
assert on("cuda") is True
assert on("cpu") is False
"""
    assert box.run("check", asked, DEVICE="cpu").code == 0


def test_epochs_of_an_mlflow_outage_are_caught_up(environment: dict[str, str], tmp_path: Path, lab: Lab) -> None:
    with (
        running_mlflow(tmp_path / "mlflow") as server,
        trainer(environment | {"MLFLOW_TRACKING_URI": server.url}) as box,
    ):
        container = box.start("train", EPOCHS="12")
        box.wait_for_log(container, lambda line: "train.epoch epoch=2" in line)
        server.stop()
        box.wait_for_log(container, lambda line: "mlflow.down" in line)
        server.start()
        ended = box.ended(container)
        assert ended.code == 0, ended.log[-3000:]
        assert "mlflow.back" in ended.log
        history = server.client().get_metric_history(ended.result["run_id"], "train/loss")
        assert [row.step for row in history] == list(range(1, 13))
        assert all(before.timestamp < after.timestamp for before, after in pairwise(history))


def test_an_outage_beyond_the_allowed_minutes_fails_the_run(
    environment: dict[str, str], tmp_path: Path, lab: Lab
) -> None:
    with (
        running_mlflow(tmp_path / "mlflow") as server,
        trainer(environment | {"MLFLOW_TRACKING_URI": server.url}) as box,
    ):
        container = box.start("train", EPOCHS="200", MLFLOW_OUTAGE_MINUTES="0.05")
        box.wait_for_log(container, lambda line: "train.epoch epoch=1" in line)
        server.stop()
        ended = box.ended(container)
        assert ended.code == 69
        assert "MLflow has not answered" in ended.result["error"]["message"]


def test_without_mlflow_nothing_is_trained(box: Trainer) -> None:
    ended = box.run("train", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert (ended.code, ended.result["error"]["kind"]) == (69, "unavailable")
    assert "http://127.0.0.1:9" in ended.result["error"]["message"]
    assert "train.epoch" not in ended.log


def test_a_dataset_that_cannot_be_trained_on_fails_the_run_which_has_the_report(
    box: Trainer, s3_server: S3Server, mlflow: MlflowServer
) -> None:
    one_class = Lab.on(s3_server)
    for number in range(20):
        one_class.put(f"circle/{number}.png", _picture("circle", number))
    taken = one_class.take()
    buckets = {"TRAIN_BUCKET": one_class.train, "AIRLOCK_BUCKET": one_class.airlock, "DVC_BUCKET": one_class.dvc}
    ended = box.run("train", **buckets, SNAPSHOT_ID=str(taken.snapshot_id), AIRFLOW_RUN_ID="manual__one_class")
    assert (ended.code, ended.result["error"]["kind"]) == (65, "data")
    [run] = _runs(mlflow.client(), "manual__one_class")
    assert run.info.status == "FAILED"
    assert (ended.result["run_id"], ended.result["experiment_id"]) == (run.info.run_id, run.info.experiment_id)
    where = f"The report is in the MLflow run {run.info.run_id}, artifact preflight/report.html"
    assert ended.result["error"]["message"].endswith(where)
    assert _report(mlflow.client(), run.info.run_id)["problems"]


def test_weights_from_the_bucket_are_trained_on(first: tuple[Ended, str], box: Trainer, lab: Lab) -> None:
    lab.client.put_object(Bucket=lab.train, Key="mine.pt", Body=_locked(lab, first[0].result["dvc_hash"]))
    ended = box.run("train", MODEL="s3:mine.pt", EPOCHS="1", AIRFLOW_RUN_ID="manual__weights")
    assert ended.code == 0, ended.log[-3000:]
    missing = box.run("train", MODEL="s3:none.pt")
    assert (missing.code, missing.result["error"]["kind"]) == (78, "config")
    assert "none.pt" in missing.result["error"]["message"]


@pytest.mark.parametrize(
    "changes",
    [{"TRAIN_ARGS": '{"no_such_argument": 1}'}, {"MODEL": "yolo99z-cls.yaml"}, {"IMAGE_SIZE": "33", "EPOCHS": "0"}],
)
def test_a_wrong_setting_is_named_before_anything_is_logged(box: Trainer, changes: dict[str, str]) -> None:
    ended = box.run("train", **changes)
    assert (ended.code, ended.result["error"]["kind"]) == (78, "config")
    assert all(name in ended.result["error"]["message"] for name in changes)
    assert "mlflow.started" not in ended.log


@pytest.mark.parametrize("name", ["optimizer", pytest.param("auto_augment", marks=extended)])
def test_an_argument_that_only_the_training_itself_refuses_is_named_too(box: Trainer, name: str) -> None:
    ended = box.run("train", TRAIN_ARGS=json.dumps({name: "no such thing"}), LEARNING_RATE="")
    assert (ended.code, ended.result["error"]["kind"]) == (78, "config")
    assert ended.result["error"]["message"].startswith("TRAIN_ARGS: ")
    assert name in ended.result["error"]["message"]


def test_no_gpu_is_said_at_once(box: Trainer) -> None:
    ended = box.run("check", DEVICE="cuda", NVIDIA_VISIBLE_DEVICES="void")  # also where the host has one
    assert (ended.code, ended.result["error"]["kind"]) == (71, "gpu")
    assert "device: cpu" in ended.result["error"]["message"]


def test_the_processor_is_always_there(box: Trainer) -> None:
    ended = box.run("check", DEVICE="cpu")
    assert ended.code == 0
    assert ended.result["gpus"] == []
    assert ended.result["torch"]

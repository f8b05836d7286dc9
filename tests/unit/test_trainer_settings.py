from __future__ import annotations

import pytest
from trainer.errors import ConfigError
from trainer.settings import TrainSettings, read

ENVIRONMENT = {
    "PROJECT": "digits",
    "S3_ENDPOINT_URL": "http://s3:9000",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "canary-secret",
    "TRAIN_BUCKET": "digits-train",
    "AIRLOCK_BUCKET": "airlock",
    "DVC_BUCKET": "dvc",
    "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    "MLFLOW_OUTAGE_MINUTES": "15",
    "SNAPSHOT_ID": "20261123T171409123Z-c71581aa",
    "DEVICE": "cpu",
    "MODEL": "yolo11n-cls.yaml",
    "IMAGE_SIZE": "32",
    "EPOCHS": "2",
    "BATCH": "64",
    "LEARNING_RATE": "",
    "SEED": "0",
    "TRAIN_ARGS": '{"optimizer": "AdamW", "auto_augment": null}',
    "VAL_SHARE": "0.2",
    "MIN_IMAGES_PER_CLASS": "5",
    "MAX_BAD_SHARE": "0.05",
    "MEMORY_BYTES": "",
    "AIRFLOW_DAG_ID": "digits__retrain",
    "AIRFLOW_RUN_ID": "manual__1",
    "AIRFLOW_TASK_ID": "train",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a good `train` container."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_an_empty_learning_rate_leaves_the_choice_to_ultralytics(environment: pytest.MonkeyPatch) -> None:
    settings = read(TrainSettings)
    assert settings.learning_rate is None
    assert settings.train_args == {"optimizer": "AdamW", "auto_augment": None}


def test_every_problem_is_named_at_once_and_no_value_is_shown(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("SNAPSHOT_ID")
    environment.setenv("EPOCHS", "none")
    environment.setenv("AWS_REGION", "canary-secret")
    environment.setenv("AWS_SECRET_ACCESS_KEY", "")
    environment.setenv("TRAIN_ARGS", "{canary-secret")
    with pytest.raises(ConfigError) as caught:
        read(TrainSettings)
    message = str(caught.value)
    assert all(name in message for name in ("SNAPSHOT_ID", "EPOCHS", "AWS_SECRET_ACCESS_KEY", "TRAIN_ARGS"))
    assert "canary" not in message


@pytest.mark.parametrize("name", ["epochs", "data", "lr0", "seed", "save_dir", "pretrained"])
def test_train_args_cannot_override_what_the_trainer_sets(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.setenv("TRAIN_ARGS", f'{{"{name}": 1}}')
    with pytest.raises(ConfigError, match=f"TRAIN_ARGS.*{name}"):
        read(TrainSettings)


@pytest.mark.parametrize("model", ["yolo11n-cls.pt", "yolo11n.yaml", "s3:models/readme.txt", "resnet18"])
def test_a_model_that_would_be_downloaded_or_is_no_classifier_is_refused(
    environment: pytest.MonkeyPatch, model: str
) -> None:
    environment.setenv("MODEL", model)
    with pytest.raises(ConfigError, match="MODEL"):
        read(TrainSettings)


def test_weights_in_the_projects_bucket_are_a_model(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MODEL", "s3:weights/mine.pt")
    assert read(TrainSettings).model == "s3:weights/mine.pt"


def test_the_secret_is_in_no_repr(environment: pytest.MonkeyPatch) -> None:
    settings = read(TrainSettings)
    assert "canary-secret" not in repr(settings) + repr(settings.s3())

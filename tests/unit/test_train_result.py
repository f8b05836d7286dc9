import pytest

from include.train_result import TrainResultError, read_train_result

MD5 = "0123456789abcdef" * 2
RESULT = {
    "run_id": MD5,
    "dvc_hash": MD5,
    "dvc_hash_onnx": MD5,
    "dvc_hash_golden": MD5,
    "dvc_hash_split": MD5,
    "snapshot_id": "20261123T160000000Z-c71581aa",
    "snapshot_md5": f"{MD5}.dir",
    "metrics": {"accuracy_top1": 0.97, "epochs": 10},
    "classes": ["0", "1"],
}


def test_a_trainers_result_is_taken() -> None:
    assert read_train_result(RESULT).dvc_hash == MD5


def test_no_xcom_is_an_error_and_not_a_model() -> None:
    with pytest.raises(TrainResultError, match="handed over no result"):
        read_train_result(None)


def test_every_missing_or_malformed_value_is_named() -> None:
    values = {key: value for key, value in RESULT.items() if key != "run_id"} | {"dvc_hash": "short"}
    with pytest.raises(TrainResultError, match=r"(?s)run_id: Field required.*dvc_hash: String should match"):
        read_train_result(values)


@pytest.mark.parametrize("xcom", ["text", 3, [], {}])
def test_anything_else_is_refused(xcom: object) -> None:
    with pytest.raises(TrainResultError):
        read_train_result(xcom)

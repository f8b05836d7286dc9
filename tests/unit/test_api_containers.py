from __future__ import annotations

from pydantic import SecretStr

from include.api_containers import environment
from include.settings import Settings
from tests.mutants import RECORD


def settings(otlp_endpoint: str) -> Settings:
    return Settings.model_construct(
        s3_endpoint_url="http://s3:9000",
        s3_api_access_key_id="key",
        s3_api_secret_access_key=SecretStr("secret"),
        mlflow_url="http://mlflow:5000",
        mlflow_public_url="http://127.0.0.1:5000",
        otlp_endpoint=otlp_endpoint,
    )


def test_an_api_exports_traces_only_where_a_collector_is_named_and_says_whose_they_are() -> None:
    assert not [name for name in environment(settings(""), RECORD) if name.startswith("OTEL")]
    told = environment(settings("http://collector:4318"), RECORD)
    assert told["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector:4318"
    assert f"airlock.release_id={RECORD.release_id}" in told["OTEL_RESOURCE_ATTRIBUTES"].split(",")

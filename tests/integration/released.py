"""What a run asks to be released, and the registry's alias, for tests that release stand-ins for the API."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field

from include.deployment import Wish
from include.train_result import Provenance, Registered, TrainResult
from include.world import RealClock

GOLDEN = json.dumps(
    {"images": [{"name": "1.png", "content": base64.b64encode(b"1").decode(), "probabilities": {"0": 0.25, "1": 0.75}}]}
).encode()
GOLDEN_MD5 = hashlib.md5(GOLDEN, usedforsecurity=False).hexdigest()


@dataclass
class NotedAliases:
    """The registry's alias, in memory: MLflow has tests of its own."""

    champions: dict[str, str] = field(default_factory=dict)

    def champion(self, project: str) -> str | None:
        return self.champions.get(project)

    def set_champion(self, project: str, version: str) -> bool:
        self.champions[project] = version
        return True


@dataclass
class Impatient(RealClock):
    """The machine's clock, for which a wait of seconds between health checks is a short one."""

    def sleep(self, seconds: float) -> None:
        super().sleep(min(seconds, 0.5))


def wish(run: str, version: int, champion: int | None) -> Wish:
    train = TrainResult(
        run_id=run,
        dvc_hash=run,
        dvc_hash_onnx=run,
        dvc_hash_golden=GOLDEN_MD5,
        dvc_hash_split=run,
        snapshot_id="20261123T160000000Z-c71581aa",
        snapshot_md5=f"{run}.dir",
        metrics={},
        classes=("0", "1"),
    )
    return Wish(
        train=train,
        registered=Registered(
            run_id=run,
            dvc_hash=run,
            model_version=str(version),
            provenance=Provenance(experiment_id="1", git_commit="abc", image_id="sha256:trainer", accuracy=0.97),
        ),
        champion_version=str(champion) if champion else None,
        airflow_run_id=f"run-{version}",
        reason="better",
    )

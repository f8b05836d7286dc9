"""How a new release is watched while it has the traffic and the old one stands by."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from include.gate import Share


class BakeLimits(BaseModel):
    """What a release on trial may do worse than the one that served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: int = Field(default=60, ge=1, le=86_400, description="how long it is watched with all traffic")
    max_error_share: Share = Field(default=0.01, description="of requests that fail, above the old release's share")
    max_p99_ratio: float = Field(default=2.0, ge=1, le=100, description="of the p99 to the old release's")
    min_requests: int = Field(default=500, ge=1, description="fewer are not judged by their share or p99")

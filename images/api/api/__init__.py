"""Airlock's model server, and the evaluation that scores models with the server's own inference code."""

import os

# Official builds of ONNX Runtime report to Microsoft since 1.29, from the moment they are imported. This alone stops
# all of it (its docs/Privacy.md), and only when it is set before.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

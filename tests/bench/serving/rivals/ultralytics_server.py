"""FastAPI with Ultralytics' `predict`: what most people write first."""

import io
import os
from typing import Any

from fastapi import FastAPI, UploadFile
from PIL import Image
from trainer.operators import declare_missing

declare_missing()  # before Ultralytics imports torchvision, which may be a build without its operators

from ultralytics import YOLO  # noqa: E402

model = YOLO("/models/best.pt")
SIZE = int(os.environ["IMAGE_SIZE"])
app = FastAPI()


@app.post("/predict")
def predict(file: UploadFile) -> dict[str, Any]:
    """The label and all probabilities of one picture."""
    picture = Image.open(io.BytesIO(file.file.read()))
    (result,) = model.predict(picture, imgsz=SIZE, verbose=False)
    probabilities = result.probs.data.tolist()
    return {
        "label": result.names[result.probs.top1],
        "probabilities": {result.names[index]: share for index, share in enumerate(probabilities)},
    }

"""A model of MLflow's own kind around ONNX Runtime, for `mlflow models serve`; saved below /tmp/model when run."""

import base64
import io
from typing import Any

import mlflow
from mlflow.models import set_model
from PIL import Image


class Classifier(mlflow.pyfunc.PythonModel):
    """Takes a table with one picture a row, in base64."""

    def load_context(self, context: Any) -> None:
        from with_onnx import OnnxClassifier

        self.model = OnnxClassifier()

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[dict[str, object]]:
        contents = [base64.b64decode(each) for each in model_input["picture"]]
        return self.model.answers([self.model.pixels(Image.open(io.BytesIO(each))) for each in contents])


set_model(Classifier())

if __name__ == "__main__":
    mlflow.pyfunc.save_model("/srv/rival/model", python_model=__file__, pip_requirements=[])

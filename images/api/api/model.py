"""One ONNX model: checked before and after it is loaded, then asked for probabilities."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from api import limits
from api.errors import ConfigError, DataError
from api.onnx_file import refuse_external_data

INPUT_NAME = "images"
SUM_TOLERANCE = 1e-3
LARGEST_SIDE = 4096
MAX_BATCH = 4
# Above it a picture's own activations fill the processor's cache, and a batch gains nothing.
MAX_BATCH_BYTES = 4 * 1024 * 1024

CUDA = "CUDAExecutionProvider"
Device = Literal["cpu", "cuda"]
Providers = Sequence[str | tuple[str, dict[str, str]]]
# TF32 rounds to 10 bits: the answers would no longer be those that were recorded at training.
PROVIDERS: dict[Device, Providers] = {
    "cpu": ["CPUExecutionProvider"],
    "cuda": [(CUDA, {"use_tf32": "0"}), "CPUExecutionProvider"],
}


class Model:
    """A classifier as docs/contracts.md describes `best.onnx`. Safe to use from several threads."""

    def __init__(self, path: Path, threads: int, device: Device = "cpu") -> None:
        """Loads the file, checks what it promises and runs it once; DataError when it is something else.

        ConfigError when there is no such device for it.
        """
        self._name = f"The model {path}"
        content = path.read_bytes()
        refuse_external_data(content, self._name)
        if device == "cuda":
            _prepare_cuda()
        self._session = self._load(content, threads, PROVIDERS[device])
        if device == "cuda" and self._session.get_providers()[0] != CUDA:
            # The runtime takes the processor instead, which would be slow and look well.
            raise ConfigError(
                "DEVICE is cuda, but ONNX Runtime finds no GPU that it can use in this container. Check `nvidia-smi` "
                "and the NVIDIA container toolkit on the Docker host, or set API_DEVICE=cpu in .env and run `make up`."
            )
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.classes: Sequence[str] = self._classes(metadata)
        self.image_size: int = self._image_size(metadata)
        self.batch: int = max(1, min(MAX_BATCH, MAX_BATCH_BYTES // (4 * 3 * self.image_size**2)))
        self._check_input()
        self._check_output()
        before = limits.resident_bytes()
        self._warm_up()
        self.run_bytes: int = limits.peak_bytes() - before
        """The most that a run may take; what loading took meanwhile counts as well, where that was more."""

    def probabilities(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of each class for each picture: (N, 3, S, S) in, (N, classes) out."""
        answer: NDArray[np.float32] = self._session.run(None, {INPUT_NAME: pictures})[0]
        return answer

    def _load(self, content: bytes, threads: int, providers: Providers) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Spinning threads would take the cores from the decoding of the next picture.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(content, options, providers=providers)
        except Exception as cause:  # the runtime's exceptions have no common base of their own
            raise self._refusal(f"cannot be loaded by ONNX Runtime: {str(cause).splitlines()[0]}") from None

    def _classes(self, metadata: dict[str, str]) -> list[str]:
        try:
            names = ast.literal_eval(metadata["names"])
            return [str(names[index]) for index in range(len(names))]
        except (KeyError, ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise self._refusal("has no class names (metadata `names`, a dict of index and name)") from None

    def _image_size(self, metadata: dict[str, str]) -> int:
        try:
            sides = ast.literal_eval(metadata["imgsz"])
            height, width = (sides, sides) if isinstance(sides, int) else sides
        except (KeyError, ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise self._refusal("has no image size (metadata `imgsz`)") from None
        if not (isinstance(height, int) and height == width and 0 < height <= LARGEST_SIDE):
            raise self._refusal(f"has the image size {sides}, not a square of at most {LARGEST_SIDE}")
        return height

    def _check_input(self) -> None:
        inputs = self._session.get_inputs()
        fixed = [3, self.image_size, self.image_size]
        if len(inputs) == 1:
            (one,) = inputs
            if one.name == INPUT_NAME and one.type == "tensor(float)" and self._is_batch_of(one.shape, fixed):
                return
        found = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs) or "none"
        raise self._refusal(f"must have one input {INPUT_NAME} tensor(float) [N, {str(fixed)[1:]}; it has {found}")

    def _check_output(self) -> None:
        outputs = self._session.get_outputs()
        if len(outputs) == 1:
            (one,) = outputs
            if one.type == "tensor(float)" and self._is_batch_of(one.shape, [len(self.classes)]):
                return
        found = ", ".join(f"{each.type} {each.shape}" for each in outputs) or "none"
        raise self._refusal(f"must have one output tensor(float) [N, {len(self.classes)}]; it has {found}")

    def _warm_up(self) -> None:
        """Runs on noise, as much as ever at once: the first runs are slow, and a broken model shows itself here."""
        shape = (max(2, self.batch), 3, self.image_size, self.image_size)
        noise = np.random.default_rng(0).random(shape, dtype=np.float32)
        for batch in (noise[:1], noise):
            try:
                answer = self.probabilities(batch)
            except Exception as cause:  # as in _load
                raise self._refusal(f"cannot be run: {str(cause).splitlines()[0]}") from None
            sums = answer.sum(axis=1)
            if not (np.isfinite(answer).all() and answer.min() >= 0 and np.allclose(sums, 1, atol=SUM_TOLERANCE)):
                raise self._refusal("answers noise with something other than probabilities that add up to 1")

    @staticmethod
    def _is_batch_of(shape: Sequence[int | str | None], rest: Sequence[int]) -> bool:
        """N free, then exactly these; the exporter leaves names for what it could not infer."""
        return bool(shape) and not isinstance(shape[0], int) and list(shape[1:]) == list(rest)

    def _refusal(self, fault: str) -> DataError:
        return DataError(f"{self._name} {fault}. Nothing serves from it; train again.")


def _prepare_cuda() -> None:
    """Loads CUDA's libraries; ConfigError where this image has none."""
    if CUDA not in onnxruntime.get_available_providers():
        raise ConfigError(
            "DEVICE is cuda, but this image holds ONNX Runtime for processors. Set API_DEVICE=cuda in .env and run "
            "`make up`, which builds the other one."
        )
    onnxruntime.preload_dlls()  # those of the packages: there is no other CUDA in the image

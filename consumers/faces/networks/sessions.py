"""A graph, ready to run: on the GPU where onnxruntime has one, else on the processor."""

import os
from pathlib import Path
from typing import Any

# Since 1.29 it tells Microsoft what runs where, from its import on, unless it finds this in the environment.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime
from numpy.typing import NDArray

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_CUDA_OPTIONS = {
    # TensorFloat-32 keeps 10 bits of the mantissa: embeddings would no longer equal dlib's.
    "use_tf32": "0",
    # The default, EXHAUSTIVE, tries all algorithms anew on every new size of photo.
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}


def has_cuda() -> bool:
    """Whether onnxruntime was built for CUDA: it may still find no device."""
    return _CUDA in onnxruntime.get_available_providers()


class Session:
    """Runs a graph of one input and one output.

    Between runs it holds the weights only: what a photo needed goes back to the system, so that photos of ever new
    sizes do not add up.
    """

    provider: str
    """What runs the graph: "cuda" or "cpu"."""

    def __init__(self, graph: Path, threads: int = 1) -> None:
        """Opens an ONNX file. `threads`: of the processor, for one run; pools of one process per core want 1."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # its warnings are about how it simplifies a graph
        # A pattern is kept for each shape of the input, and photos come in thousands of shapes.
        options.enable_mem_pattern = False
        providers: list[Any] = [_CPU]
        if has_cuda():
            onnxruntime.preload_dlls()  # where CUDA came as packages, its libraries lie where no loader looks
            providers.insert(0, (_CUDA, _CUDA_OPTIONS))
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=providers)
        # Asked of the session: where CUDA is installed but no device answers, onnxruntime falls back by itself.
        self.provider = "cuda" if self._session.get_providers()[0] == _CUDA else "cpu"
        self._input = self._session.get_inputs()[0].name
        self._run_options = onnxruntime.RunOptions()
        arenas = "cpu:0;gpu:0" if self.provider == "cuda" else "cpu:0"
        self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arenas)

    def run(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """The graph's output, of the shape that its builder states. `batch` has the shape and dtype of its input."""
        output: NDArray[np.float32] = self._session.run(None, {self._input: batch}, self._run_options)[0]
        return output

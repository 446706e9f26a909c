"""The default network computed by OpenVINO on the CPU (the extra ``fast``).

Each stage is traced once for one window of the network's grid and kept in a folder, so
that later starts only read it; the folder's name holds the weights' digest and all
versions. Anything else (batches, other grids) is left to torch, whose embeddings and
features have the same form: the two may take turns.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from torch import Tensor, nn
from torch.utils import _pytree as trees

from napari_cfrseg import __version__
from napari_cfrseg.io.atomic import temporary_beside
from napari_cfrseg.model.cfrnet import CfrNet, ClickFeatures, ImageEmbedding
from napari_cfrseg.model.network import ClickNetwork, NetworkOutput

#: raise it when the traced stages change
_FORM = 1
#: networks whose traced stages are kept; the oldest is forgotten
_MOST_KEPT = 6


def openvino_version() -> str:
    """Return OpenVINO's version; ImportError without it."""
    import openvino

    return str(openvino.__version__).split("-")[0]


def traced_folder(network: CfrNet) -> Path:
    """Return the folder that keeps a network's traced stages; it need not exist."""
    digest = hashlib.sha256()
    versions = [_FORM, __version__, torch.__version__, openvino_version()]
    digest.update(json.dumps([versions, network.architecture()]).encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    cache = user_cache_path("napari-cfrseg", False) / "openvino"
    return cache / digest.hexdigest()[:32]


def trace(network: CfrNet) -> Path:
    """Trace the stages of a network and keep them; return the folder.

    Takes seconds. The folder appears whole or not at all.
    """
    import openvino

    folder = traced_folder(network)
    if folder.is_dir():
        return folder
    fast = network.for_inference()
    unfinished = temporary_beside(folder)
    unfinished.mkdir(parents=True)
    try:
        for name, call, example, _ in _examples(fast):
            stage = _Stage(call, example)
            traced = _convert(stage)
            shapes = zip(traced.inputs, stage.tensors, strict=True)
            traced.reshape({one: list(tensor.shape) for one, tensor in shapes})
            path = unfinished / f"{name}.xml"
            openvino.save_model(traced, path, compress_to_fp16=False)
        with suppress(FileExistsError):  # another process was faster
            unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    kept = sorted(folder.parent.iterdir(), key=lambda one: one.stat().st_mtime)
    for old in kept[:-_MOST_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _convert(stage: _Stage) -> Any:
    """Trace a stage and convert it."""
    # not by openvino.convert_model, which reports each use over the network
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's tracer
        traced = torch.jit.trace(  # type: ignore[no-untyped-call]  # torch's
            stage, stage.tensors, check_trace=False
        )
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced)  # has to outlive the conversion
    return frontend.convert(frontend.load(decoder))


class OpenVinoNetwork(ClickNetwork):
    """A network whose stages OpenVINO computes, window by window.

    ``fast`` is a network's copy for inference and ``folder`` what ``trace`` returned;
    several threads may compute at once, ``threads`` of them at full speed.
    """

    def __init__(
        self, fast: CfrNet, folder: Path, *, threads: int, half: bool = False
    ) -> None:
        super().__init__()
        import openvino

        self.fast = fast
        self.grid_size, self.late_push = fast.grid_size, fast.late_push
        core = openvino.Core()
        how = {
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,  # each request on a thread of its own
            "ENABLE_CPU_PINNING": False,  # other programs use the processor, too
        }
        self._graphs: dict[str, _Graph] = {}
        for name, _, example, result in _examples(fast):
            compiled = core.compile_model(str(folder / f"{name}.xml"), "CPU", how)
            self._graphs[name] = _Graph(compiled, example, result)

    def architecture(self) -> dict[str, Any]:
        """Return the network's description."""
        return self.fast.architecture()

    def embed_image(self, image: Tensor) -> ImageEmbedding:
        """Embed the window's pixels; see ``ClickNetwork.embed_image``."""
        found: ImageEmbedding | None = self._graphs["embed_image"](image)
        return self.fast.embed_image(image) if found is None else found

    def embed_clicks(self, embedding: ImageEmbedding, points: Tensor) -> ClickFeatures:
        """Fuse the clicks with the pyramid; see ``ClickNetwork.embed_clicks``."""
        maps = self.fast.click_maps(embedding, points)
        found: ClickFeatures | None = self._graphs["join"](embedding, maps)
        return self.fast.join(embedding, maps) if found is None else found

    def refine(
        self, features: ClickFeatures, feedback: Tensor | None, newest_click: Tensor
    ) -> NetworkOutput:
        """Compute the mask once more; see ``ClickNetwork.refine``."""
        if feedback is None:
            found = self._graphs["first"](features, newest_click)
        else:
            found = self._graphs["refine"](features, feedback, newest_click)
        found = found or _refined(self.fast, features, feedback, newest_click)
        return NetworkOutput(*found)

    def judge(self, output: NetworkOutput) -> Tensor | None:
        """Return the expected IoU's logit, by torch."""
        return self.fast.judge(output)


def _refined(network: CfrNet, *arguments: Any) -> tuple[Any, ...]:
    output = network.refine(*arguments)
    return tuple(getattr(output, field.name) for field in fields(output))


def _examples(
    fast: CfrNet,
) -> list[tuple[str, Callable[..., Any], tuple[Any, ...], Any]]:
    """Return each stage's name, function, arguments and result for one window."""

    def first(features: ClickFeatures, newest: Tensor) -> Any:
        return _refined(fast, features, None, newest)

    grid = fast.grid_size
    image = torch.rand(1, 3, grid, grid, generator=torch.Generator().manual_seed(0))
    middle = torch.tensor([[grid / 2, grid / 2, 1.0]])
    points = torch.tensor([[[grid / 2, grid / 2, 0.0], [-1.0, -1.0, -1.0]]])
    with torch.no_grad():
        embedding = fast.embed_image(image)
        maps = fast.click_maps(embedding, points)
        features = fast.join(embedding, maps)
        answer = first(features, middle)
        mask = torch.sigmoid(answer[0])
        return [
            ("embed_image", fast.embed_image, (image,), embedding),
            ("join", fast.join, (embedding, maps), features),
            ("first", first, (features, middle), answer),
            ("refine", partial(_refined, fast), (features, mask, middle), answer),
        ]


class _Stage(nn.Module):
    """A function of nested tensors as one of a flat list of them."""

    def __init__(self, call: Callable[..., Any], example: tuple[Any, ...]) -> None:
        super().__init__()
        self._call = call
        self._leaves, self._form = trees.tree_flatten(example)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(leaf for leaf in self._leaves if isinstance(leaf, Tensor))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        leaves = [next(given) if isinstance(x, Tensor) else x for x in self._leaves]
        result = self._call(*trees.tree_unflatten(leaves, self._form))
        found, _ = trees.tree_flatten(result)
        return tuple(leaf for leaf in found if isinstance(leaf, Tensor))


class _Graph:
    """A compiled stage: None for arguments of another form than it was traced for."""

    def __init__(self, compiled: Any, example: tuple[Any, ...], result: Any) -> None:
        self._compiled = compiled
        self._known = _signature(*trees.tree_flatten(example))
        self._leaves, self._result = trees.tree_flatten(result)
        self._own = threading.local()  # each thread's request

    def __call__(self, *arguments: Any) -> Any:
        leaves, form = trees.tree_flatten(arguments)
        if _signature(leaves, form) != self._known:
            return None
        request = getattr(self._own, "request", None)
        if request is None:
            request = self._own.request = self._compiled.create_infer_request()
        tensors = (x for x in leaves if isinstance(x, Tensor))
        given = [x.to("cpu", torch.float32).contiguous().numpy() for x in tensors]
        answer = request.infer(given, share_inputs=True)
        found = (torch.from_numpy(answer[i]) for i in range(len(answer)))
        filled = [next(found) if isinstance(x, Tensor) else x for x in self._leaves]
        return trees.tree_unflatten(filled, self._result)


def _signature(leaves: Sequence[Any], form: Any) -> Any:
    return form, [x.shape if isinstance(x, Tensor) else x for x in leaves]

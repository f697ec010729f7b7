"""PyTorch modules of a few kilobytes: each function is a `source.model` of a deploy.yaml."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

Report = Callable[[int, int], None]


class TwoInputs(nn.Module):
    """Two inputs and a third that may be left out; a dict of answers, one of them None."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 16), nn.Linear(6, 16)

    def forward(self, left: Any, right: Any, mask: Any = None) -> dict[str, Any]:
        deep = torch.relu(self.left(left) + self.right(right))
        return {"second": deep[:, :2], "first": deep.sum(1, keepdim=True), "attention": mask}


class Tokens(nn.Module):
    """Tokens through an LSTM of two layers both ways, and a GRU; a tuple with a state in it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 24)
        self.lstm = nn.LSTM(24, 32, 2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(64, 32, batch_first=True)
        self.head = nn.Linear(32, 50)

    def forward(self, tokens: Any) -> tuple[Any, Any]:
        deep, state = self.gru(self.lstm(self.embedding(tokens))[0])
        return self.head(deep[:, -1]), state


class Image(nn.Module):
    """Convolutions with batch normalization, no linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 8, 3, groups=8, stride=2), nn.Conv2d(8, 5, 1)

    def forward(self, image: Any) -> Any:
        deep = torch.relu(self.norm(self.first(image)))
        return self.last(nn.functional.relu6(self.second(deep))).mean((2, 3))


class Step(nn.Module):
    """One step of a recurrent net: state in, state out."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(8, 16, num_layers=2)

    def forward(self, frame: Any, state: Any) -> dict[str, Any]:
        answer, state = self.cell(frame[None], state)
        return {"answer": answer[0], "state_out": state}


class Recurrent(nn.Module):
    """Nothing but a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 8, batch_first=True)

    def forward(self, words: Any) -> Any:
        return {"output": self.gru(words)[0]}


class Branching(nn.Module):
    """What it does depends on the values it is given."""

    def forward(self, x: Any) -> Any:
        return x * 2 if x.sum() > 0 else x - 1


class Unnamed(nn.Module):
    """Takes anything."""

    def forward(self, *tensors: Any) -> Any:
        return tensors[0]


def seeded(module: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    made = module()
    for name, buffer in made.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return made


def two_inputs() -> Any:
    return seeded(TwoInputs)


def tokens() -> Any:
    return seeded(Tokens)


def image() -> Any:
    return seeded(Image).train(), torch.zeros(4, 3, 12, 12)


def step() -> Any:
    return seeded(Step), {"frame": torch.zeros(1, 8), "state": torch.zeros(2, 1, 16)}


def branching() -> Any:
    return Branching(), torch.ones(1, 4)


def unnamed() -> Any:
    return Unnamed(), torch.ones(1, 4)


def half() -> Any:
    return seeded(Image).half(), torch.zeros(1, 3, 12, 12)


def with_nan() -> Any:
    made = seeded(Image)
    with torch.no_grad():
        made.last.bias[2] = torch.nan
    return made, torch.zeros(1, 3, 12, 12)


def no_module() -> Any:
    return [1, 2]


def raising() -> Any:
    raise FileNotFoundError("weights.bin")


def wrong_examples() -> Any:
    return seeded(Image), (torch.zeros(1, 3, 12, 12), torch.zeros(1))


class Evil:
    """Leaves a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evil-was-run"),))


def save_recurrent(*, path: Path, report: Report) -> None:
    """A program without a kernel."""
    torch.export.save(torch.export.export(Recurrent().eval(), (), kwargs={"words": torch.zeros(1, 5, 4)}), path)


def save(*, path: Path, form: str, report: Report) -> None:
    """Write the image net in one of the forms that PyTorch saves."""
    made = seeded(Image).eval()
    if form == "program":
        free = {"image": {0: torch.export.Dim("batch", max=64)}}
        torch.export.save(torch.export.export(made, (torch.zeros(2, 3, 12, 12),), dynamic_shapes=free), path)
    elif form == "script":
        torch.jit.save(torch.jit.trace(made, torch.zeros(1, 3, 12, 12)), path)
    else:
        weights = made.state_dict()
        held: dict[str, Any] = {
            "weights": weights,
            "legacy": weights,
            "checkpoint": {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in weights.items()}},
            "module": made,
            "other": seeded(Tokens).state_dict(),
            "evil": {**weights, "more": Evil()},
        }
        torch.save(held[form], path, _use_new_zipfile_serialization=form != "legacy")

"""The layers of a live model, and their figure.

Classes, sizes, shapes and numbers of parameters are read from the module while a clip passes through it.
"""

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from torch import nn

from valence_lib.report.figures.style import GREY, drawing, note

_FRAMES = 100  # of the dummy clip
_Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One call of one layer.

    Attributes:
        name: the layer's path in the model, such as "body.0".
        kind: its class, such as "Linear".
        detail: its hyperparameters in words, one line per part where it has parts.
        input_shape, output_shape: of one clip, with T for its number of frames.
        parameters: their number; 0 at a second call of the same layer.
    """

    name: str
    kind: str
    detail: str
    input_shape: str
    output_shape: str
    parameters: int


def describe_layers(model: nn.Module, width: int) -> list[Layer]:
    """The layers that a clip passes through, in order, found by sending a silent one.

    A layer is a module without modules of its own, or one whose parts have none (a recurrent layer with one
    LSTM per direction, say). A longer clip shows which dimensions follow the number of frames, and two clips
    which one is the batch's. Parameters that belong to no called layer come last, under the class of the
    module that holds them. The model must call the same layers for every clip; it is put in evaluation mode.

    Args:
        model: takes frames [shape=(batch, frames, width)] and `lengths` [shape=(batch,)].
        width: number of columns of a frame, such as mel bands.
    """
    names = {module: name for name, module in model.eval().named_modules()}
    runs = [_trace(model, *size, width) for size in ((1, _FRAMES), (1, 2 * _FRAMES), (2, _FRAMES))]
    steps = list(zip(*runs, strict=True))
    takes = [_symbolic([call.taken for call in step]) for step in steps]
    counted: set[nn.Parameter] = set()
    layers = []
    for step, taken, following in zip(steps, takes, [*takes[1:], []], strict=True):
        module = step[0].module
        gives = _symbolic([call.given for call in step])
        handed_on = next((shape for shape in following if shape in gives), (gives or [""])[0])
        new = set(module.parameters()) - counted
        counted |= new
        parameters = sum(p.numel() for p in new)
        texts = names[module], type(module).__name__, _detail(module), (taken or [""])[0], handed_on
        layers.append(Layer(*texts, parameters))
    for module, name in names.items():
        rest = set(module.parameters(recurse=False)) - counted
        counted |= rest
        if rest:
            parameters = sum(p.numel() for p in rest)
            layers.append(Layer(name, type(module).__name__, "parameters of its own", "", "", parameters))
    return layers


def _layers_of(module: nn.Module) -> Iterator[nn.Module]:
    """The modules inside `module` that are shown as one box each."""
    for child in module.children():
        parts = list(child.children())
        chain = isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        if parts and (chain or any(list(part.children()) for part in parts)):
            yield from _layers_of(child)
        else:
            yield child


class _Call(NamedTuple):
    """One call of a layer: the shapes of the tensors that it takes and gives."""

    module: nn.Module
    taken: list[_Shape]
    given: list[_Shape]


def _trace(model: nn.Module, batch: int, frames: int, width: int) -> list[_Call]:
    """The calls of the model's layers, in order, for silent clips."""
    calls: list[_Call] = []

    def note(module: nn.Module, taken: Any, given: Any) -> None:
        calls.append(_Call(module, _shapes(taken), _shapes(given)))

    handles = [layer.register_forward_hook(note) for layer in dict.fromkeys(_layers_of(model))]
    with torch.no_grad():
        model(torch.zeros(batch, frames, width), torch.full((batch,), frames))
    for handle in handles:
        handle.remove()
    return calls


def _shapes(value: Any) -> list[_Shape]:
    """Shapes of the tensors in what a layer takes or gives; of a packed sequence, that of its data."""
    if hasattr(value, "batch_sizes"):
        return [tuple(value.data.shape)]
    if isinstance(value, tuple | list):
        return [shape for part in value for shape in _shapes(part)]
    return [tuple(value.shape)] if hasattr(value, "shape") else []


def _symbolic(runs: list[list[_Shape]]) -> list[str]:
    """Shapes as text, such as "32 × T/2 × 64", from those of one clip, a longer one, and two at once."""
    texts = []
    for single, longer, double in zip(*runs, strict=True):
        words = []
        for one, long, two in zip(single, longer, double, strict=True):
            if (one, long, two) == (1, 1, 2):
                continue  # the batch
            step = Fraction(long - one, _FRAMES).limit_denominator(_FRAMES // 2)
            times = f"{step.numerator}T" if step.numerator != 1 else "T"
            over = f"/{step.denominator}" if step.denominator != 1 else ""
            offset = one - math.floor(step * _FRAMES)
            rest = f" {'+' if offset > 0 else '−'} {abs(offset)}" if offset else ""
            words.append(f"{times}{over}{rest}" if step else str(one))
        texts.append(" × ".join(words) or "1")
    return texts


def _detail(module: nn.Module) -> str:
    """A layer's hyperparameters in words; those of other kinds of layer as the module itself puts them."""

    def by(size: int | tuple[int, ...]) -> str:
        return " × ".join(map(str, size)) if isinstance(size, tuple) else str(size)

    match module:
        case nn.RNNBase():
            directions = ", both directions" if module.bidirectional else ""
            layers = f", {module.num_layers} layers" if module.num_layers > 1 else ""
            dropout = f"\ndropout {module.dropout:g} between layers" if module.dropout else ""
            return f"{module.input_size} → {module.hidden_size} units{directions}{layers}{dropout}"
        case nn.Conv1d() | nn.Conv2d():
            stride = f", stride {by(module.stride)}" if set(module.stride) != {1} else ""
            channels = f"{module.in_channels} → {module.out_channels} channels"
            return f"{channels}, kernel {by(module.kernel_size)}{stride}"
        case nn.MaxPool1d() | nn.MaxPool2d() | nn.AvgPool1d() | nn.AvgPool2d():
            return f"window {by(module.kernel_size)}, stride {by(module.stride)}"
        case nn.Linear():
            return f"{module.in_features} → {module.out_features}"
        case nn.Dropout() | nn.Dropout1d() | nn.Dropout2d():
            return f"p = {module.p:g}"
        case nn.ReLU():
            return ""
    parts = [f"{name}: {type(part).__name__} {_detail(part)}" for name, part in module.named_children()]
    return "\n".join(parts) or module.extra_repr()


def architecture_alt_text(model: nn.Module, width: int) -> str:
    """The architecture in one sentence, for readers who do not see the figure; as `describe_layers`."""
    layers = describe_layers(model, width)
    named = [f"{layer.kind} ({layer.detail})" for layer in layers if layer.output_shape]
    steps = ", ".join(named).replace(" ()", "").replace("\n", "; ")
    return (
        f"{type(model).__name__} as a chain of layers, from the log-mel spectrogram (T frames by {width} "
        f"columns) through {steps} to one number, {sum(layer.parameters for layer in layers):,} parameters."
    )


_BOX, _MARGIN = 3.35, 0.2  # inches: the width of a box, and the space at its sides
_ARROW, _LINE = 0.28, 0.15  # inches: an arrow, a line of text
_TINTS = {"LSTM": "#CFE3F1", "GRU": "#CFE3F1", "Conv": "#FBE3C0", "Linear": "#CDEBE0"}


def plot_architecture(model: nn.Module, width: int) -> Figure:
    """The model as a chain of its layers, read from the live module by `describe_layers`.

    A box is a layer with its hyperparameters and number of parameters. Arrows carry the shape of the output,
    and both shapes where the model reshapes or pools between two layers. T is the clip's number of frames.

    Args:
        model: takes frames [shape=(batch, frames, width)] and `lengths` [shape=(batch,)].
        width: number of columns of a frame.
    """
    layers = describe_layers(model, width)
    source = Layer("", f"log-mel spectrogram (T × {width})", "", "", f"T × {width}", 0)
    called = [layer for layer in layers if layer.output_shape]
    chain = [source, *called, Layer("", "prediction (1)", "", "1", "", 0)]
    heights = [_LINE * (1 + len(_lines_below(layer))) + 0.1 for layer in chain]
    top = 0.3 + sum(heights) + _ARROW * (len(chain) - 1)
    middle = _MARGIN + _BOX / 2
    with drawing(2 * middle, top + 0.02) as (figure, (ax,)):
        ax.set(xlim=(0, 2 * middle), ylim=(0, top + 0.02), aspect="equal")
        ax.set_axis_off()
        for position, (layer, tall) in enumerate(zip(chain, heights, strict=True)):
            if position:
                arrow = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
                ax.annotate("", (middle, top - _ARROW), (middle, top), arrowprops=arrow)
                shape = chain[position - 1].output_shape
                if layer.input_shape not in ("", shape):
                    shape += f" → {layer.input_shape}"
                note(ax, middle + 0.08, top - _ARROW / 2, shape, ax.transData, fontsize=7.5)
                top -= _ARROW
            top -= tall
            _draw_box(ax, layer, top, tall)
        total = f"{type(model).__name__}: {sum(layer.parameters for layer in layers):,} parameters in all"
        ax.text(middle, 0.02, total, ha="center", weight="bold", fontsize=8.5)
    return figure


def _lines_below(layer: Layer) -> list[str]:
    """What is written under a box's heading; a short detail without parameters is on its right instead."""
    if not layer.parameters and len(layer.detail) < 30:
        return []
    return [line for part in layer.detail.splitlines() for line in textwrap.wrap(part, 52)]


def _draw_box(ax: Axes, layer: Layer, bottom: float, tall: float) -> None:
    tint = next((tint for kind, tint in _TINTS.items() if kind in layer.kind), "#F4F4F4")
    look: dict[str, Any] = {"facecolor": tint, "edgecolor": GREY, "linewidth": 0.8}
    ax.add_patch(FancyBboxPatch((_MARGIN, bottom), _BOX, tall, "round,pad=0,rounding_size=0.06", **look))
    left, y = _MARGIN + 0.1, bottom + tall - 0.05 - _LINE / 2
    below = _lines_below(layer)
    right = f"{layer.parameters:,} parameters" if layer.parameters else "" if below else layer.detail
    ax.text(left, y, layer.kind, va="center", weight="bold", fontsize=8.5)
    ax.text(left + _BOX - 0.2, y, right, ha="right", va="center", fontsize=7.5)
    for place, line in enumerate(below, 1):
        ax.text(left, y - place * _LINE, line, va="center", fontsize=7.5)

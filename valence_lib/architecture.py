"""The layers of a live model, found by sending a clip through it, and the figure that they make.

Nothing about a model is typed in here: classes, sizes, shapes and numbers of parameters are read off
the module while it runs.
"""

import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from valence_lib.errors import SettingsError
from valence_lib.figures import GREY, drawing, note, require

_FRAMES = 100  # of the dummy clip
_Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One call of one layer, as seen while a clip passes through the model.

    Attributes:
        name: the layer's path in the model, such as "body.0".
        kind: its class, such as "Linear".
        detail: its hyperparameters in words, a line a part where it has parts.
        input_shape: what it takes of one clip, where T stands for the clip's frames.
        output_shape: the same of what it hands on.
        parameters: how many it adds; 0 at a second call of the same layer.
    """

    name: str
    kind: str
    detail: str
    input_shape: str
    output_shape: str
    parameters: int


def describe_layers(model: torch.nn.Module, width: int) -> list[Layer]:
    """The layers that a clip passes through, in order, found by sending a silent one.

    A layer is a module without modules of its own, or one whose parts are all such (a recurrent layer
    with one LSTM a direction, say). Hooks note what each takes and gives; a longer clip shows which
    dimensions follow the number of frames, and two clips at once which one is the batch's. The model's
    hooks and training modes are left as they were. Parameters that belong to no called layer come last,
    under the class of the module that holds them.

    Args:
        model: takes frames [shape=(batch, frames, width)] and `lengths` [shape=(batch,)].
        width: number of columns of a frame, such as mel bands.

    Raises:
        SettingsError: the model does not take such input, or calls other layers for other input.
    """
    names = {module: name for name, module in model.named_modules()}
    modes = {module: module.training for module in names}
    model.eval()
    try:
        runs = [_trace(model, *size, width) for size in ((1, _FRAMES), (1, 2 * _FRAMES), (2, _FRAMES))]
    finally:
        for module, mode in modes.items():
            module.training = mode
    chains = [[call.module for call in run] for run in runs]
    require(
        chains[0] == chains[1] == chains[2],
        "the model calls other layers for other numbers of frames or clips",
        "a fixed chain of layers",
    )
    steps = list(zip(*runs, strict=True))
    takes = [_symbolic([call.taken for call in step]) for step in steps]
    counted: set[torch.nn.Parameter] = set()
    layers = []
    for step, taken, following in zip(steps, takes, [*takes[1:], []], strict=True):
        module = step[0].module
        gives = _symbolic([call.given for call in step])
        handed_on = next((shape for shape in following if shape in gives), (gives or [""])[0])
        new = set(module.parameters()) - counted
        counted |= new
        parameters = sum(p.numel() for p in new)
        kind = type(module).__name__
        layers.append(Layer(names[module], kind, _detail(module), (taken or [""])[0], handed_on, parameters))
    for module, name in names.items():
        rest = set(module.parameters(recurse=False)) - counted
        counted |= rest
        if rest:
            parameters = sum(p.numel() for p in rest)
            layers.append(Layer(name, type(module).__name__, "parameters of its own", "", "", parameters))
    return layers


def _layers_of(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The modules inside `module` that are shown as one box each."""
    from torch import nn

    for child in module.children():
        parts = list(child.children())
        chain = isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        if parts and (chain or any(list(part.children()) for part in parts)):
            yield from _layers_of(child)
        else:
            yield child


@dataclass(frozen=True)
class _Call:
    """One call of a layer: the shapes of the tensors that it takes and gives."""

    module: torch.nn.Module
    taken: list[_Shape]
    given: list[_Shape]


def _trace(model: torch.nn.Module, batch: int, frames: int, width: int) -> list[_Call]:
    """The calls of the model's layers, in order, for silent clips."""
    calls: list[_Call] = []

    def note(module: torch.nn.Module, taken: Any, given: Any) -> None:
        calls.append(_Call(module, _shapes(taken), _shapes(given)))

    device = next(model.parameters(), torch.empty(0)).device
    handles = [layer.register_forward_hook(note) for layer in dict.fromkeys(_layers_of(model))]
    try:
        with torch.no_grad():
            silence = torch.zeros(batch, frames, width, device=device)
            model(silence, torch.full((batch,), frames, device=device))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise SettingsError(
            f"{type(model).__name__} cannot be drawn with width={width}: {frames} silent frames fail with "
            f"{error!r}. Give the width that the model was built for."
        ) from error
    finally:
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


def _detail(module: torch.nn.Module) -> str:
    """A layer's hyperparameters in words; those of other kinds of layer as the module itself puts them."""
    from torch import nn

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
            return f"{module.in_channels} → {module.out_channels} channels, kernel {by(module.kernel_size)}{stride}"
        case nn.MaxPool1d() | nn.MaxPool2d() | nn.AvgPool1d() | nn.AvgPool2d():
            return f"window {by(module.kernel_size)}, stride {by(module.stride)}"
        case nn.Linear():
            return f"{module.in_features} → {module.out_features}"
        case nn.Dropout() | nn.Dropout1d() | nn.Dropout2d():
            return f"p = {module.p:g}"
        case nn.ReLU():
            return ""
    parts = [
        f"{name}: {type(part).__name__} {_detail(part)}".strip() for name, part in module.named_children()
    ]
    return "\n".join(parts) or module.extra_repr()


def architecture_alt_text(model: torch.nn.Module, width: int) -> str:
    """The architecture in one sentence, for readers who do not see the figure.

    Args and what is raised: as `describe_layers`.
    """
    layers = describe_layers(model, width)
    named = [f"{layer.kind} ({layer.detail})" for layer in layers if layer.output_shape]
    steps = ", ".join(named).replace(" ()", "").replace("\n", "; ")
    total = sum(layer.parameters for layer in layers)
    return (
        f"{type(model).__name__} as a chain of layers, from the log-mel spectrogram (T frames by {width} columns) "
        f"through {steps} to one valence, {total:,} parameters in all."
    )


_COLUMN, _BOX = 3.75, 3.35  # inches: a column of boxes with its margins, a box
_ARROW, _LINE = 0.34, 0.165  # inches: an arrow, a line of text
_MOST_BOXES = 8  # in one column; a longer chain is drawn in two
_TINTS = {"LSTM": "#CFE3F1", "GRU": "#CFE3F1", "Conv": "#FBE3C0", "Linear": "#CDEBE0"}


def plot_architecture(model: torch.nn.Module, width: int) -> Figure:
    """The model as a chain of its layers, read from the live module by `describe_layers`.

    A box is a layer with its hyperparameters and, at its right, its number of parameters. Arrows carry
    the shape that is handed on, and both shapes where the model reshapes or pools between two layers. T
    is the number of frames of a clip.

    Args:
        model: takes frames [shape=(batch, frames, width)] and `lengths` [shape=(batch,)].
        width: number of columns of a frame.

    Raises:
        SettingsError: as `describe_layers`.
    """
    layers = describe_layers(model, width)
    source = Layer("", f"log-mel spectrogram (T × {width})", "", "", f"T × {width}", 0)
    called = [layer for layer in layers if layer.output_shape]
    chain = [source, *called, Layer("", "valence (1)", "", "1", "", 0)]
    columns = 1 if len(chain) <= _MOST_BOXES else 2
    share = math.ceil(len(chain) / columns)
    heights = [_LINE * (1 + len(_lines_below(layer))) + 0.13 for layer in chain]
    height = 0.3 + max(sum(heights[i : i + share]) + _ARROW * (share - 1) for i in (0, share))
    with drawing(_COLUMN * columns, height) as (figure, (ax,)):
        ax.set(xlim=(0, _COLUMN * columns), ylim=(0, height), aspect="equal")
        ax.set_axis_off()
        left, top = 0.0, 0.0
        for position, (layer, tall) in enumerate(zip(chain, heights, strict=True)):
            before = chain[position - 1]
            shape = before.output_shape
            if layer.input_shape not in ("", shape):
                shape += f" → {layer.input_shape}"
            if position % share == 0:
                corner = left + _BOX, top + heights[position - 1] / 2
                left, top = _COLUMN * (position // share) + (_COLUMN - _BOX) / 2, height - 0.02
                if position:
                    _turn(ax, corner, (left, top - tall / 2), shape)
            else:
                _arrow(ax, [(left + _BOX / 2, top), (left + _BOX / 2, top - _ARROW)])
                note(ax, left + _BOX / 2 + 0.08, top - _ARROW / 2, shape, ax.transData, fontsize=7.5)
                top -= _ARROW
            top -= tall
            _draw_box(ax, layer, left, top, tall)
        total = f"{type(model).__name__}: {sum(layer.parameters for layer in layers):,} parameters in all"
        if outside := sum(layer.parameters for layer in layers if not layer.output_shape):
            total += f", {outside:,} of them in no layer"
        ax.text(_COLUMN * columns / 2, 0.02, total, ha="center", weight="bold", fontsize=8.5)
    return figure


def _lines_below(layer: Layer) -> list[str]:
    """What is written under a box's heading; a short detail without parameters stands beside it instead."""
    if not layer.parameters and len(layer.detail) < 30:
        return []
    return [line for part in layer.detail.splitlines() for line in textwrap.wrap(part, 52)]


def _draw_box(ax: Axes, layer: Layer, left: float, bottom: float, tall: float) -> None:
    tint = next((tint for kind, tint in _TINTS.items() if kind in layer.kind), "#F4F4F4")
    look: dict[str, Any] = {"facecolor": tint, "edgecolor": GREY, "linewidth": 0.8}
    ax.add_patch(FancyBboxPatch((left, bottom), _BOX, tall, "round,pad=0,rounding_size=0.06", **look))
    y = bottom + tall - 0.065 - _LINE / 2
    if not layer.name and not layer.parameters:  # the ends of the chain
        ax.text(left + _BOX / 2, y, layer.kind, ha="center", va="center", weight="bold", fontsize=8.5)
        return
    below = _lines_below(layer)
    beside = f"{layer.parameters:,} parameters" if layer.parameters else "" if below else layer.detail
    ax.text(left + 0.1, y, layer.kind, va="center", weight="bold", fontsize=8.5)
    ax.text(left + _BOX - 0.1, y, beside, ha="right", va="center", fontsize=7.5)
    for place, line in enumerate(below, 1):
        ax.text(left + 0.1, y - place * _LINE, line, va="center", fontsize=7.5)


def _arrow(ax: Axes, points: list[tuple[float, float]]) -> None:
    ax.plot(*zip(*points, strict=True), color=GREY, linewidth=1, solid_joinstyle="miter")
    head = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
    ax.annotate("", points[-1], points[-2], arrowprops=head)


def _turn(ax: Axes, start: tuple[float, float], end: tuple[float, float], shape: str) -> None:
    """The arrow from the foot of a column to the head of the next."""
    middle = (start[0] + end[0]) / 2
    _arrow(ax, [start, (middle, start[1]), (middle, end[1]), end])
    look: dict[str, Any] = {"ha": "center", "rotation": 90, "fontsize": 7.5, "backgroundcolor": "white"}
    note(ax, middle, (start[1] + end[1]) / 2, shape, ax.transData, **look)

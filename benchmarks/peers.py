"""Other ways to train: as the course notebooks, over packed sequences, padded to the longest of the batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from valence_lib.features.log_mel import LogMel


class PlainLSTM(nn.Module):
    """LSTM1 and LSTM2 of the course by torch's own layers, over padded or packed clips."""

    def __init__(self, model: str, packed: bool):
        super().__init__()
        layers, both = (2, True) if model == "LSTM2" else (1, False)
        dropout = 0.2 if both else 0.0
        self.packed = packed
        self.lstm = nn.LSTM(128, 128, layers, batch_first=True, bidirectional=both, dropout=dropout)
        self.linear = nn.Linear(256 if both else 128, 1)

    def forward(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """Valence by clip; over padded clips, from the last frame, as in the course notebooks."""
        if self.packed:
            packed = pack_padded_sequence(log_mel, lengths, batch_first=True, enforce_sorted=False)
            hidden = self.lstm(packed)[1][0]
            final = torch.cat(list(hidden[-2:] if self.lstm.bidirectional else hidden[-1:]), dim=1)
        else:
            final = self.lstm(log_mel)[0][:, -1]
        return self.linear(final)[:, 0]


class PlainCNN(nn.Module):
    """The CNN of the course by torch's own layers: padding counts like any other frame."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in ((1, 8), (8, 16)):
            layers += [nn.Conv2d(*channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=1, padding=1)]
        self.layers, self.linear = nn.Sequential(*layers), nn.Linear(16 * 128, 1)

    def forward(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """Valence by clip."""
        return self.linear(self.layers(log_mel[:, None]).mean(dim=2).flatten(1))[:, 0]


@dataclass(frozen=True)
class Peer:
    """Training on random batches of clips that are padded to the same length.

    Args:
        clips: spectrograms, raw or standardised.
        frames: to which all clips are padded, or 0 for the longest of the batch.
        packed: whether recurrent layers take packed sequences.
        flush: whether denormal numbers are rounded to 0.
    """

    clips: Sequence[LogMel]
    frames: int = 0
    packed: bool = False
    flush: bool = True

    def epoch(
        self, model: str, rows: NDArray[np.int64], truth: Tensor, batch_size: int
    ) -> Callable[[], None]:
        """A function that trains a new model for one epoch on some clips."""
        torch.manual_seed(0)
        plain = PlainCNN() if model == "CNN" else PlainLSTM(model, self.packed)
        optimiser = torch.optim.Adam(plain.parameters(), lr=1e-3)
        mixed = np.random.default_rng(0).permutation(rows)
        batches = [mixed[start : start + batch_size] for start in range(0, len(mixed), batch_size)]

        def run() -> None:
            torch.set_flush_denormal(self.flush)
            plain.train()
            for batch in batches:
                optimiser.zero_grad()
                predictions = plain(*self._batch(batch))
                nn.functional.mse_loss(predictions, truth[batch]).backward()
                optimiser.step()

        return run

    def _batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        clips = [torch.from_numpy(self.clips[row]) for row in rows.tolist()]
        padded = pad_sequence(clips, batch_first=True)
        missing = max(0, self.frames - padded.shape[1])
        return nn.functional.pad(padded, (0, 0, 0, missing)), torch.tensor([len(clip) for clip in clips])

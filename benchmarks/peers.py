"""Training as people do it now: the course's notebooks, packed sequences, padding to the batch's longest clip."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from valence_lib.features import LogMel

Batch = tuple[Tensor, Tensor]  # padded spectrograms [shape=(batch, frames, n_mels)], lengths [shape=(batch,)]


class PlainLSTM(nn.Module):
    """The course's LSTM1 and LSTM2 as torch has them, over padded clips or packed ones."""

    def __init__(self, model: str, packed: bool):
        super().__init__()
        layers, both = (2, True) if model == "LSTM2" else (1, False)
        self.packed = packed
        self.lstm = nn.LSTM(
            128, 128, layers, batch_first=True, bidirectional=both, dropout=0.2 if both else 0.0
        )
        self.linear = nn.Linear(256 if both else 128, 1)

    def forward(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """Valence by clip. Over padded clips, the last frame is read, as the notebooks do."""
        if self.packed:
            packed = pack_padded_sequence(log_mel, lengths, batch_first=True, enforce_sorted=False)
            hidden = self.lstm(packed)[1][0]
            final = torch.cat(list(hidden[-2:] if self.lstm.bidirectional else hidden[-1:]), dim=1)
        else:
            final = self.lstm(log_mel)[0][:, -1]
        return self.linear(final)[:, 0]


class PlainCNN(nn.Module):
    """The course's CNN as torch has it: padding counts like any other frame."""

    def __init__(self, model: str, packed: bool):
        super().__init__()
        layers: list[nn.Module] = []
        for channels in ((1, 8), (8, 16)):
            layers += [nn.Conv2d(*channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=1, padding=1)]
        self.layers, self.linear = nn.Sequential(*layers), nn.Linear(16 * 128, 1)

    def forward(self, log_mel: Tensor, lengths: Tensor) -> Tensor:
        """Valence by clip."""
        return self.linear(self.layers(log_mel[:, None]).mean(dim=2).flatten(1))[:, 0]


@dataclass(frozen=True)
class Way:
    """One way to train: random batches of clips, padded to the same length.

    Args:
        clips: spectrograms as the way takes them.
        frames: to which all clips are padded; 0 pads to the batch's longest.
        packed: whether recurrent layers take packed sequences.
        flush: whether denormal numbers are taken for 0.
    """

    clips: Sequence[LogMel]
    frames: int
    packed: bool
    flush: bool

    def epoch(
        self, model: str, rows: NDArray[np.int64], truth: Tensor, batch_size: int
    ) -> Callable[[], None]:
        """What trains a fresh model for one pass over some clips."""
        torch.manual_seed(0)
        plain = (PlainCNN if model == "CNN" else PlainLSTM)(model, self.packed)
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

    def _batch(self, rows: NDArray[np.int64]) -> Batch:
        clips = [torch.from_numpy(self.clips[row]) for row in rows.tolist()]
        padded = pad_sequence(clips, batch_first=True)
        if self.frames:
            padded = nn.functional.pad(padded, (0, 0, 0, self.frames - padded.shape[1]))
        return padded, torch.tensor([len(clip) for clip in clips])

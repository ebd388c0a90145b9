"""The front end against the ways of librosa, torch and Kaldi, all on one thread."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import librosa
import numpy as np
import scipy.fft
import torch

from benchmarks.timing import each, rates, ratio, side_by_side, spread
from benchmarks.work import SETTINGS
from valence_lib.features import _FRAMES_PER_BLOCK, log_mel, mel_filters
from valence_lib.waveforms import Waveform


def measure(waveforms: Sequence[Waveform], rounds: int) -> dict[str, Any]:
    """Clips a second of each way, ours over librosa's, and the share of the Fourier transform alone."""
    n_frames = sum(SETTINGS.frames(len(waveform)) for waveform in waveforms)
    blocks = [np.ones((_FRAMES_PER_BLOCK, SETTINGS.n_fft))] * (n_frames // _FRAMES_PER_BLOCK)
    ways = {
        "ours": lambda: each(len, (log_mel(waveform, SETTINGS) for waveform in waveforms)),
        "librosa": lambda: each(librosa_log_mel, waveforms),
        "torch.stft": lambda: each(_torch_log_mel, waveforms),
        "Fourier transform alone": lambda: each(scipy.fft.rfft, blocks),
    }
    try:
        import kaldi_native_fbank
    except ImportError:
        pass
    else:
        options = _kaldi_options(kaldi_native_fbank)
        ways["kaldi-native-fbank"] = partial(
            each, partial(_kaldi_log_mel, kaldi_native_fbank, options), waveforms
        )
    seconds = side_by_side(ways, rounds)
    expected = (librosa_log_mel(waveform).T for waveform in waveforms)
    pairs = zip((log_mel(waveform, SETTINGS) for waveform in waveforms), expected, strict=True)
    alone = seconds["Fourier transform alone"]
    return {
        "clips": len(waveforms),
        "frames_per_clip": round(n_frames / len(waveforms), 1),
        "clips_per_s": rates(seconds, len(waveforms)),
        "microseconds_per_frame": spread([one / n_frames * 1e6 for one in seconds["ours"]]),
        "ratio_vs_librosa": ratio(seconds, "ours", "librosa")["median"],
        "ratios": {name: ratio(seconds, "ours", name) for name in ways if name != "ours"},
        "share_of_fourier_transform": spread([a / b for a, b in zip(alone, seconds["ours"], strict=True)]),
        "largest_difference_to_librosa_db": float(f"{max(np.abs(a - b).max() for a, b in pairs):.2g}"),
    }


def librosa_log_mel(waveform: Waveform) -> np.ndarray:
    """As the course's notebooks have it [shape=(n_mels, frames)]."""
    power = librosa.feature.melspectrogram(
        y=waveform,
        sr=SETTINGS.sample_rate,
        n_fft=SETTINGS.n_fft,
        hop_length=SETTINGS.hop_length,
        n_mels=SETTINGS.n_mels,
    )
    return librosa.power_to_db(power)


_WINDOW = torch.hann_window(SETTINGS.n_fft)
_FILTERS = torch.from_numpy(
    mel_filters(SETTINGS.sample_rate, SETTINGS.n_fft, SETTINGS.n_mels).astype(np.float32)
)


def _torch_log_mel(waveform: Waveform) -> torch.Tensor:
    spectrum = torch.stft(
        torch.from_numpy(waveform),
        SETTINGS.n_fft,
        SETTINGS.hop_length,
        window=_WINDOW,
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    decibels = 10 * (_FILTERS @ spectrum.abs().square()).clamp(min=1e-10).log10()
    return decibels.clamp(min=decibels.max() - SETTINGS.top_db)


def _kaldi_options(kaldi: Any) -> Any:
    """The nearest that Kaldi has: its own mel scale, natural logarithms."""
    options = kaldi.FbankOptions()
    frame = options.frame_opts
    frame.samp_freq, frame.dither, frame.window_type = SETTINGS.sample_rate, 0, "hann"
    frame.frame_length_ms = 1000 * SETTINGS.n_fft / SETTINGS.sample_rate
    frame.frame_shift_ms = 1000 * SETTINGS.hop_length / SETTINGS.sample_rate
    frame.remove_dc_offset, frame.preemph_coeff, frame.snip_edges = False, 0.0, False
    options.mel_opts.num_bins, options.mel_opts.low_freq = SETTINGS.n_mels, 0
    return options


def _kaldi_log_mel(kaldi: Any, options: Any, waveform: Waveform) -> list[np.ndarray]:
    fbank = kaldi.OnlineFbank(options)
    fbank.accept_waveform(SETTINGS.sample_rate, waveform)
    fbank.input_finished()
    return [fbank.get_frame(number) for number in range(fbank.num_frames_ready)]

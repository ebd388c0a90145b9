"""Log-mel spectrograms by this project, librosa, torch and Kaldi, on one thread."""

from collections.abc import Sequence
from typing import Any

import kaldi_native_fbank
import librosa
import numpy as np
import scipy.fft
import torch

from benchmarks.timing import for_each, rates, speed_up, spread, take_turns
from benchmarks.work import SETTINGS, our_log_mel
from valence_lib.corpora.waveforms import Waveform
from valence_lib.features.log_mel import _FRAMES_PER_BLOCK, mel_filters

_STFT: dict[str, Any] = {"n_fft": SETTINGS.n_fft, "hop_length": SETTINGS.hop_length}
_WINDOW = torch.hann_window(SETTINGS.n_fft)
_FILTERS = torch.from_numpy(
    mel_filters(SETTINGS.sample_rate, SETTINGS.n_fft, SETTINGS.n_mels).astype(np.float32)
)


def measure(waveforms: Sequence[Waveform], rounds: int) -> dict[str, Any]:
    """Clips per second of each library, the speed-up, and the share of the Fourier transform alone."""
    n_frames = sum(SETTINGS.frames(len(waveform)) for waveform in waveforms)
    blocks = [np.ones((_FRAMES_PER_BLOCK, SETTINGS.n_fft))] * (n_frames // _FRAMES_PER_BLOCK)
    functions = {
        "ours": lambda: for_each(our_log_mel, waveforms),
        "librosa": lambda: for_each(librosa_log_mel, waveforms),
        "torch.stft": lambda: for_each(_torch_log_mel, waveforms),
        "Fourier transform alone": lambda: for_each(scipy.fft.rfft, blocks),
        "kaldi-native-fbank": lambda: for_each(_kaldi_log_mel, waveforms),
    }
    seconds = take_turns(functions, rounds)
    ratios = {name: speed_up(seconds, "ours", name) for name in functions if name != "ours"}
    return {
        "clips": len(waveforms),
        "frames_per_clip": round(n_frames / len(waveforms), 1),
        "clips_per_s": rates(seconds, len(waveforms)),
        "microseconds_per_frame": spread([one / n_frames * 1e6 for one in seconds["ours"]]),
        "ratio_vs_librosa": ratios["librosa"]["median"],
        "ratios": ratios,
        "share_of_fourier_transform": ratios["Fourier transform alone"],
    }


def librosa_log_mel(waveform: Waveform) -> np.ndarray:
    """Log-mel spectrogram of the course notebooks [shape=(n_mels, frames)]."""
    mel: dict[str, Any] = {"sr": SETTINGS.sample_rate, "n_mels": SETTINGS.n_mels}
    power = librosa.feature.melspectrogram(y=waveform, **mel, **_STFT)
    return librosa.power_to_db(power)


def _torch_log_mel(waveform: Waveform) -> torch.Tensor:
    signal = torch.from_numpy(waveform)
    spectrum = torch.stft(signal, **_STFT, window=_WINDOW, pad_mode="constant", return_complex=True)
    decibels = 10 * (_FILTERS @ spectrum.abs().square()).clamp(min=1e-10).log10()
    return decibels.clamp(min=decibels.max() - SETTINGS.top_db)


def _kaldi_options() -> kaldi_native_fbank.FbankOptions:
    """Kaldi's nearest settings: it has its own mel scale and natural logarithms."""
    options = kaldi_native_fbank.FbankOptions()
    frame = options.frame_opts
    frame.samp_freq, frame.dither, frame.window_type = SETTINGS.sample_rate, 0, "hann"
    frame.frame_length_ms = 1000 * SETTINGS.n_fft / SETTINGS.sample_rate
    frame.frame_shift_ms = 1000 * SETTINGS.hop_length / SETTINGS.sample_rate
    frame.remove_dc_offset, frame.preemph_coeff, frame.snip_edges = False, 0.0, False
    options.mel_opts.num_bins, options.mel_opts.low_freq = SETTINGS.n_mels, 0
    return options


_KALDI_OPTIONS = _kaldi_options()


def _kaldi_log_mel(waveform: Waveform) -> list[np.ndarray]:
    fbank = kaldi_native_fbank.OnlineFbank(_KALDI_OPTIONS)
    fbank.accept_waveform(SETTINGS.sample_rate, waveform)
    fbank.input_finished()
    return [fbank.get_frame(number) for number in range(fbank.num_frames_ready)]

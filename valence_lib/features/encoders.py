"""Waveform -> statistics of the hidden states of a pretrained speech encoder in the Hugging Face format.

Supported are wav2vec 2.0 (Baevski et al., 2020), HuBERT (Hsu et al., 2021), WavLM (Chen et al., 2022),
data2vec-audio (Baevski et al., 2022) and the encoder of Whisper (Radford et al., 2023). An encoder is a
folder with three files: nothing else in it is read, and no code from it is executed. Settings hold the
SHA-256 of these files, not the folder's path.
"""

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from valence_lib.corpora.waveforms import Waveform, resample
from valence_lib.errors import RunError, SettingsError
from valence_lib.features.speaker_encoder import mean_and_deviation, speech_frames
from valence_lib.files import atomic_write, digest_of_files
from valence_lib.provenance import PACKAGE
from valence_lib.settings import FeatureSettings

MODEL_TYPES = {  # of config.json, with the class of transformers
    "wav2vec2": "Wav2Vec2Model",
    "hubert": "HubertModel",
    "wavlm": "WavLMModel",
    "data2vec-audio": "Data2VecAudioModel",
    "whisper": "WhisperModel",
}
WINDOW_SECONDS = 20  # the longest input of one forward pass

_RATE = 16000  # Hz
_CONFIG, _PREPROCESSOR, _WEIGHTS = _FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
_UNUSED = ("decoder.", "masked_spec_embed")  # weights that features do not need


@dataclass(frozen=True)
class EncoderInfo:
    """A pretrained encoder.

    Args:
        name: its name on the Hugging Face hub, or that of its folder.
        digest: SHA-256 of its files' names and contents, as 64 hexadecimal digits.
        model_type: one of `MODEL_TYPES`.
        n_layers: number of hidden states: layer 0 is the input of the first block, the others are outputs.
    """

    name: str
    digest: str
    model_type: str
    n_layers: int


def use_encoder(where: str) -> EncoderInfo:
    """Check an encoder, and record its folder under its digest, for `FeatureSettings.encoder`.

    Args:
        where: a folder, or a name on the Hugging Face hub such as "microsoft/wavlm-base", which is downloaded
            into the hub's cache.

    Raises:
        SettingsError: transformers is not installed, the download fails, or the folder does not hold an
            encoder of a supported type with weights in the safetensors format.
    """
    if find_spec("transformers") is None:
        raise SettingsError(
            f"the encoder {where!r} was given, but transformers is not installed; install it with "
            'pip install "valence-lib[encoders]".'
        )
    folder = Path(where).expanduser()
    is_folder = folder.is_dir()
    folder = folder.resolve() if is_folder else _downloaded(where)
    info = _describe(folder, folder.name if is_folder else where)
    with atomic_write(_links() / info.digest) as link:
        link.symlink_to(folder, target_is_directory=True)
    return info


def check_layer(layer: str, info: EncoderInfo) -> None:
    """Refuse a layer that an encoder does not have.

    Args:
        layer: a number as text, or "auto" for all layers.

    Raises:
        SettingsError: it is neither.
    """
    if layer != "auto" and not (layer.isdecimal() and int(layer) < info.n_layers):
        raise SettingsError(
            f"encoder_layer={layer!r} was given, but the encoder {info.name!r} has layers 0 (input of the "
            f"first block) to {info.n_layers - 1}; expected one of these, or 'auto' for all."
        )


def encoder(waveform: Waveform, settings: FeatureSettings) -> NDArray[np.float32]:
    """Mean and standard deviation of hidden states over the clip's speech frames, one row a layer.

    Each clip is computed by itself; one longer than `WINDOW_SECONDS` in successive windows of equal length.
    The model runs on the GPU where CUDA is available.

    Args:
        waveform [shape=(n_samples,)]: at `settings.sample_rate` Hz.
        settings: `encoder` is a digest from `use_encoder`; `encoder_layer` a number as text, or "auto".

    Returns:
        Means, then standard deviations [shape=(n_layers, 2 * hidden)], or (1, 2 * hidden) for one layer.

    Raises:
        SettingsError: no encoder is given, it does not have this layer, or a file has been removed.
        RunError: its folder is not found, has changed, or cannot be loaded.
    """
    network = _network(settings.encoder, settings.encoder_layer)
    waveform = resample(waveform, settings.sample_rate, _RATE)
    waveform = np.pad(waveform, (0, max(0, network.reach - len(waveform))))
    windows = np.array_split(waveform, math.ceil(len(waveform) / network.window))
    powers = [network.frame_powers(window) for window in windows]
    ends = np.cumsum([len(power) for power in powers])
    speech = np.split(speech_frames(np.concatenate(powers)), ends[:-1])
    return mean_and_deviation(zip(map(network.hidden_states, windows), speech, strict=True))


class _Network:
    """A loaded encoder."""

    def __init__(self, folder: Path, info: EncoderInfo, layer: str):
        import transformers
        from safetensors.torch import load_file

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        model_class = getattr(transformers, MODEL_TYPES[info.model_type])
        # The path is not passed on: with it, transformers may read other files of the folder.
        model, loading = model_class.from_pretrained(
            None,
            config=model_class.config_class.from_json_file(folder / _CONFIG),
            state_dict=load_file(folder / _WEIGHTS),
            attn_implementation="eager",
            dtype=torch.float32,
            output_loading_info=True,
        )
        missing = sorted(name for name in loading["missing_keys"] if not name.startswith(_UNUSED))
        if missing:
            raise RunError(f"{_WEIGHTS} lacks {len(missing)} weights, such as {missing[0]}")
        self.window = WINDOW_SECONDS * _RATE  # samples of the longest input
        self.stride = 1  # samples between frames
        self.reach = 1  # samples of the shortest input, which gives one frame
        self._padding = {}
        if info.model_type == "whisper":
            extractor_class: Any = transformers.WhisperFeatureExtractor
            self.stride = 320  # two frames of its log-mel spectrogram
            longest = model.config.max_source_positions * self.stride
            self.window = min(self.window, longest)
            self._padding = {"max_length": longest}  # the model requires it
            model = model.encoder
        else:
            extractor_class = transformers.Wav2Vec2FeatureExtractor
            for kernel, stride in zip(model.config.conv_kernel, model.config.conv_stride, strict=True):
                self.reach += (kernel - 1) * self.stride
                self.stride *= stride
        self._extractor = extractor_class.from_json_file(folder / _PREPROCESSOR)
        self._layers = slice(None)
        if layer != "auto":
            # Later blocks are dropped, except one: the last block's output may be normalised.
            blocks = model if info.model_type == "whisper" else model.encoder
            blocks.layers = blocks.layers[: int(layer) + 1]
            self._layers = slice(int(layer), int(layer) + 1)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.to(self._device).eval()

    def frame_powers(self, window: Waveform) -> NDArray[np.float32]:
        """Mean power of the samples of each frame of the hidden states [shape=(frames,)]."""
        size = self._n_frames(window) * self.stride
        frames = np.pad(window, (0, self.stride))[:size].reshape(-1, self.stride)
        return np.square(frames).mean(axis=1)

    def hidden_states(self, window: Waveform) -> NDArray[np.float32]:
        """Hidden states of the window's own frames [shape=(layers, frames, hidden)]."""
        inputs = self._extractor(window, sampling_rate=_RATE, return_tensors="pt", **self._padding)
        tensor = inputs[self._model.main_input_name].to(self._device)
        # TF32 would be less than single precision.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            states = self._model(tensor, output_hidden_states=True).hidden_states[self._layers]
        return torch.cat(states)[:, : self._n_frames(window)].cpu().numpy()

    def _n_frames(self, window: Waveform) -> int:
        return 1 + (len(window) - self.reach) // self.stride


@lru_cache(maxsize=1)
def _network(digest: str, layer: str) -> _Network:
    if not digest:
        raise SettingsError("the stream 'encoder' was given without an encoder; expected ENCODER=FOLDER.")
    link = _links() / digest
    again = "Give the folder again, as in ENCODER=FOLDER."
    if not link.is_dir():
        place = link.readlink() if link.is_symlink() else link
        raise RunError(f"the encoder with digest {digest} is not found: there is no {place}. {again}")
    folder = link.resolve()
    info = _describe(folder, folder.name)
    if info.digest != digest:
        raise RunError(
            f"the files in {folder} have changed: their digest is {info.digest}; expected {digest}. {again}"
        )
    check_layer(layer, info)
    try:
        return _Network(folder, info, layer)
    except Exception as error:  # transformers raises many types for a model that does not fit its class
        raise RunError(
            f"the encoder in {folder} cannot be loaded as {MODEL_TYPES[info.model_type]}: {error}. Download "
            "it again, and give it as in ENCODER=FOLDER."
        ) from error


def _describe(folder: Path, name: str) -> EncoderInfo:
    """Check the files of an encoder."""
    from safetensors import SafetensorError, safe_open

    config, preprocessor = _read_json(folder / _CONFIG), _read_json(folder / _PREPROCESSOR)
    model_type = config.get("model_type")
    n_blocks = config.get("encoder_layers" if model_type == "whisper" else "num_hidden_layers")
    if model_type not in list(MODEL_TYPES) or not isinstance(n_blocks, int):
        raise SettingsError(
            f"{folder / _CONFIG} is of model_type {model_type!r} with {n_blocks!r} layers; expected a number "
            f"of layers, and one of {', '.join(MODEL_TYPES)}."
        )
    rate = preprocessor.get("sampling_rate", _RATE)
    if rate != _RATE:
        raise SettingsError(
            f"{folder / _PREPROCESSOR} is for {rate!r} Hz; expected an encoder for {_RATE} Hz."
        )
    path, source = folder / _WEIGHTS, name if "/" in name else folder
    if not path.is_file():
        raise SettingsError(
            f"the encoder {name!r} has no {_WEIGHTS}; pickled weights (pytorch_model.bin) can execute code, "
            "and are not read. If you trust the source, convert them with "
            'python -c "from transformers import AutoFeatureExtractor as F, AutoModel as M; '
            f"M.from_pretrained('{source}').save_pretrained('FOLDER'); "
            f"F.from_pretrained('{source}').save_pretrained('FOLDER')\" and give ENCODER=FOLDER."
        )
    try:
        with safe_open(path, framework="np"):
            pass
    except (SafetensorError, OSError) as error:
        raise SettingsError(
            f"{path} is not a whole safetensors file ({error}); it may be cut off, or a Git LFS pointer. "
            "Download the folder again with `hf download NAME --local-dir FOLDER`."
        ) from error
    digest = digest_of_files([folder / file for file in _FILES], folder)
    return EncoderInfo(name, digest, model_type, n_blocks + 1)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}")
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            f"{path} cannot be read as a JSON object: {error}; expected a folder in the Hugging Face format, "
            f"with {', '.join(_FILES)}, as `hf download NAME --local-dir FOLDER` makes it."
        ) from error
    return content


def _downloaded(name: str) -> Path:
    """The folder of an encoder from the Hugging Face hub, in the hub's cache."""
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_FILES)))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"the encoder {name!r} is no folder, and cannot be downloaded from the Hugging Face hub: {error} "
            "Expected a folder, or a name on the hub such as 'microsoft/wavlm-base'. On a machine with "
            f"access, run `hf download {name} --local-dir FOLDER`, and give the folder as in ENCODER=FOLDER."
        ) from error


def _links() -> Path:
    """The folder of links to encoders, by digest: in the clone of the project, else in the user cache."""
    root = PACKAGE.resolve().parent
    if (root / "workflow" / "Snakefile").is_file():
        return root / "reports" / ".encoders"
    return Path.home() / ".cache" / "valence_lib" / "encoders"

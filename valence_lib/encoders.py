"""Waveform -> statistics of the hidden states of a pretrained speech encoder in the Hugging Face format.

Supported are wav2vec 2.0 (Baevski et al., 2020), HuBERT (Hsu et al., 2021), WavLM (Chen et al., 2022),
data2vec-audio (Baevski et al., 2022) and the encoder of Whisper (Radford et al., 2023). The architectures
come from the package transformers. An encoder is a folder with three files; nothing else in it is read, and
no code from it is executed. Settings hold the SHA-256 of these files, so that features do not depend on where
the folder lies.
"""

import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from valence_lib.errors import RunError, SettingsError
from valence_lib.files import digest_of_files, written_whole
from valence_lib.provenance import PACKAGE
from valence_lib.settings import FeatureSettings
from valence_lib.speaker_encoder import mean_and_deviation, speech_frames
from valence_lib.waveforms import Waveform, resample

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
_UNUSED = ("decoder.", "masked_spec_embed")  # weights that an encoder does without


@dataclass(frozen=True)
class EncoderInfo:
    """A pretrained encoder.

    Args:
        name: its name on the Hugging Face hub, or that of its folder.
        digest: SHA-256 of its files' names and contents, as 64 hexadecimal digits.
        model_type: one of `MODEL_TYPES`.
        n_layers: number of hidden states. Layer 0 is the input of the first block, layer n_layers - 1 the
            output of the last.
    """

    name: str
    digest: str
    model_type: str
    n_layers: int


def use_encoder(where: str) -> EncoderInfo:
    """Check an encoder, and record its folder under its digest, by which `encoder` finds it.

    Args:
        where: a folder, or a name on the Hugging Face hub such as "microsoft/wavlm-base", which is downloaded
            into the hub's usual cache.

    Returns:
        Its description, with the digest for `FeatureSettings.encoder`.

    Raises:
        SettingsError: transformers is not installed, there is no such folder or name, the download fails, or
            the folder does not hold an encoder of a supported type with weights in the safetensors format.
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
    with written_whole(_links() / info.digest) as link:
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

    A forward pass takes one clip, without padding, so that the result does not depend on other clips. A clip
    longer than `WINDOW_SECONDS` is computed in successive windows of equal length, so that memory is bounded.
    The model runs on the GPU where CUDA is available.

    Args:
        waveform [shape=(n_samples,)]: at `settings.sample_rate` Hz.
        settings: `encoder` is a digest from `use_encoder`; `encoder_layer` a number as text, or "auto".

    Returns:
        Means, then standard deviations [shape=(n_layers, 2 * hidden)], or (1, 2 * hidden) for one layer.

    Raises:
        SettingsError: no encoder is given, or it does not have this layer.
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
    """A loaded encoder.

    Attributes:
        window: samples of the longest input.
        stride: samples between successive frames, 20 ms in all published models.
        reach: samples that the first frame is computed from, the shortest input.
    """

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
            raise RunError(f"{_WEIGHTS} lacks {len(missing)} weights, of which {missing[0]} is the first")
        self.window, self.stride, self.reach = WINDOW_SECONDS * _RATE, 1, 1
        self._padding = {}
        if info.model_type == "whisper":
            extractor_class: Any = transformers.WhisperFeatureExtractor
            self.stride = 320  # two frames of its log-mel spectrogram
            longest = model.config.max_source_positions * self.stride
            self.window = min(self.window, longest)
            self._padding = {"max_length": longest}  # 30 s, which the model requires
            model = model.encoder
        else:
            extractor_class = transformers.Wav2Vec2FeatureExtractor
            for kernel, stride in zip(model.config.conv_kernel, model.config.conv_stride, strict=True):
                self.reach += (kernel - 1) * self.stride
                self.stride *= stride
        self._extractor = extractor_class.from_json_file(folder / _PREPROCESSOR)
        self._layers = slice(None)
        if layer != "auto":
            # Later blocks are left out, but for one: only the last block's output may be normalised.
            blocks = model if info.model_type == "whisper" else model.encoder
            blocks.layers = blocks.layers[: int(layer) + 1]
            self._layers = slice(int(layer), int(layer) + 1)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.to(self._device).eval()

    def frame_powers(self, window: Waveform) -> NDArray[np.float32]:
        """Mean power of the samples of each frame of the hidden states [shape=(frames,)]."""
        n_frames = self._n_frames(window)
        size = n_frames * self.stride
        frames = np.pad(window, (0, max(0, size - len(window))))[:size].reshape(n_frames, self.stride)
        return np.square(frames).mean(axis=1)

    def hidden_states(self, window: Waveform) -> NDArray[np.float32]:
        """Hidden states of the window's own frames [shape=(layers, frames, hidden)]."""
        inputs = self._extractor(window, sampling_rate=_RATE, return_tensors="pt", **self._padding)
        tensor = inputs[self._model.main_input_name].to(self._device)
        # Single precision on a GPU too.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            states = self._model(tensor, output_hidden_states=True).hidden_states[self._layers]
        result: NDArray[np.float32] = torch.cat(states)[:, : self._n_frames(window)].cpu().numpy()
        return result

    def _n_frames(self, window: Waveform) -> int:
        return 1 + (len(window) - self.reach) // self.stride


@lru_cache(maxsize=1)
def _network(digest: str, layer: str) -> _Network:
    if not digest:
        raise SettingsError(
            "features of a pretrained encoder are requested, but no encoder is given; expected "
            "ENCODER=FOLDER."
        )
    link = _links() / digest
    again = "Give the folder again, as in ENCODER=FOLDER."
    if not link.is_dir():
        place = f"{link.readlink()} no longer exists" if link.is_symlink() else f"there is no {link}"
        raise RunError(f"the folder of the encoder with digest {digest} is not found: {place}. {again}")
    folder = link.resolve()
    try:
        info = _describe(folder, folder.name)
    except SettingsError as error:
        raise RunError(f"the encoder with digest {digest} cannot be used: {error} {again}") from error
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
            f"it again, and give it as in ENCODER=FOLDER."
        ) from error


def _describe(folder: Path, name: str) -> EncoderInfo:
    """Check the files of an encoder.

    Raises:
        SettingsError: one is missing, cannot be read, or is of a model that is not supported.
    """
    from safetensors import SafetensorError, safe_open

    config, preprocessor = _read_json(folder / _CONFIG), _read_json(folder / _PREPROCESSOR)
    model_type = config.get("model_type")
    if model_type not in list(MODEL_TYPES):
        raise SettingsError(
            f"{folder / _CONFIG} is of model_type {model_type!r}; expected one of {', '.join(MODEL_TYPES)}."
        )
    n_blocks = config.get("encoder_layers" if model_type == "whisper" else "num_hidden_layers")
    if not isinstance(n_blocks, int) or n_blocks < 1:
        raise SettingsError(f"{folder / _CONFIG} gives {n_blocks!r} layers; expected a number of at least 1.")
    if preprocessor.get("sampling_rate", _RATE) != _RATE:
        raise SettingsError(
            f"{folder / _PREPROCESSOR} gives a sampling_rate of {preprocessor['sampling_rate']!r} Hz; "
            f"expected an encoder for {_RATE} Hz."
        )
    path, source = folder / _WEIGHTS, name if "/" in name else folder
    if not path.is_file():
        raise SettingsError(
            f"the encoder {name!r} has no {_WEIGHTS}. Weights are read from that safetensors file only, "
            "since pickled ones (such as pytorch_model.bin) can execute code. Where the source is trusted, "
            'convert them with python -c "from transformers import AutoFeatureExtractor as F, AutoModel as M; '
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
    """The mapping in a JSON file.

    Raises:
        SettingsError: there is no such file, or it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingsError(
            f"there is no {path}; expected a folder in the Hugging Face format, with {', '.join(_FILES)}, as "
            f"`hf download NAME --local-dir FOLDER` makes it."
        ) from error
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read as JSON ({error}); download the folder again.") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path} holds a {type(content).__name__}; expected a JSON object.")
    return content


def _downloaded(name: str) -> Path:
    """The folder of an encoder from the Hugging Face hub, in the hub's cache.

    Raises:
        SettingsError: it has no such name, or cannot be downloaded.
    """
    import huggingface_hub

    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        raise SettingsError(
            f"the encoder {name!r} is no folder; expected a folder, or a name on the Hugging Face hub such "
            "as 'microsoft/wavlm-base'."
        )
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_FILES)))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"the encoder {name!r} is no folder, and cannot be downloaded from the Hugging Face hub: "
            f"{error} On a machine with access, run `hf download {name} --local-dir FOLDER`, copy the "
            "folder here, and give it as in ENCODER=FOLDER."
        ) from error


def _links() -> Path:
    """The folder of links to encoders, by digest: in the clone of the project, else in the user cache."""
    root = PACKAGE.resolve().parent
    if (root / "workflow" / "Snakefile").is_file():
        return root / "reports" / ".encoders"
    return Path.home() / ".cache" / "valence_lib" / "encoders"

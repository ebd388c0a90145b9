"""Pretrained encoders against transformers' own forward pass on tiny random models; refusals; messages."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from valence_lib.corpora.waveforms import resample
from valence_lib.errors import RunError, SettingsError
from valence_lib.features import encoders
from valence_lib.features.encoders import MODEL_TYPES, EncoderInfo, check_layer, encoder, use_encoder
from valence_lib.features.speaker_encoder import speech_frames
from valence_lib.settings import FeatureSettings

transformers = pytest.importorskip("transformers", reason='needs pip install "valence-lib[encoders]"')
import huggingface_hub  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

LAYERS, HIDDEN = 3, 16  # two blocks
_BLOCKS = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS - 1, "num_attention_heads": 2}
_BLOCKS |= {"intermediate_size": 32, "conv_dim": (8,) * 7}
_BLOCKS |= {"num_conv_pos_embedding_groups": 2, "num_conv_pos_embeddings": 16}
_WHISPER = {"d_model": HIDDEN, "encoder_layers": LAYERS - 1, "decoder_layers": 1, "vocab_size": 10}
_WHISPER |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
_WHISPER |= {f"{side}_ffn_dim": 32 for side in ("encoder", "decoder")}
_WHISPER |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
OPTIONS = {
    "wav2vec2": _BLOCKS,
    "hubert": _BLOCKS | {"do_stable_layer_norm": True},
    "wavlm": _BLOCKS,
    "data2vec-audio": _BLOCKS | {"num_conv_pos_embeddings": 2},
    "whisper": _WHISPER,
}
SETTINGS = FeatureSettings()
every_type = pytest.mark.parametrize("model_type", MODEL_TYPES)


def _model(model_type):
    torch.manual_seed(0)
    model_class = getattr(transformers, MODEL_TYPES[model_type])
    return model_class(model_class.config_class(**OPTIONS[model_type])).eval()


def _extractor(model_type, **options):
    name = "Whisper" if model_type == "whisper" else "Wav2Vec2"
    return getattr(transformers, f"{name}FeatureExtractor")(**options)


def _save(folder, model_type, **options):
    _model(model_type).save_pretrained(folder)
    _extractor(model_type, **options).save_pretrained(folder)
    return folder


def _edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of each type, not to be changed."""
    return {name: _save(tmp_path_factory.mktemp(name), name) for name in MODEL_TYPES}


@pytest.fixture
def copy(saved, tmp_path):
    """A folder of a WavLM, to be changed."""
    return shutil.copytree(saved["wavlm"], tmp_path / "copy")


@pytest.fixture
def clip(voice):
    """A voice with a pause 60 dB below it."""
    waveform = voice(1, seconds=0.9)
    waveform[1200:2000] *= 1e-3
    return waveform


@pytest.fixture(autouse=True)
def links(tmp_path, monkeypatch):
    folder = tmp_path / "links"
    monkeypatch.setattr(encoders, "_links", lambda: folder)
    encoders._network.cache_clear()
    return folder


def _settings(where, layer="auto"):
    return replace(SETTINGS, encoder=use_encoder(str(where)).digest, encoder_layer=layer)


def _reference(model_type, waveform, **options):
    """Statistics of the states of transformers' model over frames at most 40 dB below the loudest."""
    wide = resample(waveform, 8000, 16000)
    inputs = _extractor(model_type, **options)(wide, sampling_rate=16000, return_tensors="pt")
    model = _model(model_type)
    model = model.encoder if model_type == "whisper" else model
    with torch.no_grad():
        states = torch.cat(model(**inputs, output_hidden_states=True).hidden_states).numpy()
    n_frames = -(-len(wide) // 320) if model_type == "whisper" else states.shape[1]
    powers = np.square(np.resize(np.pad(wide, (0, 320)), (n_frames, 320))).mean(axis=1)
    own = states[:, :n_frames][:, powers >= 1e-4 * powers.max()]
    assert 0 < own.shape[1] < n_frames
    return np.concatenate([own.mean(axis=1), own.std(axis=1)], axis=1)


@every_type
def test_features_are_those_of_transformers(saved, clip, model_type, capfd):
    features = encoder(clip, _settings(saved[model_type]))
    assert "".join(capfd.readouterr()) == ""
    assert features.shape == (LAYERS, 2 * HIDDEN) and features.dtype == np.float32
    np.testing.assert_allclose(features, _reference(model_type, clip), rtol=1e-4, atol=1e-5)
    for layer in range(LAYERS):
        row = encoder(clip, _settings(saved[model_type], str(layer)))
        np.testing.assert_array_equal(row, features[layer : layer + 1])


@pytest.mark.parametrize("normalised", [True, False])
def test_the_input_is_normalised_as_configured(tmp_path, clip, normalised):
    waveform = np.float32(0.01) * clip  # quiet: group normalisation does not remove the difference
    folder = _save(tmp_path / "model", "wavlm", do_normalize=normalised)
    features = encoder(waveform, _settings(folder))
    expected, other = (_reference("wavlm", waveform, do_normalize=n) for n in (normalised, not normalised))
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(features - other).max() > 1e-2


@pytest.mark.parametrize(("model_type", "reach"), [("wav2vec2", 400), ("whisper", 1)])
def test_a_clip_shorter_than_the_shortest_input_is_padded(saved, model_type, reach):
    settings = _settings(saved[model_type])
    features = encoder(np.full(reach // 4 + 1, 0.1, np.float32), settings)
    assert features.shape == (LAYERS, 2 * HIDDEN) and np.isfinite(features).all()
    assert not features[:, HIDDEN:].any()  # one frame does not vary


@pytest.mark.parametrize("model_type", ["hubert", "whisper"])
def test_a_long_clip_is_computed_in_windows(saved, voice, model_type, monkeypatch):
    monkeypatch.setattr(encoders, "WINDOW_SECONDS", 1)
    settings, waveform = _settings(saved[model_type]), voice(6, seconds=2.5)
    network = encoders._network(settings.encoder, "auto")
    forward = Mock(wraps=network._extractor)
    monkeypatch.setattr(network, "_extractor", forward)
    features = encoder(waveform, settings)
    windows = np.array_split(resample(waveform, 8000, 16000), 3)
    assert [len(call.args[0]) for call in forward.call_args_list] == [len(window) for window in windows]
    # The statistics are those of all windows' frames together.
    states = np.concatenate([network.hidden_states(window) for window in windows], axis=1)
    speech = speech_frames(np.concatenate([network.frame_powers(window) for window in windows]))
    own = states[:, speech].astype(np.float64)
    expected = np.concatenate([own.mean(axis=1), own.std(axis=1)], axis=1)
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


def test_a_whisper_with_a_short_input_has_short_windows(tmp_path, voice, monkeypatch):
    monkeypatch.setitem(OPTIONS, "whisper", _WHISPER | {"max_source_positions": 50})
    settings = _settings(_save(tmp_path / "model", "whisper"))
    assert encoders._network(settings.encoder, "auto").window == 16000
    assert encoder(voice(7, seconds=1.5), settings).shape == (LAYERS, 2 * HIDDEN)


def test_weights_of_a_fine_tuned_model_are_found(tmp_path, voice):
    # Names with a prefix, and with the suffixes of older versions of torch.
    folder = _save(tmp_path / "model", "wav2vec2")
    plain = encoder(voice(8), _settings(folder))
    weights = {}
    for name, value in load_file(folder / "model.safetensors").items():
        name = name.replace("parametrizations.weight.original0", "weight_g")
        name = name.replace("parametrizations.weight.original1", "weight_v")
        weights[f"wav2vec2.{name}"] = value
    save_file(weights | {"lm_head.bias": torch.zeros(3)}, folder / "model.safetensors", {"format": "pt"})
    assert any(name.endswith("weight_g") for name in weights)
    np.testing.assert_array_equal(encoder(voice(8), _settings(folder)), plain)


def test_half_precision_weights_are_computed_in_single_precision(tmp_path, clip):
    folder = _save(tmp_path / "model", "wav2vec2")
    _model("wav2vec2").half().save_pretrained(folder)
    features = encoder(clip, _settings(folder))
    np.testing.assert_allclose(features, _reference("wav2vec2", clip), rtol=0.02, atol=0.02)


@every_type
def test_an_encoder_is_described(saved, links, model_type):
    info = use_encoder(str(saved[model_type]))
    assert info == EncoderInfo(saved[model_type].name, info.digest, model_type, LAYERS)
    assert (links / info.digest).resolve() == saved[model_type].resolve()
    assert len(info.digest) == 64 and [path.name for path in links.iterdir()] == [info.digest]


def test_a_copy_has_the_same_digest_and_replaces_the_link(saved, copy, links):
    first = use_encoder(str(saved["wavlm"]))
    (copy / "README.md").write_text("is not read")
    second = use_encoder(str(copy))
    assert second.digest == first.digest and second.name == "copy"
    assert (links / first.digest).resolve() == copy


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_the_digest_changes_with_each_file(copy, file):
    before = use_encoder(str(copy)).digest
    content = (copy / file).read_bytes()
    end = b"  }" if file.endswith(".json") else bytes([content[-2] ^ 1, content[-1]])
    (copy / file).write_bytes(content[:-2] + end)
    assert use_encoder(str(copy)).digest != before


def test_links_are_in_the_clone_or_else_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.undo()  # of the fixture
    root = Path(encoders.__file__).parents[2]
    assert encoders._links() == root / "reports" / ".encoders"
    monkeypatch.setattr(encoders, "PACKAGE", tmp_path / "valence_lib")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert encoders._links() == tmp_path / ".cache" / "valence_lib" / "encoders"


def test_pickled_weights_are_refused_with_a_conversion_that_works(tmp_path, clip):
    folder = _save(tmp_path / "pickled", "wav2vec2")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SettingsError, match="can execute code") as caught:
        use_encoder(str(folder))
    command = str(caught.value).split('python -c "')[1].split('"')[0]
    program = command.replace("'FOLDER'", repr(str(converted := tmp_path / "converted")))
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    features = encoder(clip, _settings(converted))
    np.testing.assert_allclose(features, _reference("wav2vec2", clip), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": "bert"}, "model_type 'bert' with 2 layers; expected .* of wav2vec2"),
        ("config.json", {"model_type": ["wavlm"]}, r"model_type \['wavlm'\]"),
        ("config.json", {"num_hidden_layers": None}, "with None layers"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "is for 8000 Hz; expected .* 16000 Hz"),
    ],
)
def test_an_encoder_that_is_not_supported_is_refused(copy, file, changes, message):
    _edit(copy / file, **changes)
    with pytest.raises(SettingsError, match=message):
        use_encoder(str(copy))


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), ("{", "as a JSON object"), ("[]", "it holds a list")]
)
def test_a_folder_without_a_configuration_is_refused(copy, file, content, message):
    (copy / file).unlink() if content is None else (copy / file).write_text(content)
    with pytest.raises(SettingsError, match=message):
        use_encoder(str(copy))


def test_weights_that_are_cut_off_or_a_pointer_are_refused(copy):
    weights = copy / "model.safetensors"
    for content in (weights.read_bytes()[:-4], b"version https://git-lfs.github.com/spec/v1"):
        weights.write_bytes(content)
        with pytest.raises(SettingsError, match="cut off, or a Git LFS pointer"):
            use_encoder(str(copy))


def test_incomplete_weights_are_refused(copy, voice):
    weights = load_file(copy / "model.safetensors")
    del weights["encoder.layers.1.final_layer_norm.weight"]
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(RunError, match=r"lacks 1 weights, such as encoder\.layers\.1\.final_layer_norm"):
        encoder(voice(0), _settings(copy))


def test_weights_that_do_not_fit_the_configuration_are_refused(copy, voice):
    _edit(copy / "config.json", intermediate_size=64)
    with pytest.raises(RunError, match="cannot be loaded as WavLMModel"):
        encoder(voice(0), _settings(copy))


@every_type
def test_code_in_a_folder_is_never_executed(saved, tmp_path, voice, model_type):
    copy, marker = shutil.copytree(saved[model_type], tmp_path / "copy"), tmp_path / "executed"
    (copy / "custom.py").write_text(f"open({str(marker)!r}, 'w')\nclass Model: pass\n")
    auto_map = {f"Auto{kind}": "custom.Model" for kind in ("Config", "Model", "FeatureExtractor")}
    for file in ("config.json", "preprocessor_config.json"):
        _edit(copy / file, auto_map=auto_map, trust_remote_code=True)
    _edit(copy / "config.json", _attn_implementation="someone/kernel", attn_implementation="someone/kernel")
    assert encoder(voice(0), _settings(copy)).shape == (LAYERS, 2 * HIDDEN)
    assert not marker.exists() and "custom" not in sys.modules


@pytest.mark.parametrize("layer", ["3", "12", "-1", "1.5", "last", ""])
def test_a_layer_out_of_range_is_refused(layer):
    with pytest.raises(SettingsError, match=r"'tiny' has layers 0 .* to 2; expected"):
        check_layer(layer, EncoderInfo("tiny", "0" * 64, "wavlm", LAYERS))


def test_features_without_an_encoder_are_refused(voice):
    with pytest.raises(SettingsError, match="ENCODER=FOLDER"):
        encoder(voice(0), SETTINGS)


def test_a_folder_that_has_moved_can_be_given_again(copy, tmp_path, voice):
    settings = _settings(copy)
    copy.rename(tmp_path / "moved")
    with pytest.raises(RunError, match=r"there is no .*copy") as caught:
        encoder(voice(0), settings)
    assert settings.encoder in str(caught.value) and "ENCODER=FOLDER" in str(caught.value)
    use_encoder(str(tmp_path / "moved"))
    assert encoder(voice(0), settings).shape == (LAYERS, 2 * HIDDEN)


def test_a_folder_that_has_changed_is_refused(copy, voice):
    settings = _settings(copy)
    _edit(copy / "preprocessor_config.json", do_normalize=False)
    with pytest.raises(RunError, match=f"have changed.*expected {settings.encoder}"):
        encoder(voice(0), settings)


def test_a_name_on_the_hub_is_downloaded(saved, monkeypatch, links):
    download = Mock(return_value=str(saved["whisper"]))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    info = use_encoder("someone/whisper")
    files = ["config.json", "preprocessor_config.json", "model.safetensors"]
    download.assert_called_once_with("someone/whisper", allow_patterns=files)
    assert info.name == "someone/whisper" and (links / info.digest).is_dir()


@pytest.mark.parametrize("where", ["someone/wavlm", "no/such/folder", "wavlm", "../wavlm"])
def test_what_is_neither_a_folder_nor_downloaded_is_refused(where, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SettingsError, match="is no folder, and cannot be downloaded") as caught:
        use_encoder(where)
    for advice in ("such as 'microsoft/wavlm-base'", f"`hf download {where} --local", "ENCODER=FOLDER"):
        assert advice in str(caught.value)


def test_a_missing_package_is_refused(saved, monkeypatch):
    monkeypatch.setattr(encoders, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r'pip install "valence-lib\[encoders\]"'):
        use_encoder(str(saved["wavlm"]))

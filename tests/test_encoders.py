"""Pretrained encoders against transformers' own forward pass on tiny random models; refusals; messages."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from valence_lib import encoders
from valence_lib.encoders import MODEL_TYPES, EncoderInfo, check_layer, encoder, use_encoder
from valence_lib.errors import RunError, SettingsError
from valence_lib.settings import FeatureSettings
from valence_lib.speaker_encoder import speech_frames
from valence_lib.waveforms import resample

transformers = pytest.importorskip("transformers", reason='needs pip install "valence-lib[encoders]"')

LAYERS, HIDDEN = 3, 16  # two blocks
_BLOCKS = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS - 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embedding_groups": 2,
}
_WHISPER = {
    "d_model": HIDDEN,
    "encoder_layers": LAYERS - 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "vocab_size": 10,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}
OPTIONS = {
    "wav2vec2": _BLOCKS | {"num_conv_pos_embeddings": 16},
    "hubert": _BLOCKS | {"num_conv_pos_embeddings": 16, "do_stable_layer_norm": True},
    "wavlm": _BLOCKS | {"num_conv_pos_embeddings": 16},
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
def clip(voice):
    """`clip(seed, seconds=0.5)`: a voice with a pause 60 dB below it."""

    def make(seed, seconds=0.5):
        waveform = voice(seed, seconds=seconds)
        waveform[1200:2000] *= 1e-3
        return waveform

    return make


@pytest.fixture(autouse=True)
def links(tmp_path, monkeypatch):
    folder = tmp_path / "links"
    monkeypatch.setattr(encoders, "_links", lambda: folder)
    encoders._network.cache_clear()
    return folder


def _settings(where, layer="auto"):
    return replace(SETTINGS, encoder=use_encoder(str(where)).digest, encoder_layer=layer)


def _pooled(states, wide, stride):
    """Means and deviations of one clip's states [shape=(frames, hidden)] over its speech frames."""
    padded = np.pad(wide, (0, stride))
    power = np.array([np.mean(padded[i * stride : (i + 1) * stride] ** 2) for i in range(len(states))])
    own = states[power >= 1e-4 * power.max()]
    assert 0 < len(own) < len(states)
    return np.concatenate([own.mean(axis=0), own.std(axis=0)])


def _reference(model_type, waveform, **options):
    """Features by transformers' model and feature extractor, pooled here."""
    wide = resample(waveform, 8000, 16000)
    inputs = _extractor(model_type, **options)(wide, sampling_rate=16000, return_tensors="pt")
    model = _model(model_type)
    model = model.encoder if model_type == "whisper" else model
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    n_frames = -(-len(wide) // 320) if model_type == "whisper" else states[0].shape[1]
    return np.stack([_pooled(state[0, :n_frames].numpy(), wide, 320) for state in states])


# Features


@every_type
def test_features_are_those_of_transformers(saved, clip, model_type):
    waveform = clip(1, seconds=0.9)
    features = encoder(waveform, _settings(saved[model_type]))
    assert features.shape == (LAYERS, 2 * HIDDEN) and features.dtype == np.float32
    np.testing.assert_allclose(features, _reference(model_type, waveform), rtol=1e-4, atol=1e-5)
    for layer in range(LAYERS):
        row = encoder(waveform, _settings(saved[model_type], str(layer)))
        np.testing.assert_array_equal(row, features[layer : layer + 1])


@pytest.mark.parametrize("normalised", [True, False])
def test_the_input_is_normalised_where_the_folder_says_so(tmp_path, clip, normalised):
    waveform = np.float32(0.01) * clip(
        3
    )  # so quiet that the model's own group normalisation leaves a difference
    folder = _save(tmp_path / "model", "wavlm", do_normalize=normalised)
    features = encoder(waveform, _settings(folder))
    expected, other = (_reference("wavlm", waveform, do_normalize=n) for n in (normalised, not normalised))
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(features - other).max() > 1e-2


@every_type
def test_features_do_not_depend_on_earlier_clips(saved, voice, model_type):
    settings = _settings(saved[model_type])
    first = encoder(voice(4), settings)
    encoder(voice(5, seconds=1.3), settings)
    np.testing.assert_array_equal(encoder(voice(4), settings), first)


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
    sizes, forward = [], network._extractor

    def noting(window, **options):
        sizes.append(len(window))
        return forward(window, **options)

    monkeypatch.setattr(network, "_extractor", noting)
    features = encoder(waveform, settings)
    wide = resample(waveform, 8000, 16000)
    assert sum(sizes) == len(wide) and len(sizes) == 3
    assert max(sizes) <= 16000 and max(sizes) - min(sizes) <= 1
    # The statistics are those of all windows' frames together.
    windows = np.array_split(wide, 3)
    states = np.concatenate([network.hidden_states(window) for window in windows], axis=1)
    kept = speech_frames(np.concatenate([network.frame_powers(window) for window in windows]))
    own = states[:, kept].astype(np.float64)
    expected = np.concatenate([own.mean(axis=1), own.std(axis=1)], axis=1)
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


def test_a_whisper_with_a_short_input_has_short_windows(tmp_path, voice, monkeypatch):
    monkeypatch.setitem(OPTIONS, "whisper", _WHISPER | {"max_source_positions": 50})
    settings = _settings(_save(tmp_path / "model", "whisper"))
    assert encoders._network(settings.encoder, "auto").window == 16000
    assert encoder(voice(7, seconds=1.5), settings).shape == (LAYERS, 2 * HIDDEN)


def test_weights_of_a_fine_tuned_model_are_found(tmp_path, voice):
    # Its names have a prefix, and those of older versions of torch for the normalised weight.
    from safetensors.torch import load_file, save_file

    folder = _save(tmp_path / "model", "wav2vec2")
    plain = encoder(voice(8), _settings(folder))
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    weights = {}
    for name, value in load_file(folder / "model.safetensors").items():
        for new, before in old.items():
            name = name.replace(new, before)
        weights[f"wav2vec2.{name}"] = value
    save_file(weights | {"lm_head.bias": torch.zeros(3)}, folder / "model.safetensors", {"format": "pt"})
    assert any(name.endswith("weight_g") for name in weights)
    np.testing.assert_array_equal(encoder(voice(8), _settings(folder)), plain)


def test_half_precision_weights_are_computed_in_single_precision(tmp_path, clip):
    folder = tmp_path / "model"
    _model("wav2vec2").half().save_pretrained(folder)
    _extractor("wav2vec2").save_pretrained(folder)
    features = encoder(clip(9), _settings(folder))
    np.testing.assert_allclose(features, _reference("wav2vec2", clip(9)), rtol=0.02, atol=0.02)


def test_loading_prints_nothing(tmp_path, saved, voice, capfd):
    encoder(voice(0), _settings(saved["wav2vec2"]))
    assert "".join(capfd.readouterr()) == ""


# What identifies an encoder


@every_type
def test_an_encoder_is_described(saved, links, model_type):
    info = use_encoder(str(saved[model_type]))
    assert info == EncoderInfo(saved[model_type].name, info.digest, model_type, LAYERS)
    assert (links / info.digest).resolve() == saved[model_type].resolve()
    assert len(info.digest) == 64 and [path.name for path in links.iterdir()] == [info.digest]


def test_a_copy_has_the_same_digest_and_takes_the_link_over(saved, tmp_path, links):
    first = use_encoder(str(saved["wavlm"]))
    copy = shutil.copytree(saved["wavlm"], tmp_path / "copy")
    (copy / "README.md").write_text("is not read")
    second = use_encoder(str(copy))
    assert second.digest == first.digest and second.name == "copy"
    assert (links / first.digest).resolve() == copy


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "preprocessor_config.json"])
def test_the_digest_changes_with_each_file(saved, tmp_path, file):
    copy = shutil.copytree(saved["wavlm"], tmp_path / "copy")
    before = use_encoder(str(copy)).digest
    content = bytearray((copy / file).read_bytes())
    content[-2:] = b"  }" if file.endswith(".json") else bytes([content[-2] ^ 1, content[-1]])
    (copy / file).write_bytes(content)
    assert use_encoder(str(copy)).digest != before


def test_links_lie_in_the_clone_or_else_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.undo()  # of the fixture
    root = Path(encoders.__file__).parents[1]
    assert encoders._links() == root / "reports" / ".encoders"
    monkeypatch.setattr(encoders, "PACKAGE", tmp_path / "valence_lib")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert encoders._links() == tmp_path / ".cache" / "valence_lib" / "encoders"


# What is refused


def test_pickled_weights_are_refused_with_a_conversion_that_works(tmp_path, clip):
    folder = tmp_path / "pickled"
    model = _model("wav2vec2")
    model.config.save_pretrained(folder)
    _extractor("wav2vec2").save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(SettingsError, match="can execute code") as caught:
        use_encoder(str(folder))
    command = str(caught.value).split('python -c "')[1].split('"')[0]
    converted = tmp_path / "converted"
    program = command.replace("'FOLDER'", repr(str(converted)))
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    features = encoder(clip(1), _settings(converted))
    np.testing.assert_allclose(features, _reference("wav2vec2", clip(1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": "bert"}, "model_type 'bert'; expected one of wav2vec2, hubert"),
        ("config.json", {"model_type": ["wavlm"]}, r"model_type \['wavlm'\]"),
        ("config.json", {"num_hidden_layers": None}, "gives None layers"),
        ("preprocessor_config.json", {"sampling_rate": 8000}, "sampling_rate of 8000 Hz"),
    ],
)
def test_an_encoder_that_is_not_supported_is_refused(saved, tmp_path, file, changes, message):
    copy = shutil.copytree(saved["wavlm"], tmp_path / "copy")
    _edit(copy / file, **changes)
    with pytest.raises(SettingsError, match=message):
        use_encoder(str(copy))


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize(
    ("content", "message"), [(None, "there is no"), ("{", "as JSON"), ("[]", "holds a list")]
)
def test_a_folder_without_a_configuration_is_refused(saved, tmp_path, file, content, message):
    copy = shutil.copytree(saved["wavlm"], tmp_path / "copy")
    (copy / file).unlink() if content is None else (copy / file).write_text(content)
    with pytest.raises(SettingsError, match=message):
        use_encoder(str(copy))


def test_weights_that_are_cut_off_or_a_pointer_are_refused(saved, tmp_path):
    copy = shutil.copytree(saved["wavlm"], tmp_path / "copy")
    for content in (
        (copy / "model.safetensors").read_bytes()[:-4],
        b"version https://git-lfs.github.com/spec/v1",
    ):
        (copy / "model.safetensors").write_bytes(content)
        with pytest.raises(SettingsError, match="cut off, or a Git LFS pointer"):
            use_encoder(str(copy))


def test_weights_that_lack_some_are_refused(saved, tmp_path, voice):
    from safetensors.torch import load_file, save_file

    copy = shutil.copytree(saved["wavlm"], tmp_path / "copy")
    weights = load_file(copy / "model.safetensors")
    del weights["encoder.layers.1.final_layer_norm.weight"]
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(RunError, match=r"lacks 1 weights, of which encoder\.layers\.1\.final_layer_norm"):
        encoder(voice(0), _settings(copy))


def test_weights_that_do_not_fit_the_configuration_are_refused(saved, tmp_path, voice):
    copy = shutil.copytree(saved["wavlm"], tmp_path / "copy")
    _edit(copy / "config.json", intermediate_size=64)
    with pytest.raises(RunError, match="cannot be loaded as WavLMModel"):
        encoder(voice(0), _settings(copy))


@every_type
def test_code_in_a_folder_is_never_executed(saved, tmp_path, voice, model_type):
    copy, marker = shutil.copytree(saved[model_type], tmp_path / "copy"), tmp_path / "executed"
    (copy / "custom.py").write_text(f"open({str(marker)!r}, 'w')\nclass Model: pass\nclass Config: pass\n")
    for file in ("config.json", "preprocessor_config.json"):
        _edit(
            copy / file,
            auto_map={
                "AutoConfig": "custom.Config",
                "AutoModel": "custom.Model",
                "AutoFeatureExtractor": "custom.Model",
            },
            trust_remote_code=True,
        )
    _edit(copy / "config.json", _attn_implementation="someone/kernel", attn_implementation="someone/kernel")
    assert encoder(voice(0), _settings(copy)).shape == (LAYERS, 2 * HIDDEN)
    assert not marker.exists() and "custom" not in sys.modules


# Layers, folders that have gone, the hub


@pytest.mark.parametrize("layer", ["3", "12", "-1", "1.5", "last", ""])
def test_a_layer_out_of_range_is_refused(layer):
    info = EncoderInfo("tiny", "0" * 64, "wavlm", LAYERS)
    with pytest.raises(SettingsError, match=r"'tiny' has layers 0 .* to 2; expected"):
        check_layer(layer, info)
    for layer in ("auto", "0", "2"):
        check_layer(layer, info)


def test_a_layer_out_of_range_is_refused_before_loading(saved, voice):
    with pytest.raises(SettingsError, match="encoder_layer='3'"):
        encoder(voice(0), _settings(saved["wavlm"], "3"))


def test_features_without_an_encoder_are_refused(voice):
    with pytest.raises(SettingsError, match="ENCODER=FOLDER"):
        encoder(voice(0), SETTINGS)


def test_a_folder_that_has_moved_is_reported_with_the_way_to_name_it_again(saved, tmp_path, voice):
    copy = shutil.copytree(saved["wavlm"], tmp_path / "copy")
    settings = _settings(copy)
    copy.rename(tmp_path / "moved")
    with pytest.raises(RunError, match="copy no longer exists") as caught:
        encoder(voice(0), settings)
    assert settings.encoder in str(caught.value) and "ENCODER=FOLDER" in str(caught.value)
    use_encoder(str(tmp_path / "moved"))
    assert encoder(voice(0), settings).shape == (LAYERS, 2 * HIDDEN)


def test_an_unknown_digest_is_reported(voice):
    with pytest.raises(RunError, match=f"{'5' * 64} is not found: there is no"):
        encoder(voice(0), replace(SETTINGS, encoder="5" * 64))


def test_a_folder_that_has_changed_is_refused(saved, tmp_path, voice):
    copy = shutil.copytree(saved["wavlm"], tmp_path / "copy")
    settings = _settings(copy)
    _edit(copy / "preprocessor_config.json", do_normalize=False)
    with pytest.raises(RunError, match="have changed") as caught:
        encoder(voice(0), settings)
    assert settings.encoder in str(caught.value)


def test_a_name_on_the_hub_is_downloaded(saved, monkeypatch, links):
    import huggingface_hub

    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(saved["whisper"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    info = use_encoder("someone/whisper")
    assert asked == [("someone/whisper", ["config.json", "preprocessor_config.json", "model.safetensors"])]
    assert info.name == "someone/whisper" and (links / info.digest).is_dir()


def test_without_a_network_the_way_to_download_elsewhere_is_reported(monkeypatch, tmp_path):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SettingsError, match="hf download someone/wavlm --local-dir FOLDER") as caught:
        use_encoder("someone/wavlm")
    assert "ENCODER=FOLDER" in str(caught.value)


@pytest.mark.parametrize("where", ["no/such/folder", "wavlm", "../wavlm"])
def test_what_is_neither_a_folder_nor_a_name_is_refused(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="expected a folder, or a name on the Hugging Face hub"):
        use_encoder(where)


def test_a_missing_package_is_reported_with_the_command_that_installs_it(saved, monkeypatch):
    monkeypatch.setattr(encoders, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r'pip install "valence-lib\[encoders\]"'):
        use_encoder(str(saved["wavlm"]))

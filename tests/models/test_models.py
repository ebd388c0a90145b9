"""Models: padding never changes a prediction, the layers are torch's, sizes by formula."""

import pytest
import torch
from torch import nn

from valence_lib.errors import SettingsError
from valence_lib.models.build import build_model, count_parameters
from valence_lib.models.cnn import MaxPool2d
from valence_lib.registry import BEST_MODEL, COURSE_MODELS, MODELS, NETWORKS

N_MELS = 16
every_model = pytest.mark.parametrize("name", NETWORKS)


def _clips(seed=0, count=12, longest=40):
    """Clips of random lengths, the first of one frame, at the scale of standardised bands."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=generator)
    lengths[0] = 1
    return [torch.randn(int(n), N_MELS, generator=generator) for n in lengths]


def _batch(clips, filler=0.0, extra=0):
    lengths = torch.tensor([len(clip) for clip in clips])
    padded = torch.full((len(clips), int(lengths.max()) + extra, clips[0].shape[1]), filler)
    for row, clip in enumerate(clips):
        padded[row, : len(clip)] = clip
    return padded, lengths


def _model(name, n_mels=N_MELS):
    torch.manual_seed(0)
    return build_model(name, [n_mels]).eval()


@every_model
@pytest.mark.parametrize("filler", [0.0, 1e3, -1e3])
@pytest.mark.parametrize("extra", [0, 1, 17])
def test_padding_never_changes_a_prediction(name, filler, extra):
    model = _model(name)
    # Raw decibels, as preset "course" takes them, give larger predictions, whose noise is larger.
    raw = [-40 + 15 * clip for clip in _clips(seed=1, longest=200)]
    for clips, rtol in ((_clips(), 0.0), (raw, 2e-6)):
        with torch.no_grad():
            alone = torch.cat([model(clip[None], torch.tensor([len(clip)])) for clip in clips])
            together = model(*_batch(clips, filler, extra))
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=rtol)
        assert together.std() > 1e-3


@every_model
def test_the_gradient_reaches_every_parameter(name):
    model = _model(name).train()
    model(*_batch(_clips())).square().mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", ["LSTM1", "LSTM2", "CNNLSTM"])
def test_the_recurrent_models_are_torchs_layers_on_the_clip_alone(name):
    model = _model(name)
    with torch.no_grad():
        for clip in _clips(seed=3, count=3):
            maps = clip.T[None]
            for convolution in (model.convolution_1, model.convolution_2) if name == "CNNLSTM" else ():
                maps = nn.functional.conv1d(maps, convolution.weight, convolution.bias, padding=1).relu()
            _, (hidden, _) = nn.LSTM.forward(model.lstm, maps.permute(2, 0, 1))
            final = hidden[-2:] if model.lstm.bidirectional else hidden[-1:]
            expected = model.linear(torch.cat(list(final), dim=1))[:, 0]
            found = model(clip[None], torch.tensor([len(clip)]))
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def _plain_cnn(model, clip):
    """The report's layers in their order, as torch has them, on one unpadded clip."""
    maps = clip[None, None]
    for convolution in (model.convolution_1, model.convolution_2):
        maps = nn.functional.max_pool2d(convolution(maps).relu(), 3, stride=1, padding=1)
    return model.linear(maps.mean(dim=2).flatten(1))[:, 0]


@pytest.mark.parametrize("constant", [False, True])
def test_gradients_of_the_cnn_are_torchs_layers_on_each_clip_alone(constant):
    # Constant bands, as in digital silence, make many equal maxima: the first must win.
    clips = _clips(seed=4)
    if constant:
        for clip in clips:
            clip[:, 4:12] = 0.5
            clip[: len(clip) // 2] = clip[0]
    ours, theirs = _model("CNN"), _model("CNN")
    found = ours(*_batch(clips, 1e3, 5))
    expected = torch.cat([_plain_cnn(theirs, clip) for clip in clips])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    for predictions in (found, expected):
        predictions.square().sum().backward()
    for mine, reference in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, reference.grad, atol=1e-5, rtol=1e-5)


def test_pooling_of_padded_clips_is_the_same_in_other_precisions():
    # Double precision takes torch's own pooling, as other devices do.
    maps, lengths = torch.randn(3, 4, 9, 5), torch.tensor([9, 1, 4])
    weights = torch.randn(maps.shape)
    gradients = []
    for given in (maps.clone(), maps.double()):
        pooled = MaxPool2d()(given.requires_grad_().relu(), lengths)
        (pooled * weights).sum().backward()
        gradients.append((pooled.detach().float(), given.grad.float()))
    for mine, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-6, rtol=0)
    assert not gradients[0][0][1, :, 1:].any()


def _lstm(channels, hidden):
    return 4 * hidden * (channels + hidden + 2)  # four gates; two bias vectors, as torch has them


@pytest.mark.parametrize("n_mels", [128, 16])
@pytest.mark.parametrize(
    ("name", "by_formula"),
    [
        ("LSTM1", lambda n: _lstm(n, 128) + 128 + 1),
        ("LSTM2", lambda n: 2 * _lstm(n, 128) + 2 * _lstm(256, 128) + 256 + 1),
        ("CNN", lambda n: (9 * 1 * 8 + 8) + (9 * 8 * 16 + 16) + 16 * n + 1),
        ("CNNLSTM", lambda n: (3 * n * 64 + 64) + (3 * 64 * 64 + 64) + 2 * _lstm(64, 64) + 128 + 1),
    ],
)
def test_number_of_parameters_by_formula(name, by_formula, n_mels):
    assert count_parameters(build_model(name, [n_mels - 3, 3])) == by_formula(n_mels)


def test_an_unknown_model_is_refused_with_the_nearest():
    with pytest.raises(
        SettingsError, match=r"There is no model 'LTSM2'\. Did you mean 'LSTM2'\? Known: CNN, CNNLSTM, "
    ):
        build_model("LTSM2")


def test_the_registry_holds_the_reports_models():
    assert list(MODELS)[:3] == list(COURSE_MODELS) == ["LSTM1", "CNN", "LSTM2"]
    assert set(COURSE_MODELS) < set(NETWORKS) < set(MODELS)
    assert MODELS[BEST_MODEL].fitted

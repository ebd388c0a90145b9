"""The command line: exit statuses, output, and predictions of single files."""

import csv
import io
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import soundfile
import torch
from toy import FEATURES, Given, make_training_data, tone

import valence_lib
from valence_lib.__main__ import main
from valence_lib.arguments import parse_arguments, parse_budget, parse_targets
from valence_lib.errors import SettingsError
from valence_lib.features import encoders
from valence_lib.features.encoders import EncoderInfo
from valence_lib.features.log_mel import log_mel
from valence_lib.registry import training_settings
from valence_lib.training.loop import train
from valence_lib.training.predicting import list_files
from valence_lib.training.runs import load_run
from valence_lib.workflow import build

TONES = {name: tone(valence, 0.3, 1) for name, valence in (("a", 1.5), ("b", 3.0), ("c", 4.5))}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that is trained on the toy corpus for a few epochs."""
    folder = tmp_path_factory.mktemp("runs") / "CNN-default-0"
    settings = training_settings("CNN", "default", 0, epochs=4, learning_rate=1e-2)
    train(
        make_training_data(tmp_path_factory.mktemp("features")), settings, folder, torch.device("cpu"), False
    )
    return folder


@pytest.fixture
def clips(tmp_path):
    """A folder with a WAV, a FLAC at another rate, a pickle, a text file, and a file that is not audio."""
    folder = tmp_path / "clips"
    (folder / "deeper").mkdir(parents=True)
    soundfile.write(folder / "a.wav", TONES["a"], 8000, subtype="FLOAT")
    stereo = np.repeat(np.repeat(TONES["b"], 2)[:, None], 2, axis=1)
    soundfile.write(folder / "deeper" / "b.flac", stereo, 16000)
    (folder / "c.pkl").write_bytes(pickle.dumps({"audio_data": TONES["c"]}))
    (folder / "d.wav").write_bytes(b"RIFF, but then nothing")
    (folder / "notes.txt").write_text("no clip")
    return folder


def _predict(capsys, run, *arguments):
    status = main(["predict", *map(str, arguments), "--run", str(run)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def _python(*arguments):
    """The output and exit status of a new Python process."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])


def _rows(text):
    return {Path(file).name: outcome for file, outcome in list(csv.reader(io.StringIO(text)))[1:]}


def test_a_folder_is_predicted_file_by_file_and_a_bad_one_is_named(run, clips, capsys):
    status, out, err = _predict(capsys, run, clips)
    lines = out.splitlines()
    assert lines[0] == "file,valence"
    paths = [clips / "a.wav", clips / "c.pkl", clips / "d.wav", clips / "deeper" / "b.flac"]
    assert [line.split(",")[0] for line in lines[1:]] == [str(path) for path in paths]
    found = _rows(out)
    assert status == 1
    assert found["d.wav"].startswith("error: unreadable: 'd.wav' cannot be decoded: it is a text file")
    assert err.splitlines()[0] == "valence: not predicted: 1 .txt."
    assert err.splitlines()[1].startswith(f"valence: {clips / 'd.wav'}: unreadable")
    assert float(found["a.wav"]) < float(found["b.flac"]) < float(found["c.pkl"])
    loaded = load_run(run)
    for file, name in (("a.wav", "a"), ("c.pkl", "c")):
        expected = loaded.predict_features(Given([log_mel(TONES[name], FEATURES)]), [""])[0]
        assert found[file] == f"{expected:.4f}"


def test_intervals_have_the_quantile_of_the_held_out_errors(run, clips, capsys, tmp_path):
    own = tmp_path / "run"
    shutil.copytree(run, own)
    errors = [0.1 * number for number in range(1, 20)]  # of nineteen clips: 90 % takes the eighteenth
    rows = [f"{number},test,,S,1.0,3.0,{3 - error}" for number, error in enumerate(errors)]
    header = "id,subset,fold,speaker,duration_seconds,truth,prediction"
    (own / "predictions.csv").write_text("\n".join([header, *rows, "x,validation,,S,1.0,3.0,9.0"]) + "\n")
    status, out, _ = _predict(capsys, own, clips / "a.wav", clips / "d.wav", "--interval", 90)
    lines = list(csv.reader(io.StringIO(out)))
    assert lines[0] == ["file", "valence", "low", "high"]
    valence, low, high = map(float, lines[1][1:])
    assert (valence - low, high - valence) == pytest.approx((1.8, 1.8), abs=2e-4)
    assert lines[2][2:] == ["", ""]
    assert status == 1
    status, _, err = _predict(capsys, own, clips / "a.wav", "--interval", 99)
    assert (status, "19 held-out clips are too few for an interval of 99 %" in err) == (2, True)
    status, _, err = _predict(capsys, run, clips / "a.wav", "--interval", 90)
    assert (status, "has no predictions.csv" in err) == (1, True)


def test_output_goes_to_the_named_file_alone(run, clips, capsys, tmp_path):
    printed = _predict(capsys, run, clips)[1]
    destination = tmp_path / "deep" / "predicted.csv"
    status, out, _ = _predict(capsys, run, clips, "--output", destination)
    assert (status, out) == (1, "")
    assert destination.read_bytes().decode() == printed
    assert [entry.name for entry in destination.parent.iterdir()] == ["predicted.csv"]


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("--output", "", "this is a folder or a device"),
        ("--plot", "folder.png", "this is a folder or a device"),
        ("--output", "a.wav", "this is one of the files to predict"),
        ("--output", "a.wav/x.csv", "a.wav' is no folder"),
        ("--output", "x" * 250 + ".csv", "File name too long"),
        ("--plot", "curve", "expected a file that ends in .png, .pdf, .svg"),
        ("--plot", "curve.jpg", "expected a file that ends in .png, .pdf, .svg"),
    ],
)
def test_a_destination_is_checked_before_the_work(option, name, message, clips, capsys):
    (clips / "folder.png").mkdir()
    before = (clips / "a.wav").read_bytes()
    # The run does not exist either: it has not been looked for.
    asked = ["--window", "1", option, clips / name]
    status, out, err = _predict(capsys, "no run", clips / "a.wav", *asked)
    assert (status, out) == (2, "")
    assert option in err
    assert message in err
    assert (clips / "a.wav").read_bytes() == before


def test_a_folder_without_permission_is_no_destination(clips, capsys, monkeypatch):
    def touch(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", touch)
    status, _, err = _predict(capsys, "no run", clips / "a.wav", "--output", clips / "x.csv")
    assert status == 2
    assert f"--output '{clips / 'x.csv'}' cannot be written: Permission denied; give another place." in err


def test_a_name_that_looks_like_a_formula_leads_to_its_file(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["=1+2.wav", "@a.wav", "+b.wav", "a=b.wav"]
    for name in names:
        soundfile.write(name, TONES["a"], 8000)
    status, out, _ = _predict(capsys, run, *names)
    assert status == 0
    written = [row[0] for row in csv.reader(io.StringIO(out))][1:]
    assert written == ["./=1+2.wav", "./@a.wav", "./+b.wav", "a=b.wav"]
    assert all(Path(path).is_file() for path in written)


def test_control_characters_of_a_name_reach_the_csv_and_not_the_terminal(run, tmp_path, capsys):
    (tmp_path / "a\x1b[31m\nb.wav").write_bytes(b"")
    status, out, err = _predict(capsys, run, tmp_path)
    assert status == 1
    assert list(csv.reader(io.StringIO(out)))[1][0] == f"{tmp_path}/a\x1b[31m\nb.wav"
    assert len(err.splitlines()) == 1
    assert r"/a\x1b[31m\nb.wav: unreadable" in err


def test_an_ascii_terminal_shows_any_name(run, tmp_path):
    """A name that is not ASCII, one that is not UTF-8, and an error with each."""
    folder = tmp_path / "f\xfc"
    folder.mkdir()
    for name in ("ü 文.wav", os.fsdecode(b"gl\xfcck.wav")):
        with (folder / name).open("wb") as file:
            soundfile.write(file, TONES["a"], 8000, format="WAV")
        (folder / f"bad {name}").write_bytes(b"")
    environment = os.environ | {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    predict = [sys.executable, "-m", "valence_lib", "predict", str(folder), "--run", str(run)]
    for output in ([], ["--output", str(tmp_path / "out.csv")]):
        done = subprocess.run(
            [*predict, *output], capture_output=True, env=environment, cwd=Path(__file__).parents[1]
        )
        assert done.returncode == 1
        errors = done.stderr.decode("ascii").splitlines()
        assert [line.startswith("valence: ") for line in errors] == [True, True]
        assert r"bad \xfc \u6587.wav: unreadable" in errors[1]
        assert r"bad gl\xfcck.wav: unreadable" in errors[0]
    assert len(list(csv.reader((tmp_path / "out.csv").open(encoding="utf-8")))) == 5
    assert "f\xfc/ü 文.wav" in (tmp_path / "out.csv").read_text(encoding="utf-8")
    corpus = [sys.executable, "-m", "valence_lib", "check", str(folder)]
    done = subprocess.run(corpus, capture_output=True, env=environment, cwd=Path(__file__).parents[1])
    assert done.returncode == 1
    assert done.stderr.startswith(b"valence: ")
    assert b"Traceback" not in done.stderr


def test_where_no_file_can_be_used_every_row_has_the_reason(run, clips, capsys):
    short, silent, broken = clips / "short.wav", clips / "silent.wav", clips / "broken.pkl"
    soundfile.write(short, TONES["a"][:100], 8000)
    soundfile.write(silent, np.zeros(4000), 8000)
    broken.write_bytes(pickle.dumps([{"audio_data": TONES["a"]}] * 2)[:-20])
    status, out, err = _predict(
        capsys, run, short, silent, broken, clips / "absent.wav", clips / "absent.pkl", clips / "notes.txt"
    )
    assert status == 1
    assert len(err.splitlines()) == 6
    # One row a file, in the order in which they were named: a pickle that cannot be read has no clips.
    found = _rows(out)
    assert list(found) == ["short.wav", "silent.wav", "broken.pkl", "absent.wav", "absent.pkl", "notes.txt"]
    for outcome, why in zip(
        found.values(), ("too short", "silent", "", "unreadable", "unreadable", ""), strict=True
    ):
        assert outcome.startswith(f"error: {why}")


def test_every_clip_of_a_pickle_has_a_row_and_a_bad_one_leaves_the_others(run, clips, capsys):
    content = [{"audio_data": audio} for audio in (TONES["c"], np.zeros(4000), TONES["a"], "text")]
    many = clips / "many.pkl"
    many.write_bytes(pickle.dumps(content))
    status, out, err = _predict(capsys, run, many, clips / "c.pkl")
    assert status == 1
    found = _rows(out)
    assert list(found) == ["many.pkl#0", "many.pkl#1", "many.pkl#2", "many.pkl#3", "c.pkl"]
    assert out.splitlines()[1].startswith(f"{many}#0,")
    assert found["many.pkl#1"].startswith("error: silent")
    assert found["many.pkl#3"].startswith("error: wrong type")
    assert [line.split(": ")[1] for line in err.splitlines()] == [f"{many}#1", f"{many}#3"]
    assert float(found["many.pkl#0"]) == pytest.approx(float(found["c.pkl"]), abs=1.1e-4)
    expected = load_run(run).predict_features(Given([log_mel(TONES["a"], FEATURES)]), [""])[0]
    assert float(found["many.pkl#2"]) == pytest.approx(expected, abs=1.1e-4)


def test_a_pickle_of_a_list_with_one_clip_is_called_as_its_file(run, clips, capsys):
    (clips / "list.pkl").write_bytes(pickle.dumps([{"audio_data": TONES["c"]}]))
    status, out, _ = _predict(capsys, run, clips / "list.pkl", clips / "c.pkl")
    found = _rows(out)
    assert (status, list(found)) == (0, ["list.pkl", "c.pkl"])
    assert found["list.pkl"] == found["c.pkl"]


@pytest.mark.parametrize("content", [[], {"audio_data": [], "valence": []}])
def test_a_pickle_without_clips_is_one_error_row(run, tmp_path, capsys, content):
    (tmp_path / "none.pkl").write_bytes(pickle.dumps(content))
    status, out, _ = _predict(capsys, run, tmp_path / "none.pkl")
    assert status == 1
    found = _rows(out)
    assert list(found) == ["none.pkl"]
    assert found["none.pkl"].startswith("error: ")


def test_a_pickle_that_would_run_something_is_an_error_and_runs_nothing(run, tmp_path, capsys):
    class Malice:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"audio_data": Malice()}))
    status, out, _ = _predict(capsys, run, tmp_path / "bad.pkl")
    assert status == 1
    assert _rows(out)["bad.pkl"].startswith("error: forbidden global")
    assert not (tmp_path / "ran").exists()


def test_names_with_commas_and_quotes_stay_one_field(run, tmp_path, capsys):
    path = tmp_path / 'he said "well, no".wav'
    soundfile.write(path, TONES["a"], 8000)
    status, out, _ = _predict(capsys, run, path)
    assert status == 0
    assert list(csv.reader(io.StringIO(out)))[1][0] == str(path)


def test_a_curve_has_a_row_a_window_and_a_picture(run, tmp_path, capsys):
    recording, plot = tmp_path / "long.wav", tmp_path / "curve.png"
    soundfile.write(recording, np.concatenate([TONES["a"], np.zeros(2400), TONES["c"]]), 8000)
    asked = ("--window", "0.3", "--hop", "0.15", "--plot", plot)
    status, out, err = _predict(capsys, run, recording, *asked)
    assert (status, err) == (0, "")
    header, *rows = csv.reader(io.StringIO(out))
    assert header == ["file", "start_seconds", "end_seconds", "valence"]
    assert [row[1] for row in rows] == ["0.000", "0.150", "0.300", "0.450", "0.600"]
    assert [row[2] for row in rows] == ["0.300", "0.450", "0.600", "0.750", "0.900"]
    values = [row[3] for row in rows]
    assert values[2] == ""  # silence
    loaded = load_run(run)
    for place, name in ((0, "a"), (4, "c")):
        window = soundfile.read(recording, dtype="float32")[0][place * 1200 :][:2400]
        expected = loaded.predict_features(Given([log_mel(window, FEATURES)]), [""])[0]
        assert float(values[place]) == pytest.approx(expected, abs=1e-4), name
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_curve_without_any_value_is_an_error_and_no_picture(run, tmp_path, capsys):
    soundfile.write(tmp_path / "silent.wav", np.zeros(40_000), 8000)
    plot = tmp_path / "curve.png"
    status, out, err = _predict(capsys, run, tmp_path / "silent.wav", "--window", 2, "--plot", plot)
    assert status == 1
    assert (
        err == f"valence: {tmp_path}/silent.wav: silent: none of the 4 windows has a valence (silent: 4).\n"
    )
    assert list(csv.reader(io.StringIO(out)))[-1][3].startswith("error: silent: none of the 4 windows")
    assert not plot.exists()


def test_a_recording_that_cannot_be_used_has_one_row_in_the_curve(run, clips, capsys):
    status, out, err = _predict(capsys, run, clips / "d.wav", clips / "a.wav", "--window", "4")
    first, second = list(csv.reader(io.StringIO(out)))[1:]
    assert status == 1
    assert first[1:3] == ["", ""]
    assert first[3].startswith("error: unreadable")
    assert second[1:3] == ["0.000", "0.300"]
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--window", "0.01"],
            "window=0.01 s cannot be used: expected at least a frame, which lasts 0.032 s",
        ),
        (["--hop", "1"], "--hop or --plot was given without --window"),
        (["--plot", "x.png"], "--hop or --plot was given without --window"),
        (["--window", "4", "--plot", "x.png"], "--plot draws one recording, but 4 files were given"),
    ],
)
def test_wrong_arguments_of_a_curve_are_status_2(run, clips, arguments, message, capsys):
    status, out, err = _predict(capsys, run, clips, *arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_predict_imports_nothing_that_it_does_not_use(run, clips):
    program = (
        "import sys; from valence_lib.__main__ import main; "
        f"main(['predict', {str(clips / 'a.wav')!r}, '--run', {str(run)!r}]); "
        "print(sorted({'matplotlib', 'pandas', 'seaborn', 'sklearn', 'papermill'} & set(sys.modules)))"
    )
    assert _python("-c", program).stdout.splitlines()[-1] == "[]"


def test_wrong_arguments_of_predict_are_refused_before_torch_is_imported():
    program = (
        "import sys; from valence_lib.__main__ import main; "
        "status = main(['predict', 'x.wav', '--run', 'y', '--hop', '1']); "
        "print(status, 'torch' in sys.modules)"
    )
    assert _python("-c", program).stdout.split() == ["2", "False"]


def test_predict_refuses_a_folder_without_clips_and_one_without_a_run(run, tmp_path, capsys):
    status, out, err = _predict(capsys, run, tmp_path)
    assert (status, out) == (1, "")
    assert f"the folder '{tmp_path}' holds no audio file and no pickle; expected files such as .wav" in err
    status, out, err = _predict(capsys, tmp_path / "nothing", tmp_path)
    assert (status, out) == (1, "")
    assert "is not a run that can be used" in err


def test_list_files_takes_suffixes_in_any_case_and_keeps_what_was_named(tmp_path):
    for name in ("B.WAV", "a.Flac", "c.txt", "d.PKL"):
        (tmp_path / name).touch()
    (tmp_path / "folder.wav").mkdir()
    named = tmp_path / "c.txt"
    assert [path.name for path in list_files([named, tmp_path])] == ["c.txt", "B.WAV", "a.Flac", "d.PKL"]


@pytest.mark.parametrize(
    ("text", "parsed"), [("20", (20, 0.0)), ("10min", (0, 10.0)), ("0.5 min", (0, 0.5)), (" 3", (3, 0.0))]
)
def test_a_budget_is_trials_or_minutes(text, parsed):
    assert parse_budget(text) == parsed


@pytest.mark.parametrize("text", ["", "min", "0", "-3", "2.5", "0min", "nanmin", "infmin", "10 hours", "ten"])
def test_another_budget_is_refused(text, capsys):
    with pytest.raises(
        SettingsError, match="expected a number of trials above 0, as in 20, or of minutes, as in 10min"
    ):
        parse_budget(text)
    # And at once, before anything is read.
    assert main(["sweep", f"--budget={text}", "--corpus", "nowhere"]) == 2
    assert f"BUDGET={text!r} was given" in capsys.readouterr().err


def _manifest(folder):
    folder.mkdir()
    for name, waveform in TONES.items():
        soundfile.write(folder / f"{name}.wav", waveform, 8000)
    rows = ["a.wav,1.5,S1", "b.wav,3.0,S1", "c.wav,4.5,S2", "absent.wav,2,S2"]
    (folder / "labels.csv").write_text("\n".join(["file,valence,speaker", *rows]) + "\n")
    return folder


def test_check_describes_a_corpus(tmp_path, capsys):
    assert main(["check", str(_manifest(tmp_path / "tones"))]) == 0
    out = capsys.readouterr().out
    assert "corpus     tones: 4 clips, 3 taken, 1 in quarantine" in out
    assert "valence    1.5 to 4.5 on a scale of 1 to 5, mean 3.000, variance 1.5000, 0 clips without" in out
    assert "speakers   2" in out
    assert "  absent.wav: unreadable: " in out


def test_check_takes_the_scale(tmp_path, capsys):
    corpus = str(_manifest(tmp_path / "tones"))
    for given in (["--range", "-1,5"], ["--range=-1,5"], ["--range", "-.5,5"], ["--range", "0,5"]):
        assert main(["check", corpus, *given]) == 0
        assert "4 clips, 3 taken" in capsys.readouterr().out
    assert main(["check", corpus, "--range", "-1,2"]) == 1
    assert "2 of 3 ratings of 'tones' are not between -1 and 2" in capsys.readouterr().err


def test_check_prints_what_was_detected_and_takes_names_of_columns(manifest_folder, capsys):
    table = (manifest_folder / "labels.csv").read_text().replace(",", ";").replace("valence", "EmoVal")
    (manifest_folder / "labels.csv").write_text(
        table.replace(".5;S", ",5;S").replace(".0;S", ",0;S"), encoding="utf-16"
    )
    assert main(["check", str(manifest_folder)]) == 1
    assert "Did you mean COLUMNS=valence=EmoVal?" in capsys.readouterr().err
    assert main(["check", str(manifest_folder), "--columns", "valence=EmoVal", "--range", "auto"]) == 0
    printed = capsys.readouterr().out
    assert "read as    CSV in UTF-16, separated by semicolons, with the columns valence=EmoVal" in printed
    assert "valence    1 to 3.5 on a scale of 1 to 4, mean 2.250" in printed
    # Notes precede an error.
    assert main(["check", str(manifest_folder), "--columns", "valence=EmoVal", "--range", "2,5"]) == 1
    printed = capsys.readouterr().err
    assert "was read as CSV in UTF-16" in printed
    assert "2 of 6 ratings of 'spoken' are not between 2 and 5" in printed
    assert "such as RANGE=1,4, or RANGE=auto" in printed


@pytest.mark.parametrize("command", [["check", "x"], ["report"], ["sweep"], ["plan"]])
def test_every_command_takes_a_range_below_zero(command):
    arguments = [*command, "--range", "-1,1"]
    assert parse_arguments(arguments).scale == "-1,1"
    # Other options may follow a range that is forgotten.
    with pytest.raises(SystemExit):
        main([*command, "--range", "--jobs"])


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["check", "nowhere"], 1, "there is no corpus at 'nowhere'"),
        (["check", "demo", "--range", "five"], 2, "RANGE=five was given"),
        (["check", "demo", "--range", "5,1"], 2, "RANGE=5,1 was given"),
    ],
)
def test_check_refuses_with_a_message(arguments, status, message, capsys):
    assert main(arguments) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("valence: ")
    assert message in printed.err


@pytest.mark.parametrize("arguments", [[], ["chekc"], ["predict", "x.wav"], ["notebook", "x.ipynb"]])
def test_wrong_arguments_are_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: valence" in capsys.readouterr().err


def test_version_and_help(capsys):
    for option, message in (("--version", valence_lib.__version__), ("--help", "predict")):
        with pytest.raises(SystemExit) as stopped:
            main([option])
        assert stopped.value.code == 0
        assert message in capsys.readouterr().out


def test_notebook_runs_with_typed_parameters(tmp_path, capsys):
    cells = [
        nbformat.v4.new_code_cell("seed = 0\nname = 'x'", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("(seed + 1, name)"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = tmp_path / "x.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), notebook)
    destination = tmp_path / "out" / "x.ipynb"

    assert main(["notebook", str(notebook), str(destination), "-p", "sed", "1"]) == 1
    assert "There is no parameter 'sed'. Did you mean 'seed'?" in capsys.readouterr().err
    assert main(["notebook", str(notebook), str(destination), "-p", "seed", "one"]) == 1
    assert "seed='one' is of type str; expected int, as in seed=0." in capsys.readouterr().err
    assert not destination.exists()

    assert main(["notebook", str(notebook), str(destination), "-p", "seed", "7", "-p", "name", "12"]) == 0
    executed = nbformat.read(destination, 4)
    assert executed.cells[-1].outputs[0].data["text/plain"] == "(8, '12')"


ENCODER = EncoderInfo("own", "d1g3st", "wavlm", 13)


@pytest.mark.parametrize(("layer", "given"), [([], "auto"), (["--layer", "3"], "3")])
def test_an_encoder_becomes_part_of_the_request(layer, given, monkeypatch):
    asked = []
    monkeypatch.setattr(encoders, "use_encoder", lambda where: asked.append(where) or ENCODER)
    monkeypatch.setattr(build, "show_plan", lambda request, corpus: asked.append(request) or 0)
    assert main(["plan", "--encoder", "some/folder", *layer]) == 0
    where, request = asked
    assert where == "some/folder"
    assert (request.encoder, request.encoder_name, request.encoder_layer) == ("d1g3st", "own", given)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "bset"], "There is no preset 'bset'. Did you mean 'best'?"),
        (["--layer", "3"], "LAYER=3 was given without an encoder; expected ENCODER=FOLDER"),
        (["--encoder", "own", "--layer", "13"], "13"),
    ],
)
def test_an_unknown_preset_or_layer_is_status_2(options, message, monkeypatch, capsys):
    monkeypatch.setattr(encoders, "use_encoder", lambda where: ENCODER)
    assert main(["plan", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_closed_pipe_is_no_error(tmp_path):
    program = [sys.executable, "-m", "valence_lib", "plan"]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[1]
    ) as plan:
        plan.stdout.close()
        assert plan.stderr.read() == b""
    assert plan.returncode == 0


def test_the_module_is_a_program(tmp_path):
    finished = _python("-m", "valence_lib", "check", tmp_path / "nowhere")
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.startswith("valence: there is no corpus at ")
    assert "Traceback" not in finished.stderr


def test_check_describes_each_target_once(manifest_folder, capsys):
    rows = "".join(f"audio/{name},{n},{n}\n" for n, name in enumerate(("0.wav", "1.flac", "2.ogg"), 1))
    (manifest_folder / "labels.csv").write_text(f"file,valence,arousal\n{rows}")
    assert main(["check", str(manifest_folder), "--target", "valence,arousal,valence"]) == 0
    printed = capsys.readouterr().out.splitlines()
    rated = [line.split()[0] for line in printed if "on a scale of" in line]
    assert rated == ["valence", "arousal"]
    assert parse_targets("valence, valence,arousal") == ["valence", "arousal"]


def test_check_takes_a_corpus_to_test_on_and_refuses_the_same_one(manifest_folder, capsys):
    where = str(manifest_folder)
    assert main(["check", "demo", "--test-corpus", where]) == 0
    assert "corpus     demo → spoken: 546 clips" in capsys.readouterr().out
    assert main(["check", where, "--test-corpus", where]) == 1
    assert "the same corpus was given twice" in capsys.readouterr().err
    assert main(["plan", "--corpus", where, "--test-corpus", where, "--name", "twice"]) == 1
    assert "the same corpus was given twice" in capsys.readouterr().err

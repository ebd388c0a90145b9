"""Make the embedded demo corpus again: `python workflow/make_demo.py OUT`.

eSpeak NG speaks plain sentences. A hidden valence and an independent hidden arousal change how it speaks, and
three simulated raters judge the valence. Needs `pip install espeakng-loader`.

The result is reproducible: all random numbers come from one seed, and each clip is spoken in a process of its
own, because eSpeak NG's noise source and timing carry over from one clip to the next.
"""

import argparse
import csv
import ctypes
import json
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile
import soxr
from scipy.stats import norm

from valence_lib.errors import CorpusError

SEED = 20
SAMPLE_RATE = 8000  # Hz
ESPEAK_SAMPLE_RATE = 22050  # Hz
SIGNIFICANT_BITS = 12  # FLAC stores the four zeroed low bits of each sample at no cost
RENDITIONS = 3  # of each sentence by each voice

RATER_BIAS = (0.15, -0.20, 0.05)
RATER_NOISE_SD = (0.45, 0.55, 0.60)
RATINGS = np.arange(1.0, 5.01, 0.5)

SENTENCES = (
    "The bus stops near the old bridge.",
    "My coat is hanging behind the door.",
    "There are seven books on the table.",
    "She put the letter in the drawer.",
    "The train leaves at a quarter past nine.",
    "We will paint the kitchen on Monday.",
    "He carried the boxes up the stairs.",
    "The lamp stands beside the window.",
    "They are talking about the meeting.",
    "Your keys are lying on the shelf.",
    "It takes an hour to walk to town.",
    "The shop on the corner sells bread.",
)


@dataclass(frozen=True)
class Voice:
    """One speaker: an eSpeak NG accent joined with one of its `!v` voice variants."""

    sex: str
    language: str
    variant: str


VOICES = (
    Voice("male", "en-us", "m1"),
    Voice("female", "en-us", "f1"),
    Voice("male", "en", "m2"),
    Voice("female", "en", "f2"),
    Voice("male", "en-gb-scotland", "m3"),
    Voice("female", "en-gb-scotland", "f3"),
    Voice("male", "en-029", "m4"),
    Voice("female", "en-gb-x-rp", "f4"),
    Voice("male", "en-gb-x-rp", "m6"),
    Voice("female", "en-us", "f5"),
    Voice("male", "en-us", "m7"),
    Voice("female", "en-029", "aunty"),
    Voice("male", "en-gb-x-gbcwmd", "Gene"),
    Voice("female", "en-gb-x-gbclan", "Andrea"),
    Voice("male", "en-us-nyc", "Denis"),
)


@dataclass(frozen=True)
class PlannedClip:
    """What one clip is made from. Pitch, range and rate are eSpeak NG's parameters 3, 4 and 1."""

    file: str
    speaker: str
    voice: Voice
    sentence: str
    hidden_valence: float  # 1 to 5
    hidden_arousal: float  # 1 to 5
    ratings: list[float]  # one a rater
    pitch: int  # 0 to 99, where 50 is the voice's own level
    pitch_range: int  # 0 to 99, where 50 is the voice's own range
    rate: int  # words a minute
    loudness: float  # dB re full scale, RMS
    tilt: float  # dB an octave, added to the voice's own spectrum

    @property
    def valence(self) -> float:
        """The label: the mean of the ratings."""
        return round(sum(self.ratings) / len(self.ratings), 4)


def plan_clips(seed: int = SEED) -> list[PlannedClip]:
    """Voice, sentence, prosody and ratings of every clip of the corpus, sorted by file."""
    rng = np.random.default_rng(seed)
    clips = []
    for number, voice in enumerate(VOICES, start=1):
        texts = [(index, take) for index in range(len(SENTENCES)) for take in range(RENDITIONS)]
        # Each voice covers both scales evenly, in independent orders.
        valence = 2 * (rng.permutation(len(texts)) + rng.random(len(texts))) / len(texts) - 1
        arousal = 2 * (rng.permutation(len(texts)) + rng.random(len(texts))) / len(texts) - 1
        # A voice's habits are independent of valence: a nuisance to the model.
        habit = rng.uniform(-1, 1, size=5)
        for (index, take), v, a in zip(texts, valence, arousal, strict=True):
            hidden = 3 + 1.8 * v
            noise = rng.normal(0, RATER_NOISE_SD)
            ratings = np.clip(np.round(2 * (hidden + np.array(RATER_BIAS) + noise)) / 2, 1, 5).tolist()
            clips.append(
                PlannedClip(
                    file=f"audio/s{number:02d}_t{index + 1:02d}_{take + 1}.flac",
                    speaker=f"s{number:02d}",
                    voice=voice,
                    sentence=SENTENCES[index],
                    hidden_valence=round(float(hidden), 4),
                    hidden_arousal=round(float(3 + 2 * a), 4),
                    ratings=ratings,
                    pitch=round(50 + 28 * v + 5 * a + 6 * habit[0]),
                    pitch_range=round(50 + 40 * v + 6 * habit[1]),
                    rate=round(170 + 22 * a + 5 * v + 8 * habit[2]),
                    loudness=float(-27 + 4 * a + v + 2 * habit[3]),
                    tilt=float(2.5 * v + 0.3 * a + 0.5 * habit[4]),
                )
            )
    return clips


def speak(clip: PlannedClip) -> bytes:
    """One clip spoken by eSpeak NG: 16 bit samples at 22050 Hz. Only a process's first call is reproducible.

    Raises:
        CorpusError: espeakng-loader is not installed, or its eSpeak NG refuses a voice or a text.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise CorpusError(
            "Making the demo corpus needs eSpeak NG, which is not installed: pip install espeakng-loader"
        ) from error
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    samples = bytearray()

    # int (short *wav, int numsamples, espeak_EVENT *events), from eSpeak NG's speak_lib.h; 0 means: go on.
    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def collect(wave: int | None, length: int, _events: int | None) -> int:
        if wave and length > 0:
            samples.extend(ctypes.string_at(wave, 2 * length))
        return 0

    synchronous, utf8, rate, pitch, pitch_range = 2, 1, 1, 3, 4  # enumerations of speak_lib.h
    found = library.espeak_Initialize(synchronous, 0, espeakng_loader.get_data_path().encode(), 0)
    if found != ESPEAK_SAMPLE_RATE:
        raise CorpusError(
            f"eSpeak NG started with {found} Hz; expected {ESPEAK_SAMPLE_RATE}: reinstall espeakng-loader."
        )
    library.espeak_SetSynthCallback(collect)
    library.espeak_ng_SetRandSeed(ctypes.c_long(SEED))  # else the breath noise follows the clock
    text = clip.sentence.encode()
    steps = [library.espeak_SetVoiceByName(f"{clip.voice.language}+{clip.voice.variant}".encode())]
    for parameter, value in ((rate, clip.rate), (pitch, clip.pitch), (pitch_range, clip.pitch_range)):
        steps.append(library.espeak_SetParameter(parameter, value, 0))
    steps.append(library.espeak_Synth(text, len(text) + 1, 0, 1, 0, utf8, None, None))
    steps.append(library.espeak_Synchronize())
    if any(steps) or not samples:
        raise CorpusError(
            f"eSpeak NG answered {steps} instead of zeros for {clip}: is this voice in its data folder?"
        )
    return bytes(samples)


def shape(spoken: bytes, loudness: float, tilt: float) -> np.ndarray:
    """Resample to 8000 Hz, tilt the spectrum, set the loudness, keep 12 bits: int16 [shape=(samples,)]."""
    waveform = np.frombuffer(spoken, dtype="<i2") / 32768.0
    # Double precision throughout: another processor's rounding must not reach the twelfth bit.
    waveform = soxr.resample(waveform, ESPEAK_SAMPLE_RATE, SAMPLE_RATE, quality="VHQ")
    size = 2 * len(waveform)  # zeros at the end keep the filter from wrapping round
    octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1 / SAMPLE_RATE), 125.0) / 700.0)
    spectrum = np.fft.rfft(waveform, size) * 10 ** (tilt * octaves / 20)
    waveform = np.fft.irfft(spectrum, size)[: len(waveform)]
    waveform *= 10 ** (loudness / 20) / np.sqrt(np.mean(waveform**2))
    scale = 2 ** (SIGNIFICANT_BITS - 1)
    kept = np.clip(np.round(waveform * scale), -scale, scale - 1)
    return (kept * (32768 // scale)).astype(np.int16)


def synthesise(clips: list[PlannedClip]) -> list[np.ndarray]:
    """The finished samples of each clip, int16 at 8000 Hz; every clip is spoken in a fresh process."""
    with get_context("spawn").Pool(processes=2, maxtasksperchild=1) as pool:
        spoken = pool.map(speak, clips, chunksize=1)
    return [shape(raw, clip.loudness, clip.tilt) for raw, clip in zip(spoken, clips, strict=True)]


def lowest_mse(hidden_valences: list[float]) -> float:
    """Mean over the clips of Var(label | hidden valence), the MSE of the best possible predictor.

    A rating is the hidden valence plus the rater's bias plus normal noise, rounded to the nearest half, from
    1 to 5; so the normal distribution gives the probability of each of its nine values. The variance of the
    mean of independent raters is the sum of their variances over the square of their number.
    """
    centres = np.array(hidden_valences)[:, None, None] + np.array(RATER_BIAS)[:, None]
    edges = np.array([-np.inf, *(RATINGS[:-1] + 0.25), np.inf])
    probability = np.diff(norm.cdf(edges, centres, np.array(RATER_NOISE_SD)[:, None]))
    variance = probability @ RATINGS**2 - (probability @ RATINGS) ** 2  # [shape=(clips, raters)]
    return float(variance.sum(axis=1).mean() / len(RATER_BIAS) ** 2)


def make_demo(folder: Path) -> None:
    """Write `audio/*.flac`, `labels.csv` and `corpus.json` into a folder.

    Raises:
        CorpusError: the folder holds audio already, or eSpeak NG is absent.
    """
    audio = folder / "audio"
    if audio.exists():
        raise CorpusError(
            f"{audio} exists already; old clips must not mix with new: remove it or name another folder."
        )
    clips = plan_clips()
    waveforms = synthesise(clips)
    audio.mkdir(parents=True)
    for clip, waveform in zip(clips, waveforms, strict=True):
        soundfile.write(folder / clip.file, waveform, SAMPLE_RATE, subtype="PCM_16", compression_level=1.0)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        raters = [f"valence_a{number}" for number in range(1, len(RATER_BIAS) + 1)]
        columns = ["file", "speaker", "sex", "language", "sentence"]
        writer.writerow([*columns, *raters, "valence", "hidden_valence", "hidden_arousal"])
        for clip in clips:
            about = [clip.file, clip.speaker, clip.voice.sex, clip.voice.language, clip.sentence]
            writer.writerow([*about, *clip.ratings, clip.valence, clip.hidden_valence, clip.hidden_arousal])
    corpus = {
        "name": "demo",
        "synthetic": True,
        "description": "Computer voices (eSpeak NG) reading neutral sentences, with valence ratings that are "
        "simulated: no person spoke and no person rated.",
        "lowest_mse": round(lowest_mse([clip.hidden_valence for clip in clips]), 6),
        "sample_rate": SAMPLE_RATE,
        "clips": len(clips),
        "speakers": len(VOICES),
        "rater_bias": RATER_BIAS,
        "rater_noise_sd": RATER_NOISE_SD,
        "seed": SEED,
    }
    (folder / "corpus.json").write_text(json.dumps(corpus, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the embedded demo corpus again.")
    parser.add_argument(
        "folder", type=Path, metavar="OUT", help="where audio/, labels.csv and corpus.json go"
    )
    make_demo(parser.parse_args().folder)

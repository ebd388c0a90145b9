"""Make pitch.npz: the fundamental frequency of every demo clip by eSpeak NG, its synthesiser, and by Praat.

    pip install espeakng-loader praat-parselmouth==0.4.7
    python tests/goldens/make_pitch.py

It uses the script that made the demo corpus, and nothing else of this project.

eSpeak NG speaks each clip again with an output buffer of 32 samples (1.5 ms). At each buffer, the pitch is
read from its wave generator (`wdata.pitch` in wavegen.c, in Hz * 4096), at an address from the symbol table
of the library in espeakng-loader 0.2.4. The samples must be equal to the demo clip's.

A frame is voiced where the wave generator runs and its harmonics are audible: at most 30 dB below the clip's
loudest frame of harmonics, and louder than all other sound. For this, each clip is spoken once more by a
voice of harmonics only, without noise of consonants, breath and echo.
"""

import ctypes
import shutil
import struct
import tempfile
from multiprocessing import get_context
from pathlib import Path

import espeakng_loader
import numpy as np
import parselmouth
import soundfile
from numpy.typing import NDArray

import valence_lib.corpora.demo
from workflow.make_demo import (
    ESPEAK_SAMPLE_RATE,
    SAMPLE_RATE,
    SEED,
    PlannedClip,
    plan_clips,
    shape,
)

DEMO = Path(valence_lib.corpora.demo.__file__).parent
DESTINATION = Path(__file__).with_name("pitch.npz")
HOP_LENGTH = 128  # samples at 8000 Hz
BUFFER = 64  # bytes: 32 samples
PITCH_OFFSET = 8  # bytes; `pitch` follows a pointer in WGEN_DATA, the type of `wdata`
AUDIBLE = 1e-3  # of the power of the clip's loudest frame
FLOOR, CEILING = 60, 500  # Hz, of Praat's search
ONLY_HARMONICS = b"\nconsonants 0 0\nbreath 0 0 0 0 0 0 0 0\necho 0 0\n"  # appended to a voice, it overrides


def symbols(library: Path) -> dict[str, int]:
    """The address of each symbol of an ELF library (64 bit, little-endian), at its first occurrence."""
    content = library.read_bytes()
    table, size, count = (*struct.unpack_from("<Q", content, 40), *struct.unpack_from("<HH", content, 58))
    sections = [struct.unpack_from("<IIQQQQIIQQ", content, table + size * n) for n in range(count)]
    found: dict[str, int] = {}
    for section in sections:
        if section[1] != 2:  # a table of symbols
            continue
        start, length, names = section[4], section[5], sections[section[6]][4]
        for place in range(start, start + length, 24):
            name, _, _, _, address, _ = struct.unpack_from("<IBBHQQ", content, place)
            text = content[names + name : content.index(b"\0", names + name)].decode()
            found.setdefault(text, address)
    return found


def speak(clip: PlannedClip, data: str) -> tuple[bytes, NDArray[np.float64]]:
    """As `make_demo.speak`, with eSpeak's data in the folder `data`.

    Returns:
        The samples, and the pitch in Hz at each of them [shape=(n_samples,)], 0 where none is generated.
    """
    path = espeakng_loader.get_library_path()
    addresses = symbols(Path(path))
    library = ctypes.CDLL(path)
    base = ctypes.cast(library.espeak_Synth, ctypes.c_void_p).value - addresses["espeak_Synth"]

    def register(name: str, offset: int = 0) -> ctypes.c_int:
        return ctypes.c_int.from_address(base + addresses[name] + offset)

    pitch = register("wdata", PITCH_OFFSET)
    # Both are above 0 only while harmonics are generated: silence and recorded noises set them to 0.
    to_do, done = register("nsamples"), register("samplecount")
    samples, contour = bytearray(), []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def collect(wave: int | None, length: int, _events: int | None) -> int:
        if wave and length > 0:
            samples.extend(ctypes.string_at(wave, 2 * length))
            generated = to_do.value > 0 and done.value > 0
            contour.append(np.full(length, pitch.value / 4096 if generated else 0.0))
        return 0

    assert library.espeak_Initialize(2, 0, data.encode(), 0) == ESPEAK_SAMPLE_RATE
    register("outbuf_size").value = BUFFER
    library.espeak_SetSynthCallback(collect)
    library.espeak_ng_SetRandSeed(ctypes.c_long(SEED))
    text = clip.sentence.encode()
    steps = [library.espeak_SetVoiceByName(f"{clip.voice.language}+{clip.voice.variant}".encode())]
    for parameter, value in ((1, clip.rate), (3, clip.pitch), (4, clip.pitch_range)):
        steps.append(library.espeak_SetParameter(parameter, value, 0))
    steps.append(library.espeak_Synth(text, len(text) + 1, 0, 1, 0, 1, None, None))
    steps.append(library.espeak_Synchronize())
    assert not any(steps), steps
    return bytes(samples), np.concatenate(contour)


def frame_powers(signal: NDArray[np.float64], centres: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean square in Hann windows of 32 ms [shape=(frames,)]."""
    window = np.hanning(257)
    padded = np.pad(signal, (128, 129))
    return np.array([window @ padded[centre : centre + 257] ** 2 for centre in centres]) / window.sum()


def truth(clip: PlannedClip, all_of_it: tuple, harmonics: tuple) -> NDArray[np.float64]:
    """The pitch in Hz at each frame's centre [shape=(frames,)], 0 where no harmonics are audible."""
    recorded, _ = soundfile.read(DEMO / clip.file, dtype="int16")
    (spoken, contour), (pure, _) = all_of_it, harmonics
    again = shape(spoken, clip.loudness, clip.tilt)
    # A small buffer shortens the echo's end and changes the noise of breath, and nothing else.
    n = min(len(again), len(recorded))
    difference = np.std(again[:n].astype(float) - recorded[:n]) / np.std(recorded[:n])
    assert len(recorded) - n < 600 and difference < 0.05, f"a different clip was spoken: {clip}, {difference}"

    whole = recorded.astype(np.float64)
    part = np.zeros(len(whole))
    voice = shape(pure, clip.loudness, clip.tilt)[: len(whole)]
    part[: len(voice)] = voice
    part *= (whole @ part) / (part @ part)  # `shape` made it as loud as the whole
    centres = np.arange(0, len(whole) + 1, HOP_LENGTH)
    power, rest = frame_powers(part, centres), frame_powers(whole - part, centres)
    at = np.minimum(np.round(centres * (ESPEAK_SAMPLE_RATE / SAMPLE_RATE)).astype(int), len(contour) - 1)
    return np.where((power > AUDIBLE * power.max()) & (power > rest), contour[at], 0.0)


def praat(clip: PlannedClip) -> NDArray[np.float64]:
    """Praat's pitch (its method "ac") in Hz at each frame's centre [shape=(frames,)], 0 where unvoiced."""
    samples, rate = soundfile.read(DEMO / clip.file, dtype="float64")
    step = HOP_LENGTH / rate
    padding = 5 * HOP_LENGTH  # Praat has no frames whose window extends beyond the clip
    sound = parselmouth.Sound(np.pad(samples, padding), rate)
    pitch = sound.to_pitch_ac(time_step=step / 4, pitch_floor=FLOOR, pitch_ceiling=CEILING)
    found = pitch.selected_array["frequency"]
    times = (np.arange(0, len(samples) + 1, HOP_LENGTH) + padding) / rate
    nearest = np.round((times - pitch.t1) / pitch.dt).astype(int)
    return np.where((nearest >= 0) & (nearest < len(found)), found[np.clip(nearest, 0, len(found) - 1)], 0.0)


def main() -> None:
    """Write all clips' frames end to end, in tenths of Hz: "espeak", "praat"; "frames": number a clip."""
    clips = plan_clips()
    with tempfile.TemporaryDirectory() as folder:
        quiet = Path(folder) / "espeak-ng-data"
        shutil.copytree(espeakng_loader.get_data_path(), quiet)
        for variant in (quiet / "voices" / "!v").iterdir():
            variant.write_bytes(variant.read_bytes() + ONLY_HARMONICS)
        with get_context("fork").Pool(processes=1, maxtasksperchild=1) as pool:
            complete = pool.starmap(speak, [(clip, espeakng_loader.get_data_path()) for clip in clips], 1)
            harmonics = pool.starmap(speak, [(clip, str(quiet)) for clip in clips], 1)
    contours = [truth(*each) for each in zip(clips, complete, harmonics, strict=True)]
    measured = [praat(clip) for clip in clips]

    def tenths(values: list[NDArray[np.float64]]) -> NDArray[np.uint16]:
        return np.round(10 * np.concatenate(values)).astype(np.uint16)

    frames = np.array([len(contour) for contour in contours], np.uint16)
    np.savez_compressed(DESTINATION, frames=frames, espeak=tenths(contours), praat=tenths(measured))


if __name__ == "__main__":
    main()

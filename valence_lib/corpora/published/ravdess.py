"""RAVDESS: two sentences, spoken by 24 actors in eight emotions and two intensities.

Actor_12/03-01-06-01-02-01-12.wav   modality, channel, emotion, intensity, statement, repetition, actor

The folders of the actors are in Audio_Speech_Actors_01-24 where each archive is unpacked into its own folder.
"""

import re
from pathlib import Path, PurePosixPath

from valence_lib.corpora.labels import LabelRow, Labels
from valence_lib.corpora.published.entry import PublishedCorpus
from valence_lib.corpora.published.label_files import counted, recordings, unread_ratings

_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")
_PLACE = re.compile(r"(audio_(?:speech|song)_actors_01-24/)?Actor_\d\d/[^/]+", re.IGNORECASE)
_SPOKEN_AUDIO = ("03", "01")  # modality audio-only, channel speech
_EMOTIONS = {
    **{"01": "neutral", "02": "calm", "03": "happiness", "04": "sadness"},
    **{"05": "anger", "06": "fear", "07": "disgust", "08": "surprise"},
}
_INTENSITIES = {"01": "normal", "02": "strong"}
_SAME_AUDIO = ("03-01-03-01-02-01-07.wav", "03-01-03-01-02-02-07.wav")


def read(folder: Path, target: str) -> Labels:
    """Read the audio-only speech of RAVDESS from the names of its files.

    Args:
        folder: with the folders Actor_01 to Actor_24, or those of the two archives, which hold them.
        target: "", as RAVDESS has no ratings.
    """
    rows, others, strange = [], [], []
    found = [(file, _PLACE.fullmatch(file)) for file in recordings(folder)]
    # One distribution has the corpus twice: in the folder itself and in Audio_Speech_Actors_01-24.
    is_in_archives = not any(place and not place[1] for _, place in found)
    for file, place in found:
        name = _NAME.fullmatch(PurePosixPath(file).stem)
        if not name or not place or (place[1] and not is_in_archives):
            strange.append(file)
        elif name.groups()[:2] != _SPOKEN_AUDIO:
            others.append(file)
        else:
            rows.append(_row(file, name))
    notes = counted(
        others,
        "recording is video or song and is left out",
        "recordings are video or song and are left out",
    )
    notes += counted(
        strange,
        "recording is left out: it is not in Actor_01 to Actor_24, or its name is not of the published form",
        "recordings are left out: they are not in Actor_01 to Actor_24, or their names are not of the "
        "published form",
    )
    if {PurePosixPath(row.file).name for row in rows}.issuperset(_SAME_AUDIO):
        notes.append(f"{' and '.join(_SAME_AUDIO)} carry the same audio in the published corpus.")
    notes += unread_ratings(folder, [])
    return Labels(rows, "RAVDESS, with the labels in the names of its files", notes)


def _row(file: str, name: re.Match[str]) -> LabelRow:
    emotion, intensity, statement, repetition, actor = name.groups()[2:]
    return LabelRow(
        place="the name of the file",
        file=file,
        labels={
            "speaker": actor,
            "sex": "M" if int(actor) % 2 else "F",
            "language": "en",
            "sentence": statement,
            "emotion": _EMOTIONS.get(emotion, ""),
            "intensity": _INTENSITIES.get(intensity, ""),
            "repetition": repetition,
        },
    )


CORPUS = PublishedCorpus(
    name="RAVDESS",
    marks=("Actor_[0-9][0-9]/03-01-[0-9][0-9]-*.wav",),
    further_marks=(("[Aa]udio_[Ss]peech_[Aa]ctors_01-24/Actor_[0-9][0-9]/03-01-[0-9][0-9]-*.wav",),),
    read=read,
    content="1,440 recordings of 2 sentences in North American English, 24 actors, 8 acted emotions",
    source="https://doi.org/10.5281/zenodo.1188976",
    terms="CC BY-NC-SA 4.0, free to download",
    citation=(
        "Livingstone, S. R., and Russo, F. A. (2018). The Ryerson Audio-Visual Database of Emotional Speech "
        "and Song (RAVDESS): A dynamic, multimodal set of facial and vocal expressions in North American "
        "English. PLoS ONE, 13(5), e0196391."
    ),
)

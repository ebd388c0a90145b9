"""Names of a corpus as text: in Markdown, in figures, and in cells of a spreadsheet."""

import doctest
import json
import random
import string
import subprocess
import unicodedata

import pypandoc
import pytest
from hostile import NAMES

from valence_lib.report import corpus_text
from valence_lib.report.corpus_text import code, figure_labels, literal, plain, spreadsheet_cell, visible
from valence_lib.report.rendering import MARKDOWN

KINDS = {
    "Para",
    "Plain",
    "Header",
    "Str",
    "Space",
    "Span",
    "RawInline",
}  # spans, which CommonMark reads as raw


def _pandoc(markdown):
    """The text and the kinds of elements that pandoc finds."""
    return _text_of(json.loads(pypandoc.convert_text(markdown, "json", format="markdown"))["blocks"])


def _text_of(part):
    """The text and the kinds of elements in a part of pandoc's document."""
    kinds, texts = set(), []

    def walk(node):
        if isinstance(node, list):
            for part in node:
                walk(part)
        elif isinstance(node, dict):
            if "t" in node:
                kinds.add(node["t"])
                texts.append({"Str": node.get("c"), "Space": " "}.get(node["t"], ""))
            walk(node.get("c", []))

    walk(part)
    return "".join(map(str, texts)), kinds


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_literal_is_read_by_pandoc_as_nothing_but_text(name):
    text, kinds = _pandoc(f"A {literal(name)} b")
    assert kinds <= {"Para", "Str", "Space", "Span"}
    assert text.split() == f"A {plain(name)} b".split()


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_literal_is_read_by_commonmark_as_nothing_but_text(name):
    # Jupyter reads Markdown as CommonMark does, and its MathJax finds math between dollars of one element.
    command = ["pandoc", "--from=commonmark_x-smart", "--to=plain", "--wrap=none"]
    command[0] = pypandoc.get_pandoc_path()
    source = f"A {literal(name)} b"
    finished = subprocess.run(command, input=source, capture_output=True, text=True, check=True)
    assert finished.stdout.split() == unicodedata.normalize("NFC", f"A {plain(name)} b").split()
    assert "\\\\(" not in source and "\\\\[" not in source
    assert source.count("$") == source.count("<span>\\$</span>")


def test_ordinary_names_look_as_they_always_did():
    for name in ("DK_001", "audio/DK_001_A_1.flac", "Ann-Marie", "Čapek", "neutral"):
        assert visible(name) == plain(name) == name
        assert _pandoc(literal(name)) == (name, {"Para", "Str"})
        assert code(name) == f"`{name}`"
        assert figure_labels([name]) == [name]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb\tc\x1b[0m\x7f\u2028", "a\\nb\\tc\\x1b[0m\\x7f\\u2028"),
        ("gl\udcfcck.wav", "gl\\xfcck.wav"),  # as os.fsdecode reads a name in Latin-1
        ("\ud83d", "\\ud83d"),
        ("x\u200by\ufeff\u00ad", "x\\u200by\\ufeff\\xad"),
        ("photo\u202egnp.exe\u2066\u200f\u061c", "photognp.exe"),
        ("نام\u200cها", "نام\u200cها"),  # a Persian word needs its joiner
    ],
)
def test_what_cannot_be_seen_is_removed_or_written_out(text, shown):
    assert visible(text) == shown
    shown.encode()  # no lone surrogate is left


def test_names_from_right_to_left_are_isolated_in_sentences():
    assert plain("שלום 12") == "\u2068שלום 12\u2069"
    assert literal("مرحبا!") == "\u2068مرحبا\\!\u2069"
    assert code("שלום.wav") == "\u2068`שלום.wav`\u2069"


def test_a_name_that_cannot_be_code_is_text():
    assert code("a`b") == "a\\`b"
    assert code(" ") == " "


def test_labels_of_a_figure_are_short_and_differ_where_names_do():
    labels = figure_labels(list(NAMES.values()))
    assert len(set(labels)) == len(NAMES)
    assert max(map(len, labels)) <= corpus_text.LONGEST_LABEL + len(" (123456)")
    assert figure_labels(["a", "a", "$x$"]) == ["a", "a", "$x$"]
    assert figure_labels([]) == []


@pytest.mark.parametrize("text", ["=1+1", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "\uff1d1+1", "-"])
def test_a_formula_is_text_in_a_spreadsheet(text):
    assert spreadsheet_cell(text) == f"'{text}"


@pytest.mark.parametrize(
    "text", ["-0.5", "+3", "-1e-3", "-.5", "-12 %", "−0.1", "a=b", "", "–", "0.41 [0.3, 0.5]"]
)
def test_numbers_and_other_texts_stay_in_a_spreadsheet(text):
    assert spreadsheet_cell(text) == text


def test_doctests():
    assert doctest.testmod(corpus_text).failed == 0


# What the readers of Markdown act on, and the characters of which random texts are made.
MARKUP = [
    "1. a",
    "iv. a",
    "(1) a",
    "1) a",
    "- a",
    "+ a",
    "# a",
    ": a",
    "% a",
    "=== a",
    "Table: a",
    "a -- b",
    "...",
]
MARKUP += [
    "www.example.org",
    "see http://example.org/x_y",
    "a_b_ c",
    "_a_ b",
    "a__b__c",
    "&amp;",
    "[a](b)",
    "![a](b)",
]
MARKUP += [
    "@key",
    "a^2^",
    "~~a~~",
    "| a |",
    "a'b",
    '"a"',
    "<b>",
    "`a`",
    "\\alpha",
    "{.a}",
    "#tag",
    ":smile:",
    "a:b",
    "!",
]
CHARACTERS = [*string.punctuation, "a", "B", "1", "i", " ", "www.", "http://"]


def random_texts(n):
    generator = random.Random(0)
    for _ in range(n):
        text = "".join(generator.choices(CHARACTERS, k=generator.randint(1, 10)))
        yield " ".join(text.split()) or "a"


@pytest.mark.parametrize("reader", ["markdown", MARKDOWN, "commonmark_x-smart", "gfm"])
def test_literal_is_nothing_but_text_wherever_it_stands(reader):
    texts = [*MARKUP, *random_texts(600)]
    forms = ["{}", "a {} b", "a ({}) b", "a {}, b", "- a: {}", "# A {}"]
    blocks = [form.format(literal(text)) for text in texts for form in forms]
    expected = [form.lstrip("-# ").format(text) for text in texts for form in forms]
    page = pypandoc.convert_text("\n\n<!-- -->\n\n".join(blocks), "json", format=reader)
    read = [block for block in json.loads(page)["blocks"] if block["t"] != "RawBlock"]
    differing = []
    for block, text, source in zip(read, expected, blocks, strict=True):
        while block["t"] == "BulletList":
            block = block["c"][0][0]
        found, kinds = _text_of(block)
        if " ".join(found.split()) != " ".join(text.split()) or not kinds <= KINDS:
            differing.append((source, found, kinds))
    assert not differing


def test_text_without_markup_stays_as_it_is():
    for text in (
        "18 speakers, 1.5 to 5 (median 3)",
        "CC BY 4.0; cite A. Author.",
        "Made-up tones",
        "50 % of PCM_16 a/b ok",
    ):
        assert literal(text).replace("\\)", ")") == text

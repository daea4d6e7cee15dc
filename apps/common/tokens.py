"""Text as whole numbers and back: characters, words or subwords. No TensorFlow: what runs a `.tflite` file reads this.

Numbers 0 to 3 mean the same in every vocabulary: padding, unknown, begin and end.
"""

import collections
import io
import json
import pathlib

from layers.checking import unknown_name

PADDING, UNKNOWN, BEGIN, END = range(4)
SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")
KINDS = ("characters", "words", "subwords")
_ALPHABET = 8  # at least so many subwords for each character
FILE = "vocabulary"  # .json, or .model of subwords


class Pieces:
    """A list of characters or words, each with its number.

    Args:
        kind: "characters", or "words": what stands between spaces.
        pieces: the list, without the specials, most frequent first.
    """

    def __init__(self, kind, pieces):
        self.kind = kind
        self._pieces = [*SPECIALS, *pieces]
        self._numbers = {piece: number for number, piece in enumerate(self._pieces) if number >= len(SPECIALS)}
        if len(self._numbers) != len(pieces):
            raise ValueError(f"A vocabulary must not name a piece twice, or a special ({', '.join(SPECIALS)}).")

    def __len__(self):
        return len(self._pieces)

    def encode(self, text, *, goes_on=False):
        """Numbers of a text; of pieces that are not in the vocabulary `UNKNOWN`.

        `goes_on`, which says that the text stands in the middle of a line, makes no difference here.
        """
        parts = text.split() if self.kind == "words" else text
        return [self._numbers.get(part, UNKNOWN) for part in parts]

    def decode(self, numbers):
        """The text of numbers, up to the first `END`; padding and begin are left out, an unknown piece is `<unk>`."""
        joint = " " if self.kind == "words" else ""
        return joint.join(self._pieces[number] for number in _content(numbers))

    def piece(self, number):
        """What one number stands for."""
        return self._pieces[number]

    def save(self, folder):
        """Writes `vocabulary.json`."""
        content = {"kind": self.kind, "pieces": self._pieces[len(SPECIALS):]}
        (pathlib.Path(folder) / f"{FILE}.json").write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n",
                                                             encoding="utf-8")


class Subwords:
    """A SentencePiece model (Kudo & Richardson 2018): pieces of words, and spaces, so that any text is given back.

    Args:
        content: bytes of the model.
    """

    kind = "subwords"

    def __init__(self, content):
        self._content = content
        self._processor = _sentencepiece().SentencePieceProcessor(model_proto=content)

    def __len__(self):
        return len(self._processor)

    def encode(self, text, *, goes_on=False):
        """As `Pieces.encode`; unless it `goes_on`, SentencePiece puts a space before a text."""
        if not goes_on:
            return self._processor.encode(text)
        # Behind a character that no line has, and so no piece either.
        pieces, numbers = (self._processor.encode(f"\n{text}", out_type=kind) for kind in (str, int))
        place = next(i for i, piece in enumerate(pieces) if "\n" in piece)
        return numbers[place + (pieces[place] == "\n"):]  # unknown characters in a row are one piece

    def decode(self, numbers):
        """As `Pieces.decode`; an unknown piece is " ⁇ "."""
        return self._processor.decode([int(number) for number in _content(numbers)])

    def piece(self, number):
        """As `Pieces.piece`; ▁ stands for a space."""
        return self._processor.id_to_piece(int(number))

    def save(self, folder):
        """Writes `vocabulary.model`, which SentencePiece on any platform reads."""
        (pathlib.Path(folder) / f"{FILE}.model").write_bytes(self._content)


def learn(kind, lines, size, *, minimum_count=1):
    """A vocabulary of a text.

    Args:
        kind: one of `KINDS`.
        lines: list of texts.
        size: largest number of pieces, with the four specials; 0: as many as there are (not of subwords).
        minimum_count: words and characters that are rarer are left out.

    Raises:
        ValueError: an unknown kind, no text, or a size that SentencePiece cannot reach.
    """
    if kind not in KINDS:
        raise unknown_name("kind of tokens", kind, KINDS)
    if not any(line.strip() for line in lines):
        raise ValueError("A vocabulary needs text; received only empty lines.")
    if kind == "subwords":
        return Subwords(_train_subwords(lines, size))
    counts = collections.Counter()
    for line in lines:
        counts.update(line.split() if kind == "words" else line)
    for special in SPECIALS:  # a corpus may write its own <unk>
        counts.pop(special, None)
    found = sorted((piece for piece, count in counts.items() if count >= minimum_count),
                   key=lambda piece: (-counts[piece], piece))
    return Pieces(kind, found[:max(size - len(SPECIALS), 0)] if size else found)


def load(folder):
    """The vocabulary that `save` wrote.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    folder = pathlib.Path(folder)
    try:
        if (folder / f"{FILE}.model").exists():
            return Subwords((folder / f"{FILE}.model").read_bytes())
        content = json.loads((folder / f"{FILE}.json").read_text(encoding="utf-8"))
        return Pieces(content["kind"], content["pieces"])
    except FileNotFoundError:
        raise ValueError(f"{folder} has no vocabulary: expected {FILE}.json or {FILE}.model, which training leaves "
                         "beside the model.") from None
    except (OSError, KeyError, RuntimeError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"The vocabulary in {folder} cannot be read ({error}). Copy it anew from the run.") from None


def find(model_file, side=""):
    """The folder of the vocabulary of an exported model: its own, `export/` beside it, or one folder up; or the
    subfolder `side` of one of these.

    Raises:
        ValueError: none of them has one.
    """
    here = pathlib.Path(model_file).absolute().parent
    for folder in (place / side for place in (here, here / "export", here.parent, here.parent / "export")):
        if any((folder / f"{FILE}.{ending}").exists() for ending in ("json", "model")):
            return folder
    raise ValueError(f"No vocabulary was found near {model_file}: expected {FILE}.json or {FILE}.model in {here} or "
                     "one folder up. Give its folder with --vocabulary.")


def folders_of_models(config, side="", flags=("initial_model", "distill_teacher")):
    """(flag and value, folder of the vocabulary) of each model that a configuration starts or learns from.

    Args:
        config: with these flags.
        side: subfolder of the vocabulary, where a model has several.
        flags: names of those that hold workdirs or `.keras` files, separated by commas.

    Raises:
        ValueError: a model without a vocabulary.
    """
    found = []
    for flag in flags:
        for name in filter(None, (part.strip() for part in getattr(config, flag).split(","))):
            found.append((f"--{flag}={name}", find(name if name.endswith(".keras") else f"{name}/model.keras", side)))
    return found


def check_same(theirs, ours, what):
    """Raises ValueError unless two vocabularies give every token the same number.

    Args:
        theirs: that of a model.
        ours: that of the data.
        what: how the model was given, for the error.
    """
    if len(theirs) != len(ours) or any(theirs.piece(i) != ours.piece(i) for i in range(len(ours))):
        raise ValueError(f"{what} was trained with another vocabulary ({len(theirs)} tokens; this data has "
                         f"{len(ours)}). Give a model of the same data and --tokens.")


def check_own(folder, model_file, sides=("source", "target")):
    """Raises ValueError where another vocabulary than that of `folder`, which was given, lies beside a model."""
    for side in sides:
        try:
            own = find(model_file, side)
        except ValueError:
            continue
        files = [next(file for file in (place / f"{FILE}.json", place / f"{FILE}.model") if file.exists())
                 for place in (own, pathlib.Path(folder) / side)]
        if files[0].read_bytes() != files[1].read_bytes():
            raise ValueError(f"--vocabulary={folder} is that of another model: {files[1]} differs from {files[0]}, "
                             f"which lies beside --model_file={model_file}. Leave --vocabulary out.")


def check_size(vocabulary, size, where):
    """Raises ValueError unless a vocabulary, read from `where`, has as many tokens as a model has logits."""
    if len(vocabulary) != size:
        raise ValueError(f"The vocabulary in {where} has {len(vocabulary)} tokens, the model {size}: it is that of "
                         "another model. Give the folder that training left beside this one, with --vocabulary.")


def _content(numbers):
    """The numbers of a text up to its end, without padding and begin."""
    for number in numbers:
        if number == END:
            return
        if number not in (PADDING, BEGIN):
            yield int(number)


def _sentencepiece():
    try:
        import sentencepiece
    except ImportError:
        raise ValueError("--tokens=subwords needs the package sentencepiece, which is not installed. Install "
                         "usagi-suite[nlp], or choose --tokens=words.") from None
    return sentencepiece


def _train_subwords(lines, size):
    output = io.BytesIO()
    # Of an alphabet every letter is a token, or texts with a rare one could not be written. Of thousands of characters
    # the rarest are unknown.
    is_alphabet = len(set().union(*lines)) <= size / _ALPHABET
    try:
        _sentencepiece().SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=output, vocab_size=size, model_type="unigram",
            character_coverage=1.0 if is_alphabet else 0.9998, pad_id=PADDING, unk_id=UNKNOWN, bos_id=BEGIN, eos_id=END,
            pad_piece=SPECIALS[0], unk_piece=SPECIALS[1], bos_piece=SPECIALS[2], eos_piece=SPECIALS[3],
            # Text as it is: a normalised translation would never be the reference.
            normalization_rule_name="identity", remove_extra_whitespaces=False, hard_vocab_limit=False,
            num_threads=1, minloglevel=2)  # several threads: another model each time
    except RuntimeError as error:
        raise ValueError(f"SentencePiece cannot make a vocabulary of {size} subwords from this text: {error} Change "
                         "--vocabulary_size.") from None
    return output.getvalue()

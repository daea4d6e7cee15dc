"""A model taken apart (`steps.file_models`), run for one sentence in NumPy: what a program on a phone does.

No TensorFlow: `predict` reads this. S source, L target at most, D features, V vocabulary.
"""

import numpy as np

from apps.common import decoding, tokens
from apps.translation.names import MASK, MEMORY, TOKEN


class Translator:
    """Translates token numbers with the signatures of a file.

    Args:
        runs: {signature: `run(named inputs) -> named outputs`}: "read", "step" and perhaps "read_above".
        inputs: {signature: {input: (shape with the batch of 1, dtype)}}.
        max_length: tokens of a sentence, its end included.

    Attributes:
        num_source: tokens of the source's vocabulary; None of a file, which does not say.
    """

    num_source = None

    def __init__(self, runs, inputs, max_length):
        self._runs, self._inputs, self.max_length = runs, inputs, max_length

    def reads(self, number):
        """Whether there is a source token of this number."""
        if self.num_source is not None:
            return number < self.num_source
        try:
            self.begin([number, tokens.END])
        except (RuntimeError, ValueError):  # LiteRT's, of an index beyond its table
            return False
        return True

    def translate(self, numbers, *, width=0, alpha=0.6, chance=None, **draws):
        """Numbers of the translation.

        Args:
            numbers: those of the source, without its end; what is longer than max_length is cut.
            width: of the beam; 0: greedy.
            alpha: of the beam's length penalty.
            chance, draws: where given, tokens are drawn, as of `decoding.draw`.
        """
        state = self.begin([*numbers[:self.max_length - 1], tokens.END])
        if width:
            return decoding.beam(self.step, state, self.max_length, width=width, alpha=alpha)[0][0]
        if chance is not None:
            return decoding.draw(self.step, state, self.max_length, chance, **draws)
        return decoding.greedy(self.step, state, self.max_length)

    def begin(self, numbers):
        """The state in which the decoder begins, {name: array [1, ...]}, after reading numbers that end with END."""
        known = self._read_all(numbers) if "source" in self._inputs["read"] else self._read_each(numbers)
        return {**self._zeros("step", but=(TOKEN,)), **known}

    def step(self, number, state):
        """(logits [V], next state) after one more token."""
        outputs = dict(self._runs["step"]({TOKEN: np.array([[number]], np.int32), **state}))
        return outputs.pop("logits")[0], {**state, **outputs}

    def _read_all(self, numbers):
        source = np.full((1, self.max_length), tokens.PADDING, np.int32)
        source[0, :len(numbers)] = numbers
        return dict(self._runs["read"]({"source": source}))

    def _read_each(self, numbers):
        both = f"{TOKEN}_back" in self._inputs["read"]
        steps = [{TOKEN: np.array([[number]], np.int32)} for number in numbers]
        if both:
            steps = [{**step, f"{TOKEN}_back": back[TOKEN]} for step, back in zip(steps, reversed(steps))]
        seen, states = self._through("read", steps)
        memory = [outputs[MEMORY] for outputs in seen]  # [1, D] each
        if both:
            back = [outputs[f"{MEMORY}_back"] for outputs in reversed(seen)]
            memory = [np.concatenate(pair, axis=-1) for pair in zip(memory, back)]
        if "read_above" in self._inputs:
            seen, above = self._through("read_above", [{"below": value} for value in memory])
            memory, states = [outputs[MEMORY] for outputs in seen], {**states, **above}
        begin = {name: self._first_state(name, states) for name in self._inputs["step"] if name.startswith("decoder_")}
        if MEMORY in self._inputs["step"]:
            whole = np.zeros(self._inputs["step"][MEMORY][0], np.float32)
            whole[0, :len(memory)] = np.concatenate(memory)
            begin |= {MEMORY: whole, MASK: (np.arange(whole.shape[1]) < len(memory)).astype(np.int32)[None]}
        return begin

    def _through(self, signature, steps):
        """Runs a signature over steps: (outputs of each, last states)."""
        states, seen = self._zeros(signature, but=tuple(steps[0])), []
        for step in steps:
            outputs = self._runs[signature]({**step, **states})
            states = {name: outputs[name] for name in states}
            seen.append(outputs)
        return seen, states

    @staticmethod
    def _first_state(name, states):
        """The decoder's first state `decoder_<k>_state_<i>`: the last one of the encoder, of both directions."""
        own = name.replace("decoder", "encoder")
        back = own.replace("_state", "_back_state")
        return np.concatenate([states[own], states[back]], axis=-1) if back in states else states[own]

    def _zeros(self, signature, but):
        return {name: np.zeros(shape, dtype) for name, (shape, dtype) in self._inputs[signature].items()
                if name not in (*but, MASK, MEMORY)}

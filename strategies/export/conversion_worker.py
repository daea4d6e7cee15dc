"""The process in which models are converted to TFLite; `strategies.export.conversion` starts it and talks to it.

A failing conversion can end the Python process, so it happens in this one. It is run by its path, imports TensorFlow
and nothing of the suite, and reads one JSON request a line from standard input:

    {"saved_model": folder, "signatures": [name, ...], "format": "int8", "output": file, "integer_io": false,
     "representative": {name: .npz file} or null}

For each it writes two JSON lines to standard output: {"begun": true} before the conversion, and {"ok": true} or
{"error": type, "message": text} after it. It ends when standard input ends, which is what happens when the process
that started it is gone, however that came about.
"""

import json
import os
import queue
import sys
import threading

_LARGEST_MESSAGE = 20_000  # characters; what follows is a dump of the graph


def main():
    """Answers requests until standard input ends."""
    # Libraries print to standard output too: keep the answers' channel for ourselves and send the rest to the log.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    requests = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()
    import tensorflow as tf
    while True:
        request = json.loads(requests.get())
        print(json.dumps({"begun": True}), file=answers, flush=True)
        try:
            _convert(tf, request)
            answer = {"ok": True}
        except Exception as error:  # whatever the converter raises is the answer
            answer = {"error": type(error).__name__, "message": str(error)[:_LARGEST_MESSAGE]}
        print(json.dumps(answer), file=answers, flush=True)


def _read(requests):
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)  # also in the middle of a conversion: nobody is left to take it


def _convert(tf, request):
    converter = tf.lite.TFLiteConverter.from_saved_model(request["saved_model"], signature_keys=request["signatures"])
    if request["format"] == "sparse":
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    elif request["format"] != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if request["format"] == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if request["format"] == "int8":
        converter.representative_dataset = lambda: _samples(request["representative"])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if request["integer_io"]:
            converter.inference_input_type = converter.inference_output_type = tf.int8
    if request["format"] == "int16":
        converter.representative_dataset = lambda: _samples(request["representative"])
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8]
    content = converter.convert()
    with open(request["output"], "wb") as file:
        file.write(content)


def _samples(paths):
    import numpy as np
    for signature, path in paths.items():
        with np.load(path) as file:
            arrays = dict(file)
        for i in range(len(next(iter(arrays.values())))):
            sample = {name: array[i:i + 1] for name, array in arrays.items()}
            yield sample if len(paths) == 1 else (signature, sample)


if __name__ == "__main__":
    # Run by its path, Python looks for modules in this folder first, where one could shadow a library.
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    main()

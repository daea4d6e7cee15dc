"""Prints by how many bytes the peak of a process's memory grows when it loads a TFLite file and runs it.

Run by its path with the file as argument, and with "builtin" as a second one to do without the default delegate;
imports the interpreter and nothing of the suite. `strategies.export.litert` starts it.
"""

import os
import re
import resource
import sys

NUM_RUNS = 3
_STATUS = "/proc/self/status"


def main(path, kernels="default"):
    """Loads and runs the file on zeros."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType  # before the first reading: no part of the model

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if kernels == "builtin" else OpResolverType.AUTO
    before = _start()
    interpreter = Interpreter(path, num_threads=1, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():  # else what the memory held: numbers of tokens that do not exist
        interpreter.set_tensor(details["index"], details["dtype"]().repeat(details["shape"].prod()).reshape(
            details["shape"]))
    for _ in range(NUM_RUNS):
        interpreter.invoke()
    print(max(_peak() - before, 0))


def _start():
    """Bytes in use now, from where the peak is counted anew."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # proc(5): resets the peak of resident memory to the present value
    except OSError:
        pass  # not Linux, or not allowed: then the peak so far, which the imports have just set
    return _peak()


def _peak():
    # Linux: the peak of getrusage starts at the size of the process that forked this one, VmHWM at 0.
    try:
        with open(_STATUS) as file:
            return 1024 * int(re.search(r"VmHWM:\s+(\d+)", file.read())[1])
    except OSError:
        kilobytes = 1 if sys.platform == "darwin" else 1024
        return kilobytes * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    # Run by its path, Python looks for modules in this folder first, where one could shadow a library.
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    main(*sys.argv[1:])

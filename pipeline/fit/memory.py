"""How much memory a model's activations take at once: those that live when the most of them do.

What the arena of LiteRT and the allocator of ONNX Runtime aim at. Scratch memory of kernels is not in it.
"""

from collections.abc import Iterable, Sequence

from pipeline.fit.tflite_graph import Graph


def peak_bytes(sizes: Sequence[int], steps: Iterable[tuple[Sequence[int], Sequence[int]]], kept: Iterable[int]) -> int:
    """The most that live at once.

    Args:
        sizes: of each value in bytes, 0 for what is no activation.
        steps: what each operator reads and writes, in the order they run.
        kept: values that live all the time: inputs, outputs and state.
    """
    order = list(steps)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for place, (reads, writes) in enumerate(order):
        for value in (*reads, *writes):
            if 0 <= value < len(sizes) and sizes[value]:
                first.setdefault(value, place)
                last[value] = place
    always = {value for value in kept if 0 <= value < len(sizes)}
    held = sum(sizes[value] for value in always)
    begins: dict[int, int] = {}
    ends: dict[int, int] = {}
    for value, place in first.items():
        if value not in always:
            begins[place] = begins.get(place, 0) + sizes[value]
            ends[last[value]] = ends.get(last[value], 0) + sizes[value]
    peak = alive = held
    for place in range(len(order)):
        alive += begins.get(place, 0)
        peak = max(peak, alive)
        alive -= ends.get(place, 0)
    return peak


def tflite_peak_bytes(graphs: Sequence[Graph]) -> int:
    """Of the main graph, with that of the largest inner one."""
    peaks = []
    for graph in graphs:
        sizes = [0 if tensor.constant else tensor.size_bytes for tensor in graph.tensors]
        state = [place for place, tensor in enumerate(graph.tensors) if tensor.variable]
        steps = [(operator.inputs, operator.outputs) for operator in graph.operators]
        peaks.append(peak_bytes(sizes, steps, {*graph.inputs, *graph.outputs, *state}))
    return peaks[0] + max(peaks[1:], default=0) if peaks else 0

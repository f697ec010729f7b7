"""What a profile says of a quantized model."""

from pipeline.measuring.profile import compared, kinds, reasons
from targets.agent.edge.profiling import nodes
from targets.records import OpTime, Profile


def profile(*ops: tuple[str, str, float]) -> Profile:
    made = tuple(
        OpTime(name=f"n{n}", op=op, dtypes=(dtype,), where="CPU", us=us) for n, (op, dtype, us) in enumerate(ops)
    )
    return Profile(
        target="pi", blob="b", runtime="onnxruntime", runtime_version="1.32.0", delegate="", runs=10, ops=made
    )


def test_the_time_lost_at_boundaries_and_in_float_is_named() -> None:
    found = profile(
        ("QuantizeLinear", "uint8", 20.0), ("QLinearConv", "uint8", 30.0), ("DequantizeLinear", "float", 20.0),
        ("ConvTranspose", "float", 30.0),
    )  # fmt: skip
    lost, fallen = reasons(found)
    assert lost.startswith("40% of the time converts between float and int8, at 2 places")
    assert fallen == "30% of the time is in 1 ops that stayed in float (ConvTranspose)"
    assert reasons(profile(("Conv", "float", 30.0))) == [], "a float model has nothing to explain"
    assert [kind.op for kind in kinds(found)][:2] == ["QLinearConv", "ConvTranspose"]


def test_why_int8_is_slower_than_float() -> None:
    float_model = profile(("Conv", "float", 50.0), ("Relu", "float", 10.0))
    slow = profile(("ConvInteger", "int32", 90.0), ("DynamicQuantizeLinear", "uint8", 30.0))
    (said,) = compared(float_model, slow)
    assert said.startswith("int8 is slower than float here (2.00×): its convolutions and matrix products take 1.8×")
    assert "ms more, mostly converting" in said
    assert compared(slow, float_model) == ["its ops take 0.50× the float model's time"]


def test_the_first_run_of_a_node_does_not_count() -> None:
    arguments = {"op_name": "Conv", "provider": "CPUExecutionProvider", "output_type_shape": [{"uint8": [1]}]}
    events = [
        {"cat": "Node", "name": "a_kernel_time", "dur": us, "args": {**arguments, "node_index": "1"}}
        for us in (900, 5, 7)
    ]
    (found,) = nodes([*events, {"cat": "Session", "name": "model_run", "dur": 1, "args": {}}], 3)
    assert (found["name"], found["us"], found["dtypes"], found["where"]) == ("a", 6.0, ["uint8"], "CPU")

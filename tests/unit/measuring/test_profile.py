"""What a profile says of a quantized model."""

from pipeline.measuring.profile import compared, explained, kinds, reasons
from targets.agent.edge.profiling import nodes
from targets.records import OpTime, Profile


def profile(*ops: tuple[str, str, float], left: tuple[str, ...] = ()) -> Profile:
    made = tuple(
        OpTime(name=f"n{n}", op=op, dtypes=(dtype,) * bool(dtype), where="built-in" if op in left else "CPU", us=us)
        for n, (op, dtype, us) in enumerate(ops)
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
    assert fallen == "30% of the time is in 1 op that stayed in float (ConvTranspose)"
    assert reasons(profile(("Conv", "float", 30.0))) == [], "a float model has nothing to explain"
    assert [kind.op for kind in kinds(found)][:2] == ["QLinearConv", "ConvTranspose"]


def test_why_int8_is_slower_than_float() -> None:
    float_model = profile(("Conv", "float", 50.0), ("Relu", "float", 10.0))
    slow = profile(("ConvInteger", "int32", 90.0), ("DynamicQuantizeLinear", "uint8", 30.0))
    (said,) = compared(float_model, slow)
    assert said.startswith(
        "int8 is slower than float here (2.00×) because its convolutions and matrix products take 1.8×"
    )
    assert said.endswith("converting between float and int8 takes 0.03 ms, at 1 place")
    assert compared(slow, float_model) == ["its ops take 0.50× the float model's time"]


def test_xnnpacks_words_are_understood_and_what_it_did_not_take_is_named() -> None:
    float_model = profile(("Convolution", "float32", 50.0), ("Mean", "", 5.0))
    mixed = profile(
        ("Convert", "", 12.0), ("Convolution", "int8", 20.0), ("CUMSUM", "float32", 40.0), ("Convert", "", 12.0),
        ("Convolution DWConv", "float32", 16.0), left=("CUMSUM",),
    )  # fmt: skip
    converted, fallen, left = reasons(mixed)
    assert converted.startswith("24% of the time converts between float and int8, at 2 places")
    assert fallen == "16% of the time is in 1 op that stayed in float (Convolution DWConv)"
    assert left.startswith("40% of the time is in 1 op that XNNPACK did not take (CUMSUM)")
    (said,) = explained({"litert-int8": mixed, "litert-float32": float_model})
    assert said.startswith(
        "litert-int8: int8 is slower than float here (1.82×) because converting between float and int8"
    )
    assert "XNNPACK does not take 1 op of it (CUMSUM), which costs 0.04 ms more" in said


def test_the_first_run_of_a_node_does_not_count() -> None:
    arguments = {"op_name": "Conv", "provider": "CPUExecutionProvider", "output_type_shape": [{"uint8": [1]}]}
    events = [
        {"cat": "Node", "name": "a_kernel_time", "dur": us, "args": {**arguments, "node_index": "1"}}
        for us in (900, 5, 7)
    ]
    (found,) = nodes([*events, {"cat": "Session", "name": "model_run", "dur": 1, "args": {}}], 3)
    assert (found["name"], found["us"], found["dtypes"], found["where"]) == ("a", 6.0, ["uint8"], "CPU")

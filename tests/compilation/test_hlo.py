"""What is read from the text of compiled programs, on short texts in the compilers' form."""

from ltrobust.compilation import hlo

COLLECTIVES = """\
HloModule jit_stretch

%region_0 (x: f32[], y: f32[]) -> f32[] {
  ROOT %add = f32[] add(%x, %y)
}

%attack.1 (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %x = f32[4]{0} get-tuple-element(%p), index=1
  %all-reduce.1 = f32[4]{0} all-reduce(%x), channel_id=1, to_apply=%region_0
}

%steps.2 (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %while.1 = (s32[], f32[4]{0}) while(%t), condition=%c.1, body=%attack.1, metadata={op_name="x/while"}
  %x = f32[3,3,1,4]{3,2,1,0} convolution(%a, %b)
  %y = bf16[8]{0} convert(%a)
  %z = f32[] constant(0)
  ROOT %both = (f32[3,3,1,4]{3,2,1,0}, /*index=1*/bf16[8]{0}, f32[]) all-reduce(%x, %y, %z), to_apply=%region_0
}

%never (p: f32[4]) -> f32[4] {
  %all-gather.1 = f32[32]{0} all-gather(%x), dimensions={0}
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %while.2 = (s32[], f32[4]{0}) while(%t), condition=%c.2, body=%steps.2
  %x = f32[2]{0:T(8,128)S(1)} slice(%p)
  %copy = (f32[2]{0}, f32[2]{0}, u32[], u32[]) collective-permute-start(f32[2]{0:T(8,128)S(1)} %x), channel_id=1
}
"""

# As libtpu writes it, shortened: a loop over steps, whose length is an argument, around a counted loop of an attack.
TPU = """\
HloModule jit_stretch, is_scheduled=true

%fused_gather (a: u8[1000,64], b: s32[8,1]) -> u8[8,64] {
  ROOT %gather.1 = u8[8,64]{1,0:T(8,128)(4,1)} gather(%a, %b), offset_dims={1}
}

%attack_cond (p: (s32[], f32[8,64])) -> pred[] {
  %constant.10 = s32[]{:T(128)} constant(10), metadata={op_name="jit(chunk)"}
  %counter = s32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%counter, %constant.10), direction=LT
}

%attack_body (p: (s32[], f32[8,64])) -> (s32[], f32[8,64]) {
  %fusion.1 = f32[8,64]{1,0:T(8,128)S(1)} fusion(%x), kind=kLoop, calls=%f1, backend_config={"estimated_cycles":"1000"}
  ROOT %tuple.1 = (s32[]{:T(128)}, f32[8,64]{1,0}) tuple(%i, %fusion.1)
}

%known_body (p: (s32[])) -> (s32[]) {
  %fusion.2 = f32[8]{0} fusion(%x), kind=kLoop, calls=%f2, backend_config={"estimated_cycles":"7"}
}

%rare (p: (f32[8])) -> (f32[8]) {
  %fusion.3 = f32[8]{0} fusion(%x), kind=kOutput, calls=%f3, backend_config={"estimated_cycles":"500"}
}

%usual (p: (f32[8])) -> (f32[8]) {
  %fusion.4 = f32[8]{0} fusion(%x), kind=kOutput, calls=%f4, backend_config={"estimated_cycles":"20"}
}

%steps_cond (p: (s32[], s32[])) -> pred[] {
  %constant.0 = s32[]{:T(128)} constant(0)
  %lt.2 = pred[] compare(%bad, %constant.0), direction=LT
  %lt.3 = pred[] compare(%done, %count), direction=LT
  ROOT %and.1 = pred[]{:T(512)} and(%lt.3, %lt.2)
}

%steps_body (p: (s32[], f32[8,64])) -> (s32[], f32[8,64]) {
  %rows = u8[8,64]{1,0:T(8,128)(4,1)S(1)} fusion(%a, %b), kind=kCustom, calls=%fused_gather, metadata={op_name="w/take"}
  %room = f32[8,64]{1,0} custom-call(), custom_call_target="AllocateBuffer"
  %wrong = f32[8,64]{1,0} fusion(%x), kind=kLoop, calls=%f5, backend_config={"estimated_cycles":"9223372036854775807"}
  %while.1 = (s32[], f32[8,64]{1,0}) while(%t), condition=%attack_cond, body=%attack_body
  %while.2 = (s32[]) while(%t), condition=%c, body=%known_body, backend_config={"known_trip_count":{"n":"3"}}
  %conditional.1 = f32[8]{0} conditional(%p, %a, %b), branch_computations={%rare, %usual}
  %x = f32[16]{0} get-tuple-element(%p), index=1
  %sum = f32[16]{0} all-reduce(%x), to_apply=%region
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %convolution.1 = f32[4]{0:T(128)} convolution(%p, %p), backend_config={"estimated_cycles":"300"}
  %while.3 = (s32[], f32[8,64]{1,0}) while(%t), condition=%steps_cond, body=%steps_body
}
"""


def test_collectives_are_read_with_their_loops_and_sizes():
    result = {(one.kind, one.depth, one.numbers, one.bytes) for one in hlo.Program(COLLECTIVES).collectives()}
    assert result == {
        ("all-reduce", 2, 4, 16),
        ("all-reduce", 1, 36 + 8 + 1, 4 * 37 + 2 * 8),
        ("collective-permute", 0, 2, 8),
    }


def test_a_collective_has_the_size_of_what_a_device_gives():
    """Outputs of these have the parts of all devices, or a part only, or both operand and output."""
    program = hlo.Program("""\
HloModule jit_gather

ENTRY %main (p: f32[8], q: bf16[4]) -> f32[64] {
  %p = f32[8]{0} parameter(0)
  %q = bf16[4]{0} parameter(1)
  %gather.1 = (f32[8]{0}, f32[64]{0}) all-gather-start(%p), replica_groups={{0,1}}, dimensions={0}
  %gather.2 = ((f32[8]{0}, bf16[4]{0}), (f32[64]{0}, bf16[32]{0})) all-gather-start(%p, %q), dimensions={0}
  %gather.3 = f32[64]{0} all-gather-done(%gather.1)
  %gather.4 = f32[64]{0} all-gather(%p), dimensions={0}
  %scatter.1 = f32[1]{0} reduce-scatter(%p), dimensions={0}
}
""")
    result = sorted((one.kind, one.numbers, one.bytes) for one in program.collectives())
    assert result == [("all-gather", 8, 32), ("all-gather", 8, 32), ("all-gather", 12, 40), ("reduce-scatter", 8, 32)]


def test_counted_loops_are_multiplied_and_the_loop_over_steps_counts_one_round():
    assert hlo.Program(TPU).cycles() == hlo.Cycles(once=300, each=10 * 1000 + 3 * 7 + 500)


def test_gathers_and_other_work_without_an_estimate_are_named():
    result = {(one.kind, one.operation, one.bytes, one.depth) for one in hlo.Program(TPU).unpriced()}
    scalars = {("compare", "%lt.1", 1, 2), ("compare", "%lt.2", 1, 1), ("compare", "%lt.3", 1, 1)}
    assert result - scalars == {
        ("gather", "w/take", 512, 1),
        ("fusion", "%wrong", 2048, 1),
        ("all-reduce", "%sum", 64, 1),
        ("and", "%and.1", 1, 1),
    }


def test_float64_is_found_in_shapes_only():
    assert not hlo.Program(TPU).float64
    assert hlo.Program(TPU.replace("f32[4]{0:T(128)} convolution", "f64[4]{0:T(128)} convolution")).float64
    assert not hlo.Program(TPU.replace("w/take", "to_f64")).float64

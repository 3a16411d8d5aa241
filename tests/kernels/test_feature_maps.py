"""Feature maps, and linear attention with them and with a normaliser."""

import pytest
import torch
from torch.nn import functional

from asi_lab.kernels.feature_map import FEATURE_MAPS, feature_map
from asi_lab.kernels.linear_attention import linear_attention

B, T, H, K, V = 2, 40, 2, 5, 6
WIDTHS = {"hedgehog": 2 * K, "dpfp": 2 * K, "taylor": 1 + K + K * (K + 1) // 2}


def make_inputs(name="elu", normalize=False):
    width = WIDTHS.get(name, K)
    inputs = {
        "q": torch.randn(B, T, H, K),
        "k": torch.randn(B, T, H, K),
        "v": torch.randn(B, T, H, V),
        "g": -torch.rand(B, T, H),
        "initial_state": torch.rand(B, H, width, V + normalize),
    }
    return {n: x.double() for n, x in inputs.items()}


@pytest.mark.parametrize("name", FEATURE_MAPS)
def test_width_dtype_sign_and_gradient(name):
    x = (3 * torch.randn(2, 7, K)).double().requires_grad_()
    y = feature_map(x, name)
    assert y.shape == (2, 7, WIDTHS.get(name, K))
    assert feature_map(x.bfloat16(), name).dtype == torch.bfloat16
    if name not in ("identity", "taylor"):
        assert (y >= 0).all()
    if name in ("elu", "softmax", "hedgehog"):
        for far in (-40.0, 40.0):
            assert (feature_map(torch.full((3,), far), name) > 0).all()
    assert torch.autograd.gradcheck(lambda x: feature_map(x, name), x, fast_mode=True)


def test_values():
    x = torch.tensor([-1.0, 2.0])
    expected = {
        "identity": [-1.0, 2.0],
        "relu": [0.0, 2.0],
        "relu2": [0.0, 4.0],
        "elu": [0.3678794, 3.0],
        "softmax": [0.0474259, 0.9525741],
        "hedgehog": [0.0347, 0.6964, 0.2562, 0.0128],  # softmax of -1, 2, 1, -2
        "dpfp": [0.0, 0.0, 2.0, 0.0],  # r = 0, 2, 1, 0
        "taylor": [1.0, -0.8409, 1.6818, 0.5, 2.0, -1.4142],
    }
    assert expected.keys() == FEATURE_MAPS.keys()
    for name, values in expected.items():
        rounding = 1e-6 if name in ("elu", "softmax") else 1e-4
        torch.testing.assert_close(feature_map(x, name), torch.tensor(values), rtol=0, atol=rounding)


def test_taylor_maps_multiply_to_the_expansion_of_exp():
    x, y = torch.randn(2, 9, 7).double()
    s = (x * y).sum(-1) / 7**0.5
    product = (feature_map(x, "taylor") * feature_map(y, "taylor")).sum(-1)
    torch.testing.assert_close(product, 1 + s + s**2 / 2)
    assert (product > 0).all()


@pytest.mark.filterwarnings("ignore:.*checkpoint|None of the inputs")
def test_the_field_s_maps_agree():
    field = pytest.importorskip("fla.modules.feature_map", exc_type=ImportError)
    x = torch.randn(4, 7)
    torch.testing.assert_close(feature_map(x, "dpfp"), field.DPFPFeatureMap(7, nu=1)(x))
    theirs = field.TaylorFeatureMap(7)(x)
    torch.testing.assert_close(feature_map(x, "taylor").sort(-1)[0], theirs.sort(-1)[0])


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("name", FEATURE_MAPS)
def test_chunked_equals_the_reference(name, normalize, assert_same):
    inputs = make_inputs(name, normalize)
    if normalize and name == "identity":  # a normaliser near 0 is nothing to compare
        inputs["q"], inputs["k"] = inputs["q"].abs(), inputs["k"].abs()

    def run(implementation):
        fixed = {"feature_map": name, "normalize": normalize, "implementation": implementation}
        return lambda **leaves: linear_attention(**leaves, **fixed, output_final_state=True)

    assert_same(run("chunk"), run("naive"), inputs, 1e-9)
    assert_same(run("chunk"), run("naive"), inputs, 1e-3, torch.float32)


@pytest.mark.parametrize("implementation", ["naive", "chunk"])
def test_the_normalised_output_is_the_average_by_the_weights(implementation):
    inputs = make_inputs()
    del inputs["initial_state"], inputs["g"]
    q, k = (functional.elu(inputs[name]) + 1 for name in "qk")
    weights = torch.einsum("bihk,bjhk->bhij", q, k).tril()
    expected = torch.einsum("bhij,bjhv->bihv", weights / weights.sum(-1, keepdim=True), inputs["v"])
    o, state = linear_attention(
        **inputs, feature_map="elu", normalize=True, output_final_state=True, implementation=implementation
    )
    torch.testing.assert_close(o, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state[..., -1], k.sum(1), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("implementation", ["naive", "chunk", "auto"])
def test_the_normaliser_is_carried_from_token_to_token(implementation):
    inputs = make_inputs("elu", True)
    fixed = {"feature_map": "elu", "normalize": True, "output_final_state": True}
    whole, last = linear_attention(**inputs, **fixed, implementation="chunk")
    state, outputs = inputs.pop("initial_state"), []
    for t in range(T):
        token = {n: x[:, t : t + 1] for n, x in inputs.items()}
        o, state = linear_attention(**token, **fixed, initial_state=state, implementation=implementation)
        outputs.append(o)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state, last, rtol=1e-10, atol=1e-10)


def test_a_query_that_meets_no_key_reads_zero():
    q = torch.tensor([[[[1.0, 0.0]]]])
    k = torch.tensor([[[[0.0, 1.0]]]])
    o, _ = linear_attention(q, k, torch.ones(1, 1, 1, 3), feature_map="relu", normalize=True)
    assert (o == 0).all()


def test_bfloat16_is_rounded_once_after_the_division():
    q, k, v = (torch.rand(B, T, H, K).bfloat16() for _ in range(3))
    o, state = linear_attention(q, k, v, normalize=True, output_final_state=True)
    exact, _ = linear_attention(q.double(), k.double(), v.double(), normalize=True, implementation="naive")
    assert (o.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(o.double(), exact, rtol=2**-8, atol=1e-6)


def test_the_field_s_normaliser_agrees():
    field = pytest.importorskip("fla.ops.linear_attn.naive", exc_type=ImportError)
    q, k, v = (torch.rand(B, T, H, K) for _ in range(3))
    theirs, _ = field.naive_recurrent_linear_attn(q, k, v, normalize=True)
    torch.testing.assert_close(linear_attention(q, k, v, normalize=True)[0], theirs, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_named():
    inputs = make_inputs()
    with pytest.raises(ValueError, match="feature_map must be one of 'identity'"):
        linear_attention(**inputs, feature_map="cosine")
    with pytest.raises(ValueError, match="initial_state must be"):
        linear_attention(**inputs, feature_map="elu", normalize=True)
    with pytest.raises(ValueError, match="initial_state must be"):
        linear_attention(**inputs, feature_map="taylor")

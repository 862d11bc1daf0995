"""CW-L2 and DeepFool: exact distances on linear models, the published code's verdicts, nothing claimed too early."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ltrobust.attacks import search
from ltrobust.attacks.algorithms import cw_l2, deepfool
from ltrobust.evaluation import protocols
from ltrobust.evaluator import make_evaluator
from ltrobust.threat import Threat

ATTACKS = {
    "cw_l2": (cw_l2.CW_L2, cw_l2.settings()),
    "deepfool": (deepfool.DEEPFOOL, deepfool.settings()),
}


def run(name, logits, images, labels, **changed):
    attack, settings = ATTACKS[name]
    settings = settings | changed
    keys = jax.random.split(jax.random.key(0), len(labels))
    return search.run(
        attack, logits, jnp.asarray(images), jnp.asarray(labels), keys, settings=settings, threat=Threat()
    )


def lengths(points, images) -> np.ndarray:
    return np.sqrt(np.sum((np.asarray(points, float) - images) ** 2, axis=(1, 2, 3)))


def test_deepfool_reaches_the_nearest_boundary_of_a_linear_model_in_one_step(linear):
    linear = linear.rows(slice(0, 1000, 5))
    lanes = run("deepfool", linear.logits, linear.images, linear.labels)
    points = np.asarray(lanes.state.candidate)
    assert np.all((points > 0) & (points < 1))
    ratio = lengths(points, linear.images) / linear.distances("l2")
    np.testing.assert_allclose(ratio, 1.02, rtol=1e-3)
    # Nine gradients, and one look at the point that they lead to.
    np.testing.assert_array_equal(lanes.evaluations, 10)
    np.testing.assert_array_equal(linear.logits(lanes.state.candidate).argmax(1), lanes.state.target)
    assert bool(lanes.state.claimed.all())
    assert not np.any(np.asarray(lanes.state.target) == linear.labels)


def test_deepfool_judges_a_point_that_is_already_wrong_once(linear):
    linear = linear.rows(slice(0, 20))
    wrong = (linear.labels + 1) % 10
    lanes = run("deepfool", linear.logits, linear.images, wrong)
    np.testing.assert_array_equal(lanes.evaluations, 1)
    np.testing.assert_array_equal(lanes.state.candidate, linear.images)


def test_deepfool_ends_after_its_steps_with_the_last_point():
    """On `exp(-8 |x - 1/2|^2)` against a constant that it never reaches, no step crosses."""

    def logits(images):
        bump = jnp.exp(-8 * jnp.sum((images - 0.5) ** 2, axis=(1, 2, 3)))
        return jnp.stack([bump, jnp.full_like(bump, -1.0)], axis=1)

    images = np.full((1, 2, 2, 3), 0.6, np.float32)
    lanes = run("deepfool", logits, images, np.zeros(1, int), steps=jnp.int32(7))
    assert int(lanes.evaluations[0]) == 7
    assert bool(lanes.state.finished[0])
    assert not bool(lanes.state.claimed[0])
    assert lengths(lanes.state.candidate, images)[0] > 0.1


def test_cw_with_small_steps_is_nearly_as_near_as_anything_can_be(linear):
    linear = linear.rows(slice(0, 1000, 20))
    lanes = run("cw_l2", linear.logits, linear.images, linear.labels, c=jnp.float32(1), steps=jnp.int32(1000))
    ratio = lengths(lanes.state.candidate, linear.images) / linear.distances("l2")
    assert bool(lanes.state.claimed.all())
    assert ratio.min() > 1 - 1e-6
    assert np.median(ratio) < 1.02
    assert ratio.max() < 1.25


def test_cw_as_published_breaks_a_linear_model_within_what_its_steps_allow(linear):
    linear = linear.rows(slice(0, 1000, 5))
    lanes = run("cw_l2", linear.logits, linear.images, linear.labels)
    points, exact = np.asarray(lanes.state.candidate), linear.distances("l2")
    assert np.all(linear.logits(points).argmax(1) != linear.labels)
    distances = lengths(points, linear.images)
    assert np.all(distances > exact * (1 - 1e-6))
    # Adam's steps of 0.01 in w move a pixel by at most 0.005 at first; the boundary is crossed at the first iterate
    # beyond it, at worst along the signs of the gradient: sqrt(pi / 2) times the distance, and one step more.
    assert np.all(distances < 1.35 * exact + 2 * 0.005 * np.sqrt(192))
    assert set(np.asarray(lanes.evaluations) % 10) <= {0, 1}


@pytest.mark.parametrize("steps", [1, 7, 20, 45])
def test_cw_ends_where_the_cost_rose_from_one_tenth_of_the_steps_to_the_next(steps):
    image = jnp.full((1, 1, 1), 0.5)
    problem = search.Problem(image, jnp.int32(0), jnp.zeros(2), jax.random.key(0))
    values = np.random.RandomState(0).randint(-9, 10, (50, steps)).astype(np.float32)
    values = np.sort(values, axis=1) + np.random.RandomState(1).randint(-1, 2, (50, steps)).astype(np.float32)
    chosen = cw_l2.settings(c=1.0, steps=steps)

    @jax.jit
    @jax.vmap
    def finished(values):
        def step(state, value):
            # Without a gradient the point stays at the image, and the cost is the objective.
            answer = search.Answer(jnp.array([1.0, 0.0]), value, jnp.zeros_like(image))
            state = cw_l2.advance(problem, state, chosen, Threat(), answer)
            return state, state.finished

        return jax.lax.scan(step, cw_l2.start(problem, chosen, Threat()), values)[1]

    for costs, result in zip(-values, np.asarray(finished(values)), strict=True):
        end, checked = steps - 1, np.inf
        for iteration in range(0, steps, max(steps // 10, 1)):
            if costs[iteration] > checked:
                end = iteration
                break
            checked = costs[iteration]
        assert result.argmax() == end


def test_cw_claims_at_the_end_only_and_leaves_pixels_on_the_bounds_alone(linear):
    linear = linear.rows(slice(0, 1000, 50))
    images = linear.images.copy()
    images[:, 0], images[:, 1] = 0, 1
    attack, settings = ATTACKS["cw_l2"]
    labels = np.asarray(linear.logits(images).argmax(1))
    problem = search.Problem(
        jnp.asarray(images),
        jnp.asarray(labels),
        linear.logits(images),
        jax.random.split(jax.random.key(0), len(images)),
    )
    lanes = search.begin(attack, problem, settings, Threat(), jnp.ones(len(images), bool))
    result = jnp.zeros(len(images), bool)
    advance = jax.jit(lambda lanes: search.work(attack, linear.logits, lanes, settings, Threat(), evaluations=1))
    for _ in range(100):
        lanes = advance(lanes)
        result = result | jnp.isfinite(lanes.state.nearest)
        np.testing.assert_array_equal(lanes.state.claimed, lanes.state.finished & result)
    assert bool(result.all())
    points = np.asarray(lanes.state.candidate)
    np.testing.assert_array_equal(points[:, :2], images[:, :2])


def test_cw_returns_the_image_where_no_iterate_was_wrong(linear):
    linear = linear.rows(slice(0, 20))
    lanes = run("cw_l2", linear.logits, linear.images, linear.labels, c=jnp.float32(1e-6))
    np.testing.assert_array_equal(lanes.state.candidate, linear.images)
    assert not bool(lanes.state.claimed.any())
    assert bool(lanes.state.finished.all())


def test_the_published_masks_read_a_negative_logit_as_zero():
    logits, label = jnp.array([[3.0, -5.0, -7.0], [-3.0, -5.0, -7.0], [1.0, 4.0, -7.0]]), jnp.zeros(3, jnp.int32)
    problem = search.Problem(jnp.zeros((3, 1, 1, 1)), label, logits, jax.random.split(jax.random.key(0), 3))
    settings = cw_l2.settings()
    values = cw_l2.objective(problem, None, settings, logits)
    np.testing.assert_array_equal(values, [-3, 0, 0])
    gradient = jax.grad(lambda z: jnp.sum(cw_l2.objective(problem, None, settings, z)))(logits)
    # Where both are read as zero, or the image is wrong, nothing pulls.
    np.testing.assert_array_equal(gradient, [[-1, 0, 0], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize(("lower", "upper"), [(0, 1), (-1, 3)])
def test_cw_steps_are_those_of_adam_also_where_gradients_are_tiny(lower, upper):
    draws, middle, half = np.random.RandomState(0), (lower + upper) / 2, (upper - lower) / 2
    image, threat = jnp.full((2, 3, 1), middle, jnp.float32), Threat(lower=lower, upper=upper)
    problem = search.Problem(image, jnp.int32(0), jnp.zeros(2), jax.random.key(0))
    # The first around 1e-8, the constant that Adam adds to their root mean square.
    gradients = draws.randn(12, 2, 3, 1)
    gradients[0] *= 10.0 ** draws.uniform(-9, -6, (2, 3, 1))
    chosen = cw_l2.settings(c=0.5, rate=0.02, steps=100)

    def step(state, gradient):
        answer = search.Answer(jnp.array([1.0, 0.0]), jnp.float32(0), gradient)
        state = cw_l2.advance(problem, state, chosen, threat, answer)
        return state, (state.weight, state.point)

    begun = cw_l2.start(problem, chosen, threat)
    weights, points = jax.lax.scan(step, begun, jnp.asarray(gradients, jnp.float32))[1]
    weight = mean = square = np.zeros((2, 3, 1))
    for count, gradient in enumerate(gradients, start=1):
        slope = (2 * half * np.tanh(weight) - 0.5 * gradient) * half * (1 - np.tanh(weight) ** 2)
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        weight = weight - 0.02 * mean / (1 - 0.9**count) / (np.sqrt(square / (1 - 0.999**count)) + 1e-8)
        np.testing.assert_allclose(weights[count - 1], weight, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(points[count - 1], middle + half * np.tanh(weight), atol=1e-5)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_image_does_not_depend_on_its_batch(name, linear):
    linear = linear.rows(np.linspace(0, 999, 64).astype(int))

    def logits(images):
        return jnp.tanh(2 * linear.logits(images))

    whole = run(name, logits, linear.images, linear.labels)
    # The driver's batches are always full: sums over one row would be added in another order.
    for row in (0, 13, 63):
        alone = linear.rows(np.full(64, row))
        repeated = run(name, logits, alone.images, alone.labels)
        np.testing.assert_array_equal(repeated.state.candidate[5], whole.state.candidate[row])
        assert int(repeated.evaluations[5]) == int(whole.evaluations[row])
    order = np.random.RandomState(0).permutation(64)
    shuffled = run(name, logits, linear.images[order], linear.labels[order])
    np.testing.assert_array_equal(shuffled.state.candidate, whole.state.candidate[order])


@pytest.mark.parametrize("name", ATTACKS)
def test_a_constant_network_gives_the_image_and_no_nan(name, linear):
    linear = linear.rows(slice(0, 4))
    lanes = run(name, lambda images: 0.0 * linear.logits(images), linear.images, np.zeros(4, int))
    assert bool(lanes.state.finished.all())
    assert not bool(lanes.state.claimed.any())
    np.testing.assert_array_equal(lanes.state.candidate, linear.images)
    assert not bool(lanes.non_finite.any())


@pytest.mark.parametrize("name", ATTACKS)
def test_points_stay_within_the_bounds(name, linear):
    images = np.clip(4 * (linear.images[:30] - 0.5) + 0.5, 0, 1)
    labels = np.asarray(linear.logits(images).argmax(1))
    lanes = run(name, lambda images: 1e3 * linear.logits(images), images, labels)
    points = np.asarray(lanes.state.candidate)
    assert points.min() >= 0
    assert points.max() <= 1
    assert float(ATTACKS[name][1]["radius"]) == np.inf


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="kappa -1"):
        cw_l2.settings(kappa=-1)
    for changed in ({"c": 0}, {"c": -1}, {"rate": 0}, {"rate": -0.1}, {"steps": 0}, {"steps": -1}):
        with pytest.raises(ValueError, match="c and rate must be positive, kappa at least 0 and steps at least 1"):
            cw_l2.settings(**changed)
    with pytest.raises(ValueError, match="overshoot"):
        deepfool.settings(overshoot=-0.1)
    with pytest.raises(ValueError, match="steps 0"):
        deepfool.settings(steps=0)


def test_settings_on_the_limits_are_allowed():
    assert float(cw_l2.settings(c=1e-9, rate=1e-9, kappa=0, steps=1)["kappa"]) == 0
    assert float(deepfool.settings(steps=1, overshoot=0)["overshoot"]) == 0


@pytest.fixture(scope="module")
def both():
    """A small random convolutional network in JAX and in PyTorch, and 20 images near its boundaries."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: pip install -e '.[torch]'")
    # Threads cost more than they give on networks this small.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    draws = np.random.RandomState(0)
    kernel = (draws.randn(3, 3, 3, 8) / 5).astype(np.float32)
    weights = (draws.randn(72, 5) / 3).astype(np.float32)
    images = draws.uniform(0.2, 0.8, (20, 8, 8, 3)).astype(np.float32)

    def features(images):
        layout = ("NHWC", "HWIO", "NHWC")
        hidden = jax.lax.conv_general_dilated(images, jnp.asarray(kernel), (2, 2), "VALID", dimension_numbers=layout)
        return jax.nn.softplus(hidden).reshape(len(images), -1)

    bias = -np.asarray(features(jnp.asarray(images))).mean(0) @ weights

    def logits(images):
        return features(images) @ weights + bias

    class Network(torch.nn.Module):
        def forward(self, images):
            taps = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
            hidden = torch.nn.functional.softplus(torch.nn.functional.conv2d(images, taps, stride=2))
            flat = hidden.permute(0, 2, 3, 1).reshape(len(images), -1)
            return flat @ torch.from_numpy(weights) + torch.from_numpy(bias)

    network = Network().eval()
    network.device = torch.device("cpu")
    labels = np.array(logits(jnp.asarray(images)).argmax(1))
    labels[0] = (labels[0] + 1) % 5
    yield logits, network, images, labels
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", ATTACKS)
def test_torchattacks_finds_the_same_images_one_by_one(name, both):
    torch = pytest.importorskip("torch")
    torchattacks = pytest.importorskip("torchattacks", reason="needs torchattacks 3.5.1")
    logits, network, images, labels = both
    if name == "cw_l2":
        theirs = torchattacks.CW(network, c=10, kappa=0, steps=100, lr=0.01)
    else:
        theirs = torchattacks.DeepFool(network, steps=50, overshoot=0.02)
    points = []
    for image, label in zip(images, labels, strict=True):
        result = theirs(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()), torch.tensor([int(label)]))
        points.append(result.detach().numpy()[0].transpose(1, 2, 0))
    points = np.stack(points)
    lanes = run(name, logits, images, labels)
    ours = lanes.state.candidate
    np.testing.assert_array_equal(logits(ours).argmax(1) != labels, logits(jnp.asarray(points)).argmax(1) != labels)
    np.testing.assert_allclose(lengths(ours, images), lengths(points, images), atol=1e-3)
    assert np.mean(lengths(points, images) > 0.05) > 0.5


def test_the_evaluation_judges_attacks_without_a_radius(linear, tmp_path):
    linear = linear.rows(slice(0, 1000, 25))
    taet = protocols.get("legacy_taet/b1")
    attacks = tuple(attack for attack in taet.attacks if attack.name in ATTACKS)
    evaluator = make_evaluator(
        lambda variables, images: linear.logits(images),
        protocol=protocols.Protocol("two", attacks, radius=8),
        threat=Threat(),
        num_classes=10,
        batch_size=64,
    )
    result = evaluator((), linear.images, linear.labels, store=tmp_path / "store")
    again = evaluator((), linear.images, linear.labels, store=tmp_path / "store")
    for name in ATTACKS:
        assert not result.correct(name).any()
        assert result.records[name]["norm"].max() > Threat().epsilon
        np.testing.assert_array_equal(result.records[name]["norm"], again.records[name]["norm"])
    assert result.max_violation == 0
    np.testing.assert_array_equal(result.records["deepfool"]["target"], result.predictions["deepfool"])

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vrprm_reward.images import PixelLimits

SIDES = st.integers(4, 5000)


@pytest.fixture(scope="module")
def smart_resize():
    name = "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl"
    return pytest.importorskip(name).smart_resize


@given(
    width=SIDES,
    height=SIDES,
    multiple=st.sampled_from([1, 14, 28, 32]),
    least=st.integers(1, 10**7),
    more=st.integers(1, 10**7),
)
def test_sizes_are_those_of_the_models_own_processor(
    smart_resize, width, height, multiple, least, more
):
    assume(max(width, height) <= 200 * min(width, height))
    most = max(least, multiple**2) + more
    limits = PixelLimits(min_pixels=least, max_pixels=most, multiple_of=multiple)
    assert limits.fit(width, height)[::-1] == smart_resize(height, width, multiple, least, most)


@given(SIDES, SIDES, st.sampled_from([1, 14, 28, 32]), st.integers(1, 10**6), st.floats(1, 50))
def test_fitting_twice_is_fitting_once(width, height, multiple, least, roominess):
    assume(max(width, height) <= 200 * min(width, height))
    most = int(max(4 * least, 200 * multiple**2) * roominess)
    limits = PixelLimits(min_pixels=least, max_pixels=most, multiple_of=multiple)
    once = limits.fit(width, height)
    assert limits.fit(*once) == once
    assert all(side % multiple == 0 for side in once)

"""Average pooling against one Python float32 at a time."""

from __future__ import annotations

import numpy as np
import pytest

from ohmfold.kernels.average import average_pool, window_counts, window_extents

f32 = np.float32
SCALES = {"input_scale": f32(0.03), "input_zero_point": 5, "output_scale": f32(0.02), "output_zero_point": 7}


def slowly(row, kernel, stride, pads, windows, *, count_include_pad):
    """One row of uint8 codes, each float operation on its own."""
    result = []
    for window in range(windows):
        total, inside = f32(0), 0
        for place in range(window * stride - pads[0], window * stride - pads[0] + kernel):
            if 0 <= place < len(row):
                total, inside = total + f32(int(row[place]) - 5) * f32(0.03), inside + 1
        average = total / f32(kernel if count_include_pad else inside)
        result.append(int(np.clip(np.rint(average / f32(0.02) + f32(7)), 0, 255)))
    return result


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_every_window_is_summed_in_order(ceil_mode, count_include_pad):
    rng = np.random.default_rng(0)
    for kernel, stride, pads, length in ((3, 2, (1, 1), 10), (4, 3, (2, 1), 12), (1, 1, (0, 0), 5)):
        x = rng.integers(0, 256, (2, 3, length), dtype=np.uint8)
        modes = {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
        found = average_pool(x, (kernel,), (stride,), pads, **modes, **SCALES)
        for sample, channel in np.ndindex(2, 3):
            row = x[sample, channel]
            expected = slowly(row, kernel, stride, pads, found.shape[2], count_include_pad=count_include_pad)
            assert found[sample, channel].tolist() == expected


def test_a_last_window_that_is_not_whole_divides_by_what_it_holds():
    windows, widths = window_extents((5,), (2,), (2,), (0, 0), ceil_mode=True)
    assert (windows, widths) == ((3,), ((0, 1),))
    counts = window_counts((5,), (2,), (2,), (0, 0), ceil_mode=True, count_include_pad=False)
    assert counts.tolist() == [2, 2, 1]


def test_settings_for_other_axes_are_refused():
    x = np.zeros((1, 1, 4, 4), np.uint8)
    with pytest.raises(ValueError, match="zip"):
        average_pool(x, (2,), (2,), (0, 0), ceil_mode=False, count_include_pad=False, **SCALES)

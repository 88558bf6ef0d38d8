"""Connected components that are found strip by strip, and cleaning."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import MASKS
from scipy import ndimage
from skimage.measure import label

from onelabel import components
from onelabel.components import BESIDE, TOUCHING, Components, is_background, is_object
from onelabel.image import NODATA
from onelabel.store import Store


pytestmark = pytest.mark.usefixtures("low_strips")


def numbered(mask, chosen, structure):
    """Number the components of a mask: (H, W), from 1."""
    found = Components(Store(mask), chosen, structure)
    strips = list(found.strips())
    return np.concatenate([strip.of_labels(found.numbers() + 1) for strip in strips])


@given(MASKS)
def test_components_are_those_of_the_whole_mask_in_its_order(mask):
    expected = label(is_object(mask), connectivity=2)
    np.testing.assert_array_equal(numbered(mask, is_object, TOUCHING), expected)
    expected = label(is_background(mask), connectivity=1)
    np.testing.assert_array_equal(numbered(mask, is_background, BESIDE), expected)
    assert components.count(Store(mask)) == label(is_object(mask)).max()


@given(MASKS, st.integers(1, 40))
def test_objects_under_the_area_are_removed_and_no_other(mask, area):
    store = Store(mask.copy())
    components.remove_small(store, area)
    objects = label(is_object(mask), connectivity=2)
    small = (np.bincount(objects.ravel()) < area)[objects] & (objects > 0)
    np.testing.assert_array_equal(store.mask, np.where(small, 0, mask))


@given(MASKS, st.integers(1, 40))
def test_holes_under_the_area_are_filled_and_no_other(mask, area):
    store = Store(mask.copy())
    components.fill_small(store, area)
    expected = mask.copy()
    parts, count = ndimage.label(mask != 1)
    ring = np.ones(mask.shape, bool)
    ring[1:-1, 1:-1] = False
    for number in range(1, count + 1):
        part = parts == number
        is_open = (part & ring).any() or (mask[part] == NODATA).any()
        if part.sum() < area and not is_open:
            expected[part] = 1
    np.testing.assert_array_equal(store.mask, expected)


@given(MASKS, st.integers(1, 40))
def test_to_clean_twice_changes_nothing(mask, area):
    store = Store(mask.copy())
    components.remove_small(store, area)
    components.fill_small(store, area)
    once = store.mask.copy()
    components.remove_small(store, area)
    components.fill_small(store, area)
    np.testing.assert_array_equal(store.mask, once)

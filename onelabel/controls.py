"""The notebooks' live controls: sliders that act when they are let go, and pictures."""

from typing import Any

import ipywidgets as widgets


SLIDERS = (
    widgets.IntSlider,
    widgets.FloatSlider,
    widgets.FloatLogSlider,
    widgets.SelectionSlider,
)


def control(kind: type, name: str, tooltip: str, **more: Any) -> widgets.Widget:
    """Make a control of a kind, such as `ipywidgets.IntSlider`."""
    return kind(
        description=name,
        tooltip=tooltip,
        layout={"width": "400px"},
        style={"description_width": "110px"},
        **{"continuous_update": False} if issubclass(kind, SLIDERS) else {},
        **more,
    )


def picture(width: str, height: str) -> widgets.Image:
    """Make a place for a picture, of a size that stays."""
    size = {"width": width, "min_width": "360px", "height": height, "margin": "0"}
    fit = {"object_fit": "contain", "object_position": "left top"}
    return widgets.Image(format="png", layout={**size, **fit})


def row(*parts: widgets.Widget) -> widgets.HBox:
    """Set widgets side by side; on a narrow page, below each other."""
    return widgets.HBox(parts, layout={"flex_flow": "row wrap"})

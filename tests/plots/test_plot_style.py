from matplotlib import pyplot

from saddlescope.plots.style import COLOURS, HEIGHT, WIDTH, colour, new_axes


def test_axes_belong_to_no_global_state():
    axes = new_axes()
    assert pyplot.get_fignums() == []
    assert axes.figure.get_size_inches().tolist() == [WIDTH, HEIGHT]


def test_a_lighter_colour_lies_between_the_colour_and_white():
    dark, light = (int(colour("SAM", lightness=x)[1:3], 16) for x in (0.0, 0.5))
    assert dark < light < 255
    assert colour("SAM") == COLOURS["SAM"]

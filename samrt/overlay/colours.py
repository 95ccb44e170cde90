"""The colours of masks, marks and captions."""

from __future__ import annotations

Colour = tuple[int, int, int]

# Okabe and Ito's palette for all kinds of colour vision (jfly.uni-koeln.de/color), lightened for photographs and
# without its black; neighbours in this order differ most.
PALETTE: tuple[Colour, ...] = (
    (64, 156, 255),
    (255, 159, 28),
    (0, 190, 140),
    (226, 121, 186),
    (250, 230, 70),
    (232, 84, 20),
    (120, 208, 250),
)
WHITE: Colour = (255, 255, 255)
DARK: Colour = (16, 18, 24)


def colour_of(index: int) -> Colour:
    return PALETTE[index % len(PALETTE)]


def lighter(colour: Colour) -> Colour:
    red, green, blue = (round(0.65 * value + 0.35 * 255) for value in colour)
    return red, green, blue

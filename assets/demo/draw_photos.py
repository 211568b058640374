#!/usr/bin/env python3
"""Draws the four pictures of a toy duck in photos/ that `make demo` trains on: circles and triangles, nothing else.

The files are committed; run this only to change them. It needs nothing but Python.
"""

import struct
import zlib
from pathlib import Path

WIDTH, HEIGHT = 192, 160
SAMPLES = 4  # a side of the grid of samples in each pixel, for smooth edges

YELLOW, SHADE, ORANGE, BLACK = (250, 205, 40), (222, 168, 30), (240, 120, 30), (25, 25, 30)

# Sky or wall, water or table, middle of the body, size, and whether the duck looks to the left.
SCENES = {
    "bath": ((205, 228, 238), (120, 185, 220), (98, 96), 1.0, False),
    "desk": ((196, 178, 158), (122, 84, 54), (84, 100), 0.85, True),
    "grass": ((150, 200, 240), (96, 150, 70), (112, 102), 0.75, False),
    "night": ((30, 34, 66), (20, 54, 78), (94, 92), 1.1, True),
}


def circle(x, y, centre_x, centre_y, radius_x, radius_y):
    return ((x - centre_x) / radius_x) ** 2 + ((y - centre_y) / radius_y) ** 2 <= 1


def triangle(x, y, corners):
    sides = [
        (x - ax) * (by - ay) - (y - ay) * (bx - ax)
        for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1])
    ]
    return all(s >= 0 for s in sides) or all(s <= 0 for s in sides)


def duck(x, y):
    """The duck's colour at a point of its own frame, where the body is 100 wide around the origin; None outside."""
    if circle(x, y, 40, -46, 5, 6):
        return BLACK
    if circle(x, y, 66, -34, 15, 6):
        return ORANGE
    if circle(x, y, -8, 2, 24, 13):
        return SHADE
    if circle(x, y, 32, -40, 25, 24) or circle(x, y, 0, 0, 52, 32):
        return YELLOW
    if triangle(x, y, [(-62, -34), (-20, -16), (-44, 14)]):
        return YELLOW
    return None


def colour(scene, x, y):
    back, ground, (middle_x, middle_y), size, left = scene
    own_x = (x - middle_x) / size * (-1 if left else 1)
    found = duck(own_x, (y - middle_y) / size)
    return found or (ground if y > middle_y + 18 * size else back)


def png(scene):
    rows = bytearray()
    for y in range(HEIGHT):
        rows.append(0)  # no filter
        for x in range(WIDTH):
            samples = [
                colour(scene, x + (i + 0.5) / SAMPLES, y + (j + 0.5) / SAMPLES)
                for i in range(SAMPLES)
                for j in range(SAMPLES)
            ]
            rows.extend(round(sum(s[c] for s in samples) / len(samples)) for c in range(3))

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(rows), 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def main():
    folder = Path(__file__).parent / "photos"
    folder.mkdir(exist_ok=True)
    for name, scene in SCENES.items():
        (folder / f"{name}.png").write_bytes(png(scene))


if __name__ == "__main__":
    main()

"""Objects built of parts: furniture, animals, vehicles, figures, tools, houses, mugs, aircraft."""

import numpy as np

from . import shapes
from .mesh import rotation


def furniture(b) -> None:
    """Table, chair, shelf or sofa with uneven extras."""
    r = b.rng
    kind = r.integers(4)
    wide, deep = r.uniform(0.6, 1.2), r.uniform(0.5, 1.0)
    if kind < 2:  # table or chair
        top = r.uniform(0.0, 0.3)
        b.add_box((wide, deep, 0.1), (0, 0, top), faces=2)
        leg = b.pick()
        thick = r.uniform(0.03, 0.08)
        for x in (-1, 1):
            for y in (-1, 1):
                foot = (x * wide * 0.43, y * deep * 0.43)
                b.add(shapes.limb((*foot, top), (*foot, -0.8), thick, thick * 0.7, 8), leg)
        if kind == 1:
            b.add_box((wide, 0.09, r.uniform(0.5, 0.9)), (0, deep * 0.47, top + 0.4), faces=2)
            if r.random() < 0.5:
                b.add_box((0.1, deep, 0.1), (wide * 0.46, 0, top + 0.3))
        else:
            _heap(b, top + 0.05, wide * 0.4, deep * 0.4)
    elif kind == 2:  # shelf
        high = r.uniform(1.0, 1.8)
        back = b.pick()
        b.add(shapes.box((wide, 0.05, high)).transformed(None, (0, deep * 0.3, 0)), back)
        for x in (-1, 1):
            b.add_box((0.06, deep * 0.6, high), (x * wide / 2, 0, 0))
        rows = int(r.integers(2, 5))
        for k in range(rows + 1):
            z = -high / 2 + high * k / rows
            b.add(shapes.box((wide, deep * 0.6, 0.05)).transformed(None, (0, 0, z)), back)
            for _ in range(int(r.integers(0, 4)) if k < rows else 0):
                size = r.uniform(0.08, 0.3, 3) * (1, 1, 1.2 * high / rows)
                at = (r.uniform(-0.4, 0.4) * wide, 0, z + 0.03 + size[2] / 2)
                b.add_box(size, at, faces=2)
    else:  # sofa
        b.add_box((wide * 1.5, deep, 0.35), (0, 0, -0.3), faces=2)
        b.add_box((wide * 1.5, 0.22, 0.8), (0, deep * 0.5, -0.05), faces=2)
        for x, high in ((-1, 0.5), (1, r.choice([0.3, 0.7]))):
            b.add_box((0.2, deep, high), (x * wide * 0.75, 0, -0.1))
        cushion = shapes.superquadric((0.22, 0.1, 0.22), 0.6, 0.6, 16, 24)
        b.add(cushion.transformed(rotation((1, 0, 0), -0.3), (r.uniform(-0.4, 0.4), 0.2, 0.05)))


def _heap(b, z: float, x: float, y: float) -> None:
    """One to three small things standing on the plane z."""
    for _ in range(int(b.rng.integers(1, 4))):
        high = b.rng.uniform(0.12, 0.4)
        at = (b.rng.uniform(-x, x), b.rng.uniform(-y, y), z + high / 2)
        if b.rng.random() < 0.5:
            b.add_box((*b.rng.uniform(0.1, 0.35, 2), high), at, faces=3)
        else:
            body = shapes.cylinder(b.rng.uniform(0.06, 0.16), high, None, 20)
            b.add(body.transformed(None, at))


def animal(b) -> None:
    """Four or two legs, neck, head with a muzzle, ears and a tail."""
    r = b.rng
    fur, other = b.texture(), b.pick()
    length, girth, leg = r.uniform(0.5, 0.9), r.uniform(0.2, 0.42), r.uniform(0.25, 0.8)
    body = shapes.superquadric((length, girth, girth * r.uniform(0.8, 1.2)), 0.9, 0.9)
    b.add(body, fur, stretch=False)
    for x in (-1, 1):
        for y in (-1, 1):
            hip = np.array([x * length * 0.6, y * girth * 0.6, -girth * 0.4])
            foot = np.add(hip, (r.normal(0, 0.08), 0, -leg))
            b.add(shapes.limb(hip, foot, 0.12, 0.07), fur if r.random() < 0.8 else other)
    head = np.array([length + r.uniform(0.1, 0.3), 0, r.uniform(0.1, 0.9)])
    b.add(shapes.limb((length * 0.7, 0, 0.05), head, girth * 0.55, girth * 0.4), fur)
    size = girth * r.uniform(0.6, 0.95)
    b.add(shapes.ellipsoid((size * 1.2, size, size)).transformed(None, head), b.pick(0.4))
    muzzle = np.add(head, (size * 1.1, 0, -0.2 * size))
    b.add(shapes.ellipsoid((size * 0.7, size * 0.5, size * 0.45)).transformed(None, muzzle), other)
    for y in (-1, 1):
        ear = np.add(head, (-0.2 * size, y * 0.6 * size, 0.7 * size))
        tip = np.add(ear, (r.normal(0, 0.05), y * 0.1, r.uniform(0.1, 0.5)))
        b.add(shapes.limb(ear, tip, 0.09, 0.03, 8), other)
        eye = np.add(head, (0.85 * size, y * 0.55 * size, 0.45 * size))
        b.add(shapes.ellipsoid([0.06] * 3, 8, 10).transformed(None, eye), b.texture('plain'))
    bend = np.linspace(0, 1, 8)[:, None]
    tail = np.array([-length, 0, 0.1]) + bend * (-r.uniform(0.2, 0.7), 0, 0)
    tail = tail + bend**2 * (0, r.uniform(-0.3, 0.3), r.uniform(-0.3, 0.6))
    b.add(shapes.tube(tail, np.linspace(0.09, 0.03, 8), 10), fur)


def vehicle(b) -> None:
    """Car, van or truck: body, cabin, wheels, load, lights."""
    r = b.rng
    length, wide, high = r.uniform(0.8, 1.1), r.uniform(0.35, 0.5), r.uniform(0.15, 0.3)
    paint = b.texture()
    body = shapes.superquadric((length, wide, high), 0.35, r.uniform(0.2, 0.6))
    if r.random() < 0.4:
        body = shapes.box((2 * length, 2 * wide, 2 * high))
    b.add(body, paint, stretch=False)
    cabin = shapes.box((r.uniform(0.5, 1.1), 1.7 * wide, 0.5), r.uniform(0.6, 0.95))
    b.add(cabin.transformed(None, (r.uniform(-0.35, 0.4), 0, high + 0.2)), b.pick())
    if r.random() < 0.5:
        b.add_box((0.7, 1.5 * wide, r.uniform(0.2, 0.6)), (-length * 0.55, 0, high + 0.2), faces=4)
    tyre, hub = b.texture('plain'), b.pick()
    for x in (-0.6, 0.62):
        for y in (-1, 1):
            turn = rotation((1, 0, 0), -y * np.pi / 2)
            at = np.array([x * length, y * wide, -high])
            radius = r.uniform(0.2, 0.24)
            b.add(shapes.cylinder(radius, 0.16, None, 24).transformed(turn, at), tyre)
            b.add(shapes.cylinder(radius * 0.6, 0.19, None, 16).transformed(turn, at), hub)
    lamp = b.texture('plain')
    for y in (-1, 1):
        light = shapes.ellipsoid((0.06, 0.09, 0.07), 8, 12)
        b.add(light.transformed(None, (length * 0.96, y * wide * 0.6, 0)), lamp)
    b.add(shapes.cylinder(0.03, 0.5, 0.01, 8).transformed(None, (-0.5, wide * 0.6, high + 0.5)))


def figure(b) -> None:
    """Doll or robot in a random posture."""
    r = b.rng
    shirt, skin = b.texture(), b.texture('plain' if r.random() < 0.5 else None)
    square = r.random() < 0.4
    if square:
        b.add_box((0.5, 0.32, 0.6), faces=3)
        b.add_box((0.36, 0.32, 0.32), (0, 0, 0.52), faces=4)
    else:
        torso = shapes.superquadric((0.27, 0.18, 0.36), 0.7, 0.8, 20, 32)
        b.add(torso, shirt, stretch=False)
        head = shapes.ellipsoid((0.19, 0.2, 0.23)).transformed(None, (0, 0, 0.56))
        b.add(head, skin)
        b.add(shapes.ellipsoid((0.2, 0.19, 0.14)).transformed(None, (0, -0.05, 0.68)))
        b.add(shapes.ellipsoid((0.04, 0.07, 0.04), 8, 12).transformed(None, (0, 0.2, 0.55)))
    trousers = b.pick()
    for x in (-1, 1):
        shoulder, hip = np.array([x * 0.27, 0, 0.25]), np.array([x * 0.13, 0, -0.3])
        elbow = np.add(
            shoulder, (x * r.uniform(0.02, 0.3), r.uniform(-0.2, 0.3), r.uniform(-0.3, 0.2))
        )
        hand = np.add(elbow, (x * r.uniform(-0.1, 0.2), r.uniform(0, 0.3), r.uniform(-0.2, 0.3)))
        b.add(shapes.limb(shoulder, elbow, 0.09, 0.07), shirt)
        b.add(shapes.limb(elbow, hand, 0.07, 0.06), skin)
        knee = np.add(hip, (x * 0.05, r.uniform(-0.1, 0.3), -0.35))
        foot = np.add(knee, (0, r.uniform(-0.25, 0.05), -0.35))
        b.add(shapes.limb(hip, knee, 0.12, 0.09), trousers)
        b.add(shapes.limb(knee, foot, 0.09, 0.07), trousers)
        shoe = shapes.ellipsoid((0.09, 0.17, 0.07), 10, 14)
        b.add(shoe.transformed(None, np.add(foot, (0, 0.08, -0.04))))
    if r.random() < 0.6:
        b.add_box((0.34, 0.16, 0.4), (0, -0.25, 0.05), faces=2)


def tool(b) -> None:
    """Hammer, brush, spanner or camera: a grip and a head."""
    r = b.rng
    if r.random() < 0.4:  # camera-like
        b.add_box((1.2, 0.5, 0.8), faces=4)
        turn = rotation((1, 0, 0), -np.pi / 2)
        at = (r.uniform(-0.25, 0.25), 0.4, r.uniform(-0.1, 0.1))
        b.add(shapes.cylinder(0.3, 0.5, 0.26).transformed(turn, at))
        b.add(shapes.cylinder(0.22, 0.53, 0.2).transformed(turn, at), b.texture('plain'))
        b.add_box((0.4, 0.3, 0.2), (r.uniform(-0.3, 0.3), 0, 0.5))
        b.add(shapes.cylinder(0.09, 0.12, None, 16).transformed(None, (0.45, 0, 0.45)))
        return
    bend = np.linspace(0, 1, 8)
    path = np.stack([-1 + 1.6 * bend, 0.2 * r.normal() * bend**2, 0 * bend], axis=1)
    b.add(shapes.tube(path, np.interp(bend, [0, 0.5, 1], r.uniform(0.08, 0.17, 3)), 16))
    size = r.uniform(0.12, 0.4, 3)
    b.add_box(2 * size * (0.7, 1.6, 0.7), path[-1] + (0.1, 0.1, 0), faces=3, taper=0.8)
    if r.random() < 0.6:
        claw = shapes.limb(path[-1], path[-1] + (0.3, -0.6, 0.1), 0.14, 0.04)
        b.add(claw)
    b.add(shapes.torus(0.13, 0.04, segments=20).transformed(None, path[0]))


def house(b) -> None:
    """House with a gabled roof, chimney, door, windows and an annexe (test split only)."""
    r = b.rng
    w, d, h = r.uniform(0.6, 1.0), r.uniform(0.5, 0.8), r.uniform(0.5, 0.9)
    b.add_box((w, d, h), faces=3)
    gable = np.array([[w * 0.58, -0.02], [0, r.uniform(0.25, 0.5)], [-w * 0.58, -0.02]])
    roof = shapes.extrude(gable, d * 1.15).transformed(rotation((1, 0, 0), np.pi / 2))
    b.add(roof.transformed(None, (0, 0, h / 2)))
    b.add_box((0.12, 0.12, 0.4), (w * 0.25, d * 0.2, h / 2 + 0.3))
    b.add_box((0.16, 0.04, 0.32), (r.uniform(-0.2, 0.2), -d / 2, -h / 2 + 0.16))
    for x in (-0.3, 0.3):
        b.add_box((0.15, 0.03, 0.15), (x * w, -d / 2, h * 0.15))
        b.add_box((0.03, 0.15, 0.2), (w / 2, x * d, h * 0.1))
    b.add_box((w * 0.5, d * 0.7, h * 0.5), (-w * 0.7, 0.05, -h * 0.25), faces=2)


def mug(b) -> None:
    """Hollow mug with one handle and a printed side (test split only)."""
    r = b.rng
    top, high = r.uniform(0.5, 0.7), r.uniform(0.6, 0.9)
    base = top * r.uniform(0.7, 1.05)
    outer = [[0, -high], [base, -high], [base + 0.3 * (top - base), -high / 3], [top, high]]
    inner = [[top - 0.06, high], [base - 0.06, -high + 0.1], [0, -high + 0.1]]
    b.add(shapes.revolve(np.array(outer), 48), b.texture('label'), stretch=False)
    b.add(shapes.revolve(np.array(inner), 48))
    ring = shapes.torus(r.uniform(0.3, 0.45), r.uniform(0.06, 0.1))
    turn = rotation((1, 0, 0), np.pi / 2)
    b.add(ring.transformed(turn, (top * 0.95, 0, r.uniform(-0.1, 0.1))))
    b.add(shapes.limb((-0.2, 0, -0.3), (-0.3, 0.15, high + 0.5), 0.04, 0.08))


def aircraft(b) -> None:
    """Fuselage, wings, tail and engines (test split only)."""
    r = b.rng
    s = np.linspace(-1, 1, 20)
    radius = r.uniform(0.13, 0.2) * np.clip(1.15 - np.abs(s) ** 3, 0.25, 1)
    path = np.stack([s, 0 * s, 0.08 * np.clip(-s - 0.3, 0, 1)], axis=1)
    b.add(shapes.tube(path, radius, 24), stretch=False)
    sweep, span = r.uniform(0, 0.4), r.uniform(0.7, 1.1)
    wing = shapes.box((0.4, span, 0.05), 1.0).transformed(None, (0, span / 2, 0))
    shear = np.array([[1, -sweep, 0], [0, 1, 0], [0, 0.1, 1]])
    for mirror in (np.eye(3), np.diag([1.0, -1.0, 1.0])):
        b.add(wing.transformed(shear).transformed(mirror, (0.1, 0, -0.05)))
        stabiliser = wing.transformed(0.4 * shear).transformed(mirror, (-0.85, 0, 0.1))
        b.add(stabiliser)
        if r.random() < 0.8:
            engine = shapes.limb((-0.15, 0, 0), (0.2, 0, 0), 0.09, 0.1)
            b.add(engine.transformed(mirror, mirror @ (0.15, span * 0.45, -0.12)))
    fin = shapes.box((0.3, 0.04, 0.45), 0.6, (-0.12, 0)).transformed(None, (-0.85, 0, 0.35))
    b.add(fin)
    b.add(shapes.ellipsoid((0.16, 0.1, 0.1)).transformed(None, (0.6, 0, 0.13)))


def lamp(b) -> None:
    """Desk lamp: foot, two arms at angles, a conical shade (test split only)."""
    r = b.rng
    b.add(shapes.cylinder(r.uniform(0.35, 0.5), 0.12).transformed(None, (0, 0, -0.9)))
    elbow = np.array([r.uniform(-0.6, -0.2), 0, r.uniform(-0.2, 0.2)])
    head = np.add(elbow, (r.uniform(0.5, 0.9), r.uniform(-0.2, 0.2), r.uniform(0.3, 0.6)))
    b.add(shapes.limb((0, 0, -0.85), elbow, 0.05), b.pick())
    b.add(shapes.limb(elbow, head, 0.045), b.pick())
    b.add(shapes.ellipsoid([0.09] * 3, 12, 16).transformed(None, elbow))
    shade = shapes.cylinder(0.38, 0.45, 0.14)
    b.add(shade.transformed(rotation((0, 1, 0), -r.uniform(0.2, 0.7)), head - (0, 0, 0.1)))
    b.add_box((0.18, 0.1, 0.08), (0.25, 0.1, -0.8))

"""`adjust`, `costs` and `refine_poses`, compiled: the same arithmetic, several times as fast.

`adjust.py`, `residuals.py` and `two_view.py` say what is computed and why, and compute it where
numba cannot be used; the tests hold both to the same answers. `compile_all` takes some seconds;
what comes of it is kept beside this file, or in the user's cache, for other processes. Other
threads go on while this computes: nothing here needs the interpreter's lock.

Arguments that all have in common:

    pairs: i, j (E,), and where their matches begin and end, (E,).
    matches: rays a, b (3, M), sigma, weight (M,).
    believed: R (N, 3, 3), sigma about one axis (N,), where each camera should see the object
        (N, 3), and the information about that (N, 3, 3).
    limits: `residuals.Limits`, given since what was kept does not notice when they change.

Three numbers that belong together are tuples, which stay in registers.

All of it is one file, since what was kept does not notice either when another file changes.
"""

import numpy as np
from numba import njit

# sums in another order, several matches at a time; what is not finite is told all the same
_SETTINGS = {'nogil': True, 'error_model': 'numpy', 'fastmath': {'reassoc', 'contract', 'nsz'}}


def _compiled(function):
    try:
        return njit(cache=True, **_SETTINGS)(function)
    except RuntimeError:  # there is no place to keep it
        return njit(**_SETTINGS)(function)


_small = njit(forceinline=True, **_SETTINGS)  # part of what calls it


@_small
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@_small
def _cross(a, b):
    return (
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    )


@_small
def _row(A, k):
    return A[k, 0], A[k, 1], A[k, 2]


@_small
def _column(A, k):
    return A[0, k], A[1, k], A[2, k]


@_small
def _times(A, x):
    """A (3, 3) times x."""
    return _dot(_row(A, 0), x), _dot(_row(A, 1), x), _dot(_row(A, 2), x)


@_compiled
def _relative(A, B):
    """A B^T (3, 3)."""
    found = np.empty((3, 3))
    for p in range(3):
        for q in range(3):
            found[p, q] = _dot(_row(A, p), _row(B, q))
    return found


@_compiled
def _turn(w, R, found):
    """found (3, 3) gets rotation_from_vector(w) @ R."""
    angle = np.sqrt(_dot(w, w))
    first = half = 1.0
    if angle > 0:
        first, half = np.sin(angle) / angle, 2 * np.sin(angle / 2) / angle
    for q in range(3):
        column = _column(R, q)
        once = _cross(w, column)
        twice = _cross(w, once)
        for p in range(3):
            found[p, q] = column[p] + first * once[p] + 0.5 * half**2 * twice[p]


@_compiled
def _vector(R):
    """vector_from_rotation(R)."""
    axis = R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]
    sine = np.sqrt(_dot(axis, axis))
    cosine = R[0, 0] + R[1, 1] + R[2, 2] - 1
    factor = 0.5
    if sine >= 1e-7:
        factor = np.arctan2(sine, cosine) / sine
    elif cosine < 0:
        k = 0
        for p in range(1, 3):
            if R[p, p] > R[k, k]:
                k = p
        column = _column(R, k)
        axis = (
            0.5 * (column[0] + (k == 0)),
            0.5 * (column[1] + (k == 1)),
            0.5 * (column[2] + (k == 2)),
        )
        factor = np.arctan2(sine, cosine) / max(np.sqrt(_dot(axis, axis)), 1e-12)
    return factor * axis[0], factor * axis[1], factor * axis[2]


@_small
def _meeting(Q, t, a, b, parallel):
    """d, b x t and normal; value and scale, whose product is the error; whether rays are ahead."""
    d = _times(Q, a)
    bt, normal = _cross(b, t), _cross(t, d)
    value, cosine = _dot(normal, b), _dot(d, b)
    square = _dot(normal, normal) + _dot(bt, bt) - 2 * value**2
    scale = 1 / np.sqrt(max(square, 1e-18))
    td, tb = _dot(t, d), _dot(t, b)
    ahead = cosine * tb > td and tb > cosine * td
    if 1 - cosine**2 < parallel:
        ahead = cosine > 0
    return d, bt, normal, value, scale, ahead


@_small
def _terms(Q, t, a, b, parallel):
    """Error, its derivatives by turn and move, and whether rays are ahead: `epipolar_terms`."""
    d, bt, normal, value, scale, ahead = _meeting(Q, t, a, b, parallel)
    share = value * scale**2
    own, double = scale * (1 + 2 * share * value), scale * share
    turn, move = _cross(d, bt), _cross(d, b)
    across = _cross(d, _cross(normal, t))
    outer, inner = _cross(d, normal), _cross(bt, b)
    turn = (
        own * turn[0] - double * across[0],
        own * turn[1] - double * across[1],
        own * turn[2] - double * across[2],
    )
    move = (
        own * move[0] - double * (outer[0] + inner[0]),
        own * move[1] - double * (outer[1] + inner[1]),
        own * move[2] - double * (outer[2] + inner[2]),
    )
    return value * scale, turn, move, ahead


@_compiled
def _pair(Q, t, a, b, sigma, weight, widen, limits, information, pull):
    """The cost of one pair's matches; information (6, 6) and pull (6,) are overwritten."""
    count = a.shape[1]
    J, error, kept = np.empty((6, count)), np.empty(count), np.empty(count)
    reach, near = widen * limits.limit, 0.0
    for k in range(count):
        e, turn, move, ahead = _terms(Q, t, _column(a, k), _column(b, k), limits.parallel)
        J[0, k], J[1, k], J[2, k] = turn
        J[3, k], J[4, k], J[5, k] = move
        u = (e / (reach * sigma[k])) ** 2
        error[k], kept[k] = e, 1 / (1 + u) if ahead else 0.0
        near += weight[k] if ahead and u < 1 else 0.0
    few = min(1.0, limits.most_matches / max(near, 1.0))
    lost, wJ = 0.0, np.empty(count)
    w = np.empty(count)
    for k in range(count):
        share = few * weight[k]
        lost += share * (1 - kept[k])
        w[k] = share * (kept[k] / sigma[k]) ** 2
    for p in range(6):
        total = 0.0
        for k in range(count):
            wJ[k] = w[k] * J[p, k]
            total += wJ[k] * error[k]
        pull[p] = total
        for q in range(p + 1):
            total = 0.0
            for k in range(count):
                total += wJ[k] * J[q, k]
            information[p, q] = information[q, p] = total
    return 0.5 * reach**2 * lost


@_compiled
def _between(R, centres, i, j):
    """Relative rotation (3, 3), unit move and baseline of a pair."""
    one, other = _row(centres, i), _row(centres, j)
    t = _times(R[j], (one[0] - other[0], one[1] - other[1], one[2] - other[2]))
    length = np.sqrt(_dot(t, t))
    if length > 1e-12:
        t = t[0] / length, t[1] / length, t[2] / length
    else:
        t = 0.0, 0.0, 1.0
    return _relative(R[j], R[i]), t, length


@_compiled
def _add_pair(R_j, Q, t, length, i, j, information, pull, A, b):
    """What a pair says of R and t, as what it says of its two cameras."""
    J = np.zeros((6, 12))  # of (turn, move) of camera i, then of j
    for p in range(3):
        J[p, 6 + p] = 1.0
        for q in range(3):
            J[p, q] = -Q[p, q]
            J[3 + p, 3 + q] = R_j[p, q] / length
            J[3 + p, 9 + q] = -R_j[p, q] / length
    J[3, 7], J[3, 8], J[4, 6] = t[2], -t[1], -t[2]
    J[4, 8], J[5, 6], J[5, 7] = t[0], t[1], -t[0]
    for p in range(12):
        row = 6 * (i if p < 6 else j) + p % 6
        left = np.zeros(6)
        for r in range(6):
            b[row] -= J[r, p] * pull[r]
            for s in range(6):
                left[s] += J[r, p] * information[r, s]
        for q in range(12):
            column = 6 * (i if q < 6 else j) + q % 6
            for s in range(6):
                A[row, column] += left[s] * J[s, q]


@_compiled
def _add_prior(R, centre, prior_R, sigma, looking, information, first, A, b):
    """The cost of one camera's prior, which is added from row `first` on."""
    turn = _vector(_relative(prior_R, R))
    u = _dot(turn, turn) / (3 * sigma) ** 2
    w = 1 / sigma**2 / (1 + u)
    for p in range(3):
        A[first + p, first + p] += w
        b[first + p] += w * turn[p]
    seen = _times(R, centre)
    t = -seen[0], -seen[1], -seen[2]
    move = t[0] - looking[0], t[1] - looking[1], t[2] - looking[2]
    J = np.zeros((3, 6))
    J[0, 1], J[0, 2], J[1, 0], J[1, 2], J[2, 0], J[2, 1] = t[2], -t[1], -t[2], t[0], t[1], -t[0]
    for p in range(3):
        for q in range(3):
            J[p, 3 + q] = -R[p, q]
    move_u = _dot(move, _times(information, move)) / 9
    for p in range(6):
        left = _times(information, _column(J, p))  # which is symmetric
        b[first + p] -= _dot(left, move) / (1 + move_u)
        for q in range(6):
            A[first + p, first + q] += _dot(left, _column(J, q)) / (1 + move_u)
    return 0.5 * 9 * (np.log1p(u) + np.log1p(move_u))


@_compiled
def linearise(R, centres, pairs, matches, believed, widen, limits, A, b):
    """Cost of these cameras; A (6N, 6N) and b (6N,) are overwritten. See `adjust._linearise`."""
    cost = 0.0
    for p in range(len(b)):
        b[p] = 0.0
        for q in range(len(b)):
            A[p, q] = 0.0
    information, pull = np.empty((6, 6)), np.empty(6)
    for e in range(len(pairs[0])):
        i, j, begin, end = pairs[0][e], pairs[1][e], pairs[2][e], pairs[3][e]
        Q, t, length = _between(R, centres, i, j)
        a, seen = matches[0][:, begin:end], matches[1][:, begin:end]
        sigma, weight = matches[2][begin:end], matches[3][begin:end]
        cost += _pair(Q, t, a, seen, sigma, weight, widen, limits, information, pull)
        _add_pair(R[j], Q, t, max(length, limits.same_place), i, j, information, pull, A, b)
    for n in range(len(R)):
        own = believed[0][n], believed[1][n], _row(believed[2], n), believed[3][n]
        cost += _add_prior(R[n], _row(centres, n), *own, 6 * n, A, b)
    return cost


@_compiled
def costs(R, centres, pairs, matches, limits):
    """(C,) what the matches cost sets of cameras R (C, N, 3, 3), centres (C, N, 3)."""
    found, reach = np.zeros(len(R)), limits.slowly * limits.limit
    for c in range(len(R)):
        for e in range(len(pairs[0])):
            Q, t, _ = _between(R[c], centres[c], pairs[0][e], pairs[1][e])
            near = all_weight = kept = 0.0
            for k in range(pairs[2][e], pairs[3][e]):
                a, b, weight = _column(matches[0], k), _column(matches[1], k), matches[3][k]
                _, _, _, value, scale, ahead = _meeting(Q, t, a, b, limits.parallel)
                u = (value * scale / (reach * matches[2][k])) ** 2
                all_weight += weight
                kept += weight / (1 + u) if ahead else 0.0
                near += weight if ahead and u < 1 else 0.0
            few = min(1.0, limits.most_matches / max(near, 1.0))
            found[c] += 0.5 * reach**2 * few * (all_weight - kept)
    return found


@_compiled
def _factor(A, damping, floor, L):
    """Cholesky's L of A, damped; not finite where that is not positive definite."""
    for p in range(len(A)):
        for q in range(p):
            found = A[p, q]
            for r in range(q):
                found -= L[p, r] * L[q, r]
            L[p, q] = found / L[q, q]
        found = (1 + damping) * A[p, p] + floor
        for r in range(p):
            found -= L[p, r] ** 2
        L[p, p] = np.sqrt(found)


@_compiled
def _solve(L, b, x):
    """x of L L^T x = b, and its largest entry without the sign."""
    n, largest = len(b), 0.0
    for p in range(n):
        x[p] = b[p]
        for r in range(p):
            x[p] -= L[p, r] * x[r]
        x[p] /= L[p, p]
    for p in range(n - 1, -1, -1):
        for r in range(p + 1, n):
            x[p] -= L[r, p] * x[r]
        x[p] /= L[p, p]
        largest = max(largest, abs(x[p]))
    return largest


@_compiled
def adjust(R, centres, pairs, matches, believed, rounds, limits):
    """R (N, 3, 3), centres (N, 3), A (6N, 6N) and cost; see `adjust.adjust`."""
    n = len(R)
    R, centres, new_R, new_centres = R.copy(), centres.copy(), R.copy(), centres.copy()
    A, new_A, L = np.empty((6 * n, 6 * n)), np.empty((6 * n, 6 * n)), np.empty((6 * n, 6 * n))
    b, new_b, x = np.empty(6 * n), np.empty(6 * n), np.empty(6 * n)
    damping, widen = 1e-7, limits.slowly
    cost = linearise(R, centres, pairs, matches, believed, widen, limits, A, b)
    for step in range(rounds):
        _factor(A, damping, 1e-9, L)
        shorter = min(1.0, 0.5 / max(_solve(L, b, x), 1e-12))
        for k in range(n):
            w = shorter * x[6 * k], shorter * x[6 * k + 1], shorter * x[6 * k + 2]
            _turn(w, R[k], new_R[k])
            for p in range(3):
                new_centres[k, p] = centres[k, p] + shorter * x[6 * k + 3 + p]
        new = linearise(new_R, new_centres, pairs, matches, believed, widen, limits, new_A, new_b)
        if new <= cost:
            done = cost - new < 1e-3 and damping < 1e-9
            R, new_R, centres, new_centres = new_R, R, new_centres, centres
            A, new_A, b, new_b, cost = new_A, A, new_b, b, new
            damping = max(damping / 10, 1e-12)
        else:
            done = damping > 10
            damping *= 20
        if done or step == 3 or step == 6:
            if widen == 1.0 and done:
                break
            widen = max(1.0, widen / 2)
            cost = linearise(R, centres, pairs, matches, believed, widen, limits, A, b)
    if widen != 1.0:
        cost = linearise(R, centres, pairs, matches, believed, 1.0, limits, A, b)
    return R, centres, A, cost


@_small
def _tangents(v):
    """The columns of `tangent_basis`."""
    x, y, z = abs(v[0]), abs(v[1]), abs(v[2])
    least = 0 if x <= y and x <= z else 1 if y <= z else 2
    first = _cross(v, (1.0 * (least == 0), 1.0 * (least == 1), 1.0 * (least == 2)))
    length = np.sqrt(_dot(first, first))
    first = first[0] / length, first[1] / length, first[2] / length
    return first, _cross(v, first)


@_compiled
def _local_equations(R, t, matches, centres, limit, centre_angle, most, parallel, H, g):
    """H (5, 5) and g (5,) of one round of `refine_poses`, and the directions in which t moves."""
    count = matches[0].shape[1]
    J, error, weight = np.empty((5, count + 1)), np.empty(count + 1), np.empty(count + 1)
    one, other = _tangents(t)
    used = 0
    for k in range(count + 1):
        if k < count:
            a, b = _column(matches[0], k), _column(matches[1], k)
        else:
            a, b = centres
        e, turn, move, ahead = _terms(R, t, a, b, parallel)
        J[0, k], J[1, k], J[2, k] = turn
        J[3, k], J[4, k], error[k] = _dot(one, move), _dot(other, move), e
        if k < count:
            near = 1 - (e / (limit * matches[2][k])) ** 2 if ahead else 0.0
            weight[k] = max(near, 0.0) / matches[2][k] ** 2
            used += weight[k] > 0
        else:
            weight[k] = 1 / (centre_angle**2 + e**2)
    few = min(1.0, most / max(used, 1))
    wJ = np.empty(count + 1)
    for p in range(5):
        total = 0.0
        for k in range(count + 1):
            wJ[k] = weight[k] * J[p, k] * (few if k < count else 1.0)
            total += wJ[k] * error[k]
        g[p] = -total
        for q in range(p + 1):
            total = 1.0 if p == q else 0.0  # a radian of uncertainty: nothing is known worse
            for k in range(count + 1):
                total += wJ[k] * J[q, k]
            H[p, q] = H[q, p] = total
    return one, other


@_compiled
def refine_poses(R, t, matches, centres, threshold, rounds, centre_angle, most, parallel):
    """R (P, 3, 3), t (P, 3) and covariances (P, 3, 3); see `two_view.refine_poses`.

    centres: rays, where the two cameras see the object. most, parallel: its constants.
    """
    R, t, covariance = R.copy(), t.copy(), np.empty((len(R), 3, 3))
    H, L, g, x = np.empty((5, 5)), np.empty((5, 5)), np.empty(5), np.empty(5)
    for n in range(len(R)):
        for step in range(rounds):
            limit = threshold * max(1.0, 3.0 * 0.6**step)
            now = _row(t, n)
            one, other = _local_equations(
                R[n], now, matches, centres, limit, centre_angle, most, parallel, H, g
            )
            _factor(H, 0.0, 0.0, L)
            shorter = min(1.0, 0.3 / max(_solve(L, g, x), 1e-12))
            _turn((shorter * x[0], shorter * x[1], shorter * x[2]), R[n].copy(), R[n])
            square = 0.0
            for p in range(3):
                t[n, p] = now[p] + shorter * (one[p] * x[3] + other[p] * x[4])
                square += t[n, p] ** 2
            for p in range(3):
                t[n, p] /= np.sqrt(square)
        for p in range(3):
            for q in range(5):
                g[q] = 1.0 * (p == q)
            _solve(L, g, x)
            covariance[n, p] = x[:3]
    return R, t, covariance


def compile_all() -> None:
    """Have everything compiled, by calling it as it will be called."""
    from .residuals import LIMITS  # which asks for this module

    R, centres = np.stack([np.eye(3)] * 2), np.array([[0.0, 0.0, -1.0], [0.5, 0.0, -1.0]])
    pairs = tuple(np.array([n]) for n in (0, 1, 0, 1))
    matches = np.array([[0.0], [0.0], [1.0]]), np.array([[0.0], [0.0], [1.0]]), np.ones(1)
    believed = R, np.ones(2), -centres, R
    adjust(R, centres, pairs, (*matches, np.ones(1)), believed, 1, LIMITS)
    costs(R[None], centres[None], pairs, (*matches, np.ones(1)), LIMITS)
    ahead = (0.0, 0.0, 1.0), (0.0, 0.0, 1.0)
    limits = LIMITS.most_matches, LIMITS.parallel
    refine_poses(R[:1].copy(), np.array([[1.0, 0.0, 0.0]]), matches, ahead, 2.5, 1, 0.1, *limits)

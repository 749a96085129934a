"""Frames: a delta as the bytes that leave a device, and what a reader checks before it takes one.

A frame is a safetensors file in memory: a few flat arrays as a codec packed them, and in its header
the schema, the codec, release and alpha, which factors there are at what rank, the matrices' sizes,
and a SHA-256 of all of that and of the arrays. There is no place for anything else.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import save

from fleettune.adapters.factors import Array, check_tied_alpha
from fleettune.adapters.patch import Patch, from_arrays, to_arrays
from fleettune.adapters.tensor_bytes import read_tensors
from fleettune.deltas.codecs import FP32, Codec, Parts, Shape, unpack
from fleettune.deltas.rejections import RejectedError, Rejection
from fleettune.shapes import Shapes, Site, order, parse_site

SCHEMA = 1
_DIGEST = "digest"
_DTYPES = ("float32", "float16", "int8", "uint8", "uint32")
LARGEST = 1e6
"""Largest entry and alpha of a delta: far beyond any tune, and its products stay finite."""
_SPARSEST = 4_096
"""Entries that a byte of arrays may stand for; more is a claim on memory and no delta."""
_MOST_CLAIMED = 1 << 22
"""Entries that a sparse delta may have where no release says how many there are."""
HEADER_LIMIT = 65_536
"""Bytes beyond which a header describes no patch: that is over a thousand sites."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedDelta:
    """What the reader knows of a delta before it looks.

    Attributes:
        release: Version that it must name.
        shapes: Shapes of that release.
        limit_bytes: Longest frame that is read at all.
    """

    release: int
    shapes: Shapes
    limit_bytes: int


def write_frame(patch: Patch, codec: Codec = FP32) -> bytes:
    """Returns a patch as the bytes that are sent.

    Raises:
        ValueError: If an entry is not finite, or sites of one module differ in shape.
    """
    arrays = {name: array for name, array in to_arrays(patch).items() if not _is_in_header(name)}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("a delta must have finite entries; this one has NaN or infinity")
    parts = codec.pack(list(arrays.values()))
    header = {
        "schema": str(SCHEMA),
        "codec": codec.name,
        "release": str(patch.release),
        "alpha": repr(patch.alpha),
        "sites": _sites_text(patch),
        "sizes": _sizes_text(patch),
    }
    header[_DIGEST] = _digest(header, parts)
    return _sorted_header(save(dict(parts), metadata=header))


def _sorted_header(frame: bytes) -> bytes:
    """Returns a frame with its header in one order: safetensors draws one for every file."""
    end = 8 + int.from_bytes(frame[:8], "little")
    header = json.loads(frame[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return frame[:8] + text.ljust(end - 8) + frame[end:]


def payload_bytes(frame: bytes) -> int:
    """Returns the bytes of a frame's arrays; its header is among those counted for a report."""
    return len(frame) - 8 - int.from_bytes(frame[:8], "little")


def read_frame(
    frame: bytes, expected: ExpectedDelta | None = None, most_entries: int = _MOST_CLAIMED
) -> Patch:
    """Returns the patch that a frame holds.

    Args:
        frame: The bytes.
        expected: What it must be; None where only the frame itself is checked.
        most_entries: Entries that a sparse frame may stand for where nothing is expected.

    Raises:
        RejectedError: With the first fault: size, framing, schema, digest, release, sites, shapes,
            numbers.
    """
    if expected is not None and len(frame) > expected.limit_bytes:
        told = f"a frame must be <= {expected.limit_bytes} bytes, got {len(frame)}"
        raise RejectedError(Rejection.OVERSIZED, told)
    header, parts = _open_frame(frame)
    if header.get("schema") != str(SCHEMA):
        told = f"schema must be {SCHEMA}, got {header.get('schema')!r}"
        raise RejectedError(Rejection.SCHEMA, told)
    given = header.pop(_DIGEST, "")
    if given != _digest(header, parts):
        raise RejectedError(Rejection.DIGEST, "the frame is not what its digest says")
    try:
        release, alpha = int(header["release"]), float(header["alpha"])
        sites, sizes = _parse_sites(header["sites"]), _parse_sizes(header["sizes"])
    except RejectedError:
        raise
    except (KeyError, ValueError) as error:
        raise RejectedError(Rejection.UNREADABLE, f"the header cannot be read: {error}") from error
    _check_alpha(alpha)
    if expected is not None:
        _check(release, sites, sizes, expected)
    shapes, alphas = _named_shapes(sites, sizes)
    _check_claim(shapes, parts, most_entries if expected is None else None)
    arrays = _unpack(header.get("codec", ""), parts, shapes)
    try:
        return from_arrays(arrays | alphas, release, alpha)
    except ValueError as error:
        raise RejectedError(Rejection.SHAPE, str(error)) from error


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < math.inf:
        raise RejectedError(Rejection.NOT_FINITE, f"alpha must be finite and > 0, got {alpha}")
    if alpha > LARGEST:
        raise RejectedError(Rejection.OUT_OF_RANGE, f"alpha must be <= {LARGEST:g}, got {alpha}")


def _open_frame(frame: bytes) -> tuple[dict[str, str], Parts]:
    try:
        header, parts = read_tensors(frame, "a frame", HEADER_LIMIT)
    except ValueError as error:
        raise RejectedError(Rejection.UNREADABLE, str(error)) from error
    odd = [name for name, part in parts.items() if part.dtype.name not in _DTYPES]
    if odd:
        raise RejectedError(Rejection.UNREADABLE, f"unknown kinds of arrays: {odd}")
    return header, parts


def _digest(header: Mapping[str, str], parts: Parts) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(parts):
        digest.update(f"{name} {parts[name].dtype} {parts[name].shape}".encode())
        digest.update(np.ascontiguousarray(parts[name]).data)
    return base64.b85encode(digest.digest()).decode()


def _is_in_header(name: str) -> bool:
    """Whether the header holds an array: a tie's alpha must arrive without rounding."""
    return name.endswith("/alpha")


def _check(
    release: int, groups: Sequence[_FactorGroup], sizes: _Sizes, expected: ExpectedDelta
) -> None:
    if release != expected.release:
        told = f"release must be {expected.release}, got {release}"
        raise RejectedError(Rejection.RELEASE, told)
    matrices = expected.shapes.matrices()
    for group in groups:
        for site in group.sites:
            if site.layer >= expected.shapes.layers or site.module not in matrices:
                raise RejectedError(Rejection.SITE, f"this release has no site {site}")
            wanted, given = matrices[site.module], sizes.get(site.module)
            if given != wanted or not 1 <= group.rank <= min(wanted):
                told = f"{site} must be {wanted}, got {given} at rank {group.rank}"
                raise RejectedError(Rejection.SHAPE, told)


def _check_claim(shapes: Mapping[str, Shape], parts: Parts, most: int | None) -> None:
    """Raises RejectedError if a few bytes stand for more entries than any delta has.

    Args:
        shapes: What is claimed.
        parts: What there is.
        most: Entries of a sparse delta; None where the claim is known to fit a release.
    """
    claimed = sum(math.prod(shape) for shape in shapes.values())
    held = sum(part.nbytes for part in parts.values())
    swells = most is not None and claimed > max(8 * held, most)
    if min(map(min, shapes.values())) < 1 or claimed > _SPARSEST * max(held, 1) or swells:
        told = f"{held} bytes of arrays cannot stand for {claimed} entries"
        raise RejectedError(Rejection.SHAPE, told)


def _unpack(codec: str, parts: Parts, shapes: Mapping[str, Shape]) -> dict[str, Array]:
    """Returns the arrays by name, after their entries were checked."""
    arrays = dict(zip(shapes, unpack(codec, parts, list(shapes.values())), strict=True))
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise RejectedError(Rejection.NOT_FINITE, "a delta must have finite entries")
    largest = max(float(np.abs(array).max(initial=0)) for array in arrays.values())
    if largest > LARGEST:
        told = f"entries of a delta must be <= {LARGEST:g}, got {largest:g}"
        raise RejectedError(Rejection.OUT_OF_RANGE, told)
    return arrays


@dataclass(frozen=True, slots=True)
class _FactorGroup:
    """Sites with one rank; those of a tie share a pair, and have its alpha."""

    sites: tuple[Site, ...]
    rank: int
    alpha: float | None = None


_Sizes = Mapping[str, tuple[int, int]]


def _sites_text(patch: Patch) -> str:
    """Returns ``4.q.k=8`` for every layer and rank, ``2.up+5.up=4@8.0`` for every tie."""
    layers: dict[tuple[int, int], list[str]] = {}
    for site in sorted(patch.factors, key=order):
        rank = patch.factors[site].a.shape[0]
        layers.setdefault((site.layer, rank), []).append(site.module)
    own = [f"{layer}.{'.'.join(modules)}={rank}" for (layer, rank), modules in layers.items()]
    ties = [
        f"{'+'.join(map(str, sorted(tied.vectors, key=order)))}={tied.pair.a.shape[0]}"
        f"@{tied.alpha!r}"
        for tied in patch.ties
    ]
    return " ".join([*own, *ties])


def _parse_sites(text: str) -> list[_FactorGroup]:
    """Returns the groups that `_sites_text` wrote.

    Raises:
        RejectedError: If a site is unknown or named twice.
        ValueError: If a number cannot be read.
    """
    groups: list[_FactorGroup] = []
    for word in text.split(" "):
        named, _, told = word.partition("=")
        rank, tied, alpha = told.partition("@")
        if tied:
            check_tied_alpha(float(alpha))
            sites = tuple(map(_site, named.split("+")))
            groups.append(_FactorGroup(sites, int(rank), float(alpha)))
        else:
            layer, *modules = named.split(".")
            groups += [_FactorGroup((_site(f"{layer}.{module}"),), int(rank)) for module in modules]
    flat = [site for group in groups for site in group.sites]
    if len(set(flat)) < len(flat) or not flat:
        raise RejectedError(Rejection.SITE, f"each site must be named once, got {text!r}")
    return groups


def _site(text: str) -> Site:
    try:
        return parse_site(text)
    except ValueError as error:
        raise RejectedError(Rejection.SITE, str(error)) from error


def _sizes_text(patch: Patch) -> str:
    """Returns ``q96x96``, inputs by outputs, for every module that is adapted."""
    sizes: dict[str, tuple[int, int]] = {}
    pairs = [(site, item) for site, item in patch.factors.items()]
    pairs += [(site, tied.pair) for tied in patch.ties for site in tied.vectors]
    for site, item in sorted(pairs, key=lambda pair: order(pair[0])):
        size = item.a.shape[1], item.b.shape[0]
        if sizes.setdefault(site.module, size) != size:
            raise ValueError(f"sites of {site.module} must have one shape, got {size} at {site}")
    return " ".join(f"{module}{n_in}x{n_out}" for module, (n_in, n_out) in sizes.items())


def _parse_sizes(text: str) -> dict[str, tuple[int, int]]:
    """Returns the sizes that `_sizes_text` wrote; ValueError if a number cannot be read."""
    sizes: dict[str, tuple[int, int]] = {}
    for word in text.split(" "):
        module = word.rstrip("0123456789x")
        n_in, _, n_out = word.removeprefix(module).partition("x")
        sizes[module] = int(n_in), int(n_out)
    return sizes


def _named_shapes(
    groups: Sequence[_FactorGroup], sizes: _Sizes
) -> tuple[dict[str, Shape], dict[str, Array]]:
    """Returns the shape of every array that was packed, in their order, and the ties' alphas."""
    shapes: dict[str, Shape] = {}
    alphas: dict[str, Array] = {}
    own = sorted((g for g in groups if g.alpha is None), key=lambda g: order(g.sites[0]))
    ties = [group for group in groups if group.alpha is not None]
    prefixes = [str(group.sites[0]) + "." for group in own] + [f"tie{i}/" for i in range(len(ties))]
    for prefix, group in zip(prefixes, [*own, *ties], strict=True):
        module = group.sites[0].module
        if module not in sizes or any(sizes.get(s.module) != sizes[module] for s in group.sites):
            raise RejectedError(Rejection.SHAPE, f"sizes of {group.sites} are missing or differ")
        n_in, n_out = sizes[module]
        shapes |= {f"{prefix}a": (group.rank, n_in), f"{prefix}b": (n_out, group.rank)}
        if group.alpha is not None:
            alphas[f"{prefix}alpha"] = np.array([group.alpha], dtype=np.float32)
            for site in group.sites:
                shapes |= {f"{prefix}{site}.u": (group.rank,), f"{prefix}{site}.v": (n_out,)}
    return shapes, alphas

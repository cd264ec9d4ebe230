"""The certificate of a result: what was rewritten, by which law, when that holds, and how far off it can be.

Written by `optimize --certificate FILE`, proved again by `verify A B --certificate FILE`: `recheck` derives
every region and bound from the two files alone, so that a forged certificate lets no wrong result pass, and
what is stated must not be better than what is derived. JSON, the same for the same files:

    format, version   what this is
    original, result  sha256 of what each file holds, however it is stored
    assumptions       what the bounds rest on
    rewrites          each that was made, in order: its pass, the law as an equation, its node, what went
    regions           each value that is computed otherwise than before:
        value, graph          where
        replaced, made        the nodes that led to it, and those that do now
        inputs                the values from which they do
        laws                  the passes that had to do with it
        conditions            values compared, [old, new]
        bound                 |new - old| <= slope max|input| + offset, null where there is none
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fuser.errors import InputError, OutputError, VerificationError
from fuser.hosts.output import write_text

if TYPE_CHECKING:
    from fuser.hosts.onnx.certificate.recheck import Region
    from fuser.rewrite.pattern import Event

Name = str | os.PathLike[str]

FORMAT: Final = "graph-fuser certificate"
VERSION: Final = 1
ASSUMPTIONS: Final = (
    "the roundoff of the type of the weights, or better; sums in any order",
    "no overflow, no underflow, no algorithm that saves products, as Winograd's does",
    "what the graph computes of constants alone is exact",
)


def certify(
    original: Name, result: Name, events: "Sequence[Event]", equations: Mapping[str, str]
) -> dict[str, Any]:
    """The certificate of `result`, which `events` made of `original`; `equations` are those of the passes.

    Raises:
        VerificationError: a region is not proved, which is named.
    """
    regions = proved(original, result)
    rewrites = [
        {
            "pass": event.rewrite,
            "law": equations.get(event.rewrite, ""),
            "graph": event.graph,
            "node": event.node,
            "removed": list(event.removed),
        }
        for event in events
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "original": digest(original),
        "result": digest(result),
        "assumptions": list(ASSUMPTIONS),
        "rewrites": rewrites,
        "regions": [{**described(region), "laws": laws(region, events)} for region in regions],
    }


def write(certificate: dict[str, Any], path: Name) -> None:
    """Write it, as a whole or not at all.

    Raises:
        OutputError: that is not possible.
    """
    text = json.dumps(certificate, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        write_text(Path(path), text)
    except OSError as error:
        raise OutputError(f"{os.fspath(path)}: cannot write the certificate: {error.strerror}") from error


def check(original: Name, result: Name, path: Name) -> int:
    """Prove again what a certificate states; the number of its regions.

    Raises:
        InputError: it is no certificate, or a file cannot be read.
        VerificationError: it is one of other files, states what is not so, or a region is not proved.
            Any other exception is a mistake of ours, once both files are valid.
    """
    stated = read(path)
    for role, file in (("original", original), ("result", result)):
        if stated.get(role) != digest(file):
            raise VerificationError(f"{os.fspath(file)} is not the {role} that {os.fspath(path)} is about")
    regions = [described(region) for region in proved(original, result)]
    claims = stated.get("regions")
    names = [claim.get("value") for claim in claims] if isinstance(claims, list) else claims
    if names != [region["value"] for region in regions]:
        raise VerificationError(f"{os.fspath(path)} states other regions than there are: {names}")
    for claim, region in zip(claims or [], regions, strict=True):
        for key in ("graph", "replaced", "made", "inputs", "conditions"):
            if claim.get(key) != region[key]:
                raise VerificationError(f"{region['value']!r}: {key} are {region[key]}, not {claim.get(key)}")
        if not covers(claim.get("bound"), region["bound"]):
            raise VerificationError(
                f"{region['value']!r}: the bound is {region['bound']}, not {claim.get('bound')}"
            )
    return len(regions)


def covers(stated: Any, derived: Any) -> bool:
    """Whether a stated bound is no better than the derived one; none is better than none."""
    if stated is None or derived is None:
        return stated is None
    try:
        return all(float(stated[key]) >= derived[key] for key in ("slope", "offset"))
    except (KeyError, TypeError, ValueError):
        return False


def read(path: Name) -> dict[str, Any]:
    """A certificate.

    Raises:
        InputError: it is none.
    """
    try:
        stated = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{os.fspath(path)}: cannot read the certificate: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{os.fspath(path)} is no certificate: {error}") from error
    found = (stated.get("format"), stated.get("version")) if isinstance(stated, dict) else (None, None)
    if found != (FORMAT, VERSION) or not isinstance(stated, dict):
        raise InputError(f"{os.fspath(path)} is no certificate of version {VERSION}: it states {found}")
    return stated


def proved(original: Name, result: Name) -> "list[Region]":
    """The regions, all of them proved.

    Raises:
        VerificationError: one is not, with its name and why.
    """
    from fuser.hosts.onnx.certificate.recheck import prove

    regions = prove(original, result)
    open_ones = [region for region in regions if region.reason]
    if open_ones:
        names = ", ".join(repr(region.value) for region in open_ones[:5])
        raise VerificationError(
            f"{os.fspath(result)}: {len(open_ones)} of {len(regions)} regions are not proved ({names}): "
            f"{open_ones[0].reason}"
        )
    return regions


def described(region: "Region") -> dict[str, Any]:
    """A region as JSON can hold it."""
    bound = {"slope": region.slope, "offset": region.offset}
    conditions = json.loads(json.dumps(dict(region.conditions)))
    return {
        "graph": region.graph,
        "value": region.value,
        "replaced": list(region.replaced),
        "made": list(region.made),
        "inputs": list(region.inputs),
        "conditions": conditions,
        "bound": bound if isfinite(region.slope) and isfinite(region.offset) else None,
    }


def laws(region: "Region", events: "Sequence[Event]") -> list[str]:
    """The passes that had to do with a region, in order."""
    nodes = {*region.replaced, *region.made}
    concerned = (event for event in events if event.node in nodes or not nodes.isdisjoint(event.removed))
    return list(dict.fromkeys(event.rewrite for event in concerned))


def digest(path: Name) -> str:
    """The sha256 of what a model holds: all but where and how its tensors are stored.

    Raises:
        InputError: it cannot be read.
    """
    import onnx
    from onnx import external_data_helper, numpy_helper

    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:  # of the file, or of protobuf, whose types are its own
        raise InputError(f"{os.fspath(path)}: cannot read the model: {error}") from error
    found, base = hashlib.sha256(), str(Path(path).parent)
    for tensor in external_data_helper._get_all_tensors(model):  # noqa: SLF001  # graphs in graphs as well
        array = numpy_helper.to_array(tensor, base)
        head = f"{tensor.name} {tensor.data_type} {list(tensor.dims)} "
        found.update(
            head.encode() + (repr(array.tolist()).encode() if array.dtype == object else array.tobytes())
        )
        tensor.Clear()
    found.update(model.SerializeToString(deterministic=True))
    return found.hexdigest()
